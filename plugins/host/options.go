package host

import (
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/synapse-doctor/synapse-doctor/plugins/internal/wire"
)

// Options are the same for every kind of plugin. The zero value is good.
type Options struct {
	// Log receives what plugins print and how their processes fare. Nil for nothing.
	Log *slog.Logger
	// StartTimeout is how long a plugin may take until it answers; 0 for 5 seconds.
	StartTimeout time.Duration
	// Env names further variables that the plugin is given. See [AllowedEnv].
	Env []string
	// SocketDir is where the plugin's private directory is made; empty for XDG_RUNTIME_DIR or the temporary directory.
	SocketDir string

	speaks wire.Versions // nil for those of this build
}

func (o Options) versions() wire.Versions {
	if o.speaks == nil {
		return wire.Spoken
	}
	return o.speaks
}

func (o Options) startTimeout() time.Duration {
	if o.StartTimeout <= 0 {
		return 5 * time.Second
	}
	return o.StartTimeout
}

func (o Options) log() *slog.Logger {
	if o.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return o.Log
}

// AllowedEnv are the environment variables that every plugin is given. Passwords live in the others: PGPASSWORD, for one.
var AllowedEnv = []string{
	"PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR",
	"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy",
}

// environ picks the allowed variables.
func (o Options) environ() []string {
	var env []string
	for _, names := range [][]string{AllowedEnv, o.Env} {
		for _, name := range names {
			if value, ok := os.LookupEnv(name); ok && !strings.ContainsAny(name, "=\x00") {
				env = append(env, name+"="+value)
			}
		}
	}
	return env
}
