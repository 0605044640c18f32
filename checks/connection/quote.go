package connection

import (
	"strings"

	"github.com/jackc/pgx/v5"
)

const wordBytes = "abcdefghijklmnopqrstuvwxyz0123456789_"

func isWord(s string) bool { return s != "" && strings.Trim(s, wordBytes) == "" }

// identifier is a name as SQL takes it. It is quoted only where it must be: it stands in commands that people type.
func identifier(name string) string {
	if isWord(name) && (name[0] < '0' || name[0] > '9') {
		return name
	}
	return pgx.Identifier{name}.Sanitize()
}

// hbaName is a name as pg_hba.conf takes it.
func hbaName(name string) string {
	if isWord(name) {
		return name
	}
	return `"` + name + `"`
}

// shell is an argument as a POSIX shell takes it.
func shell(arg string) string {
	if arg != "" && strings.Trim(arg, wordBytes+"ABCDEFGHIJKLMNOPQRSTUVWXYZ.:/-") == "" {
		return arg
	}
	return "'" + strings.ReplaceAll(arg, "'", `'\''`) + "'"
}
