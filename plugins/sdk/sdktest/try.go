package sdktest

import (
	"fmt"
	"os"
	"os/exec"
)

// tryWith names the environment variable that holds a command line, to be run on each case once it is broken.
const tryWith = "SYNAPSE_DOCTOR_TRY"

// try runs a command line on the broken database, so that the author sees what an administrator would. It is given -c with
// the configuration of this homeserver, and a state directory that is thrown away.
func (b *bench) try(name, command string) {
	b.t.Helper()
	fmt.Printf("\n# %s\n\n", name)
	cmd := exec.CommandContext(b.t.Context(), "sh", "-c", command+` -c "$0"`, b.db.Homeserver(b.t))
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), "SYNAPSE_DOCTOR_STATE_DIR="+b.state, "SYNAPSE_DOCTOR_ADMIN_DSN=none")
	if err := cmd.Run(); err != nil && cmd.ProcessState.ExitCode() != 2 { // 2: something was found
		b.t.Errorf("%s: %v", command, err)
	}
}
