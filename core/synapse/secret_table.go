package synapse

import "strings"

// secretTables are those of which a key, or another column, may let somebody in, or is part of a secret; a name that ends in *
// stands for all that begin so.
var secretTables = []string{
	"access_tokens", "refresh_tokens", "login_tokens", "open_id_tokens", "registration_tokens", "threepid_*", "user_threepid*", "user_ips",
	"pushers", "ui_auth_sessions*", "sessions", "e2e_*", "dehydrated_devices", "delayed_events",
}

// KeepsSecrets reports whether rows of a table of Synapse's are not for a report: neither their keys nor anything else of them.
func KeepsSecrets(table string) bool {
	for _, name := range secretTables {
		if prefix, all := strings.CutSuffix(name, "*"); table == name || all && strings.HasPrefix(table, prefix) {
			return true
		}
	}
	return false
}
