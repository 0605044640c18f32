"""The plugin's program: the file that zipapp makes runs this."""

import check
from synapse_doctor_serve import serve

serve("account-emails", "1.0", [check.CHECK])
