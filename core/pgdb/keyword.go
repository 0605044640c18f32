package pgdb

// keyword is one of libpq's connection settings, as of PostgreSQL 18.
type keyword struct {
	env    string // the environment variable that gives it when nothing else does
	secret bool   // never printed
	// ignored says why the doctor does not act on it. Whoever needs the setting to get in is told: see [Settings.Ignored].
	ignored string
}

const (
	noKerberos = "the doctor does not speak Kerberos"
	noOAuth    = "the doctor does not log in with OAuth"
)

// keywords are all that libpq knows; anything else is an error, as it is there.
// Those that are not ignored act on the client only, except application_name, client_encoding and options, which are
// also the only ones that are ever sent to the server.
var keywords = map[string]keyword{
	"application_name":          {env: "PGAPPNAME"},
	"channel_binding":           {env: "PGCHANNELBINDING"},
	"client_encoding":           {env: "PGCLIENTENCODING"},
	"connect_timeout":           {env: "PGCONNECT_TIMEOUT"},
	"dbname":                    {env: "PGDATABASE"},
	"fallback_application_name": {},
	"host":                      {env: "PGHOST"},
	"hostaddr":                  {env: "PGHOSTADDR"},
	"keepalives":                {},
	"keepalives_count":          {},
	"keepalives_idle":           {},
	"keepalives_interval":       {},
	"load_balance_hosts":        {env: "PGLOADBALANCEHOSTS"},
	"max_protocol_version":      {env: "PGMAXPROTOCOLVERSION"},
	"min_protocol_version":      {env: "PGMINPROTOCOLVERSION"},
	"options":                   {env: "PGOPTIONS"},
	"passfile":                  {env: "PGPASSFILE"},
	"password":                  {env: "PGPASSWORD", secret: true},
	"port":                      {env: "PGPORT"},
	"require_auth":              {env: "PGREQUIREAUTH"},
	"requirepeer":               {env: "PGREQUIREPEER"},
	"service":                   {env: "PGSERVICE"},
	"servicefile":               {env: "PGSERVICEFILE"},
	"ssl_max_protocol_version":  {env: "PGSSLMAXPROTOCOLVERSION"},
	"ssl_min_protocol_version":  {env: "PGSSLMINPROTOCOLVERSION"},
	"sslcert":                   {env: "PGSSLCERT"},
	"sslcertmode":               {env: "PGSSLCERTMODE"},
	"sslkey":                    {env: "PGSSLKEY"},
	"sslmode":                   {env: "PGSSLMODE"},
	"sslnegotiation":            {env: "PGSSLNEGOTIATION"},
	"sslpassword":               {secret: true},
	"sslrootcert":               {env: "PGSSLROOTCERT"},
	"sslsni":                    {env: "PGSSLSNI"},
	"target_session_attrs":      {env: "PGTARGETSESSIONATTRS"},
	"tcp_user_timeout":          {},
	"user":                      {env: "PGUSER"},

	"authtype":            {ignored: "libpq ignores it too, since PostgreSQL 7"},
	"gssdelegation":       {env: "PGGSSDELEGATION", ignored: noKerberos},
	"gssencmode":          {env: "PGGSSENCMODE", ignored: noKerberos},
	"gsslib":              {env: "PGGSSLIB", ignored: noKerberos},
	"krbsrvname":          {env: "PGKRBSRVNAME", ignored: noKerberos},
	"oauth_client_id":     {ignored: noOAuth},
	"oauth_client_secret": {secret: true, ignored: noOAuth},
	"oauth_issuer":        {ignored: noOAuth},
	"oauth_scope":         {ignored: noOAuth},
	"replication":         {ignored: "a replication session cannot read tables as Synapse does"},
	"scram_client_key":    {secret: true, ignored: "the doctor logs in with the password, not with keys made from it"},
	"scram_server_key":    {secret: true, ignored: "the doctor logs in with the password, not with keys made from it"},
	"sslcompression":      {env: "PGSSLCOMPRESSION", ignored: "libpq ignores it too, since PostgreSQL 14"},
	"sslcrl":              {env: "PGSSLCRL", ignored: "the doctor does not read certificate revocation lists"},
	"sslcrldir":           {env: "PGSSLCRLDIR", ignored: "the doctor does not read certificate revocation lists"},
	"sslkeylogfile":       {ignored: "the doctor writes no file while it examines"},
	"tty":                 {ignored: "libpq ignores it too, since PostgreSQL 14"},
}
