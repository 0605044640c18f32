package ident

import (
	"strings"

	"github.com/jackc/pgx/v5"
)

// identifier is a name as SQL takes it, quoted only where it must be.
func identifier(name string) string {
	const plain = "abcdefghijklmnopqrstuvwxyz0123456789_"
	if name != "" && strings.Trim(name, plain) == "" && (name[0] < '0' || name[0] > '9') {
		return name
	}
	return pgx.Identifier{name}.Sanitize()
}

// literal is a text as SQL takes it, whatever standard_conforming_strings is.
func literal(text string) string {
	quoted := "'" + strings.ReplaceAll(text, "'", "''") + "'"
	if strings.Contains(text, `\`) {
		return " E" + strings.ReplaceAll(quoted, `\`, `\\`)
	}
	return quoted
}

// shell is an argument as a POSIX shell takes it.
func shell(arg string) string { return "'" + strings.ReplaceAll(arg, "'", `'\''`) + "'" }
