package database

import (
	"fmt"
	"strings"
)

// remedy puts together the advice, the doctor's own way where it has one, and what to do by hand.
func (e *entry) remedy(fixable bool, advice, byHand string) string {
	var parts []string
	if advice != "" {
		parts = append(parts, advice)
	}
	whyNot := e.fixable()
	if fixable && whyNot == "" {
		parts = append(parts, "The doctor does it, and can put it back:", "    synapse-doctor fix database --apply")
	}
	if byHand != "" {
		parts = append(parts, byHand)
	}
	if fixable && whyNot != "" {
		parts = append(parts, "The doctor can't do that itself: "+whyNot+".")
	}
	return strings.Join(parts, "\n\n")
}

// asAdmin says who runs statements, where, and what they are.
func asAdmin(database string, statements ...string) string {
	psql := "sudo -u postgres psql"
	if database != "" {
		psql += " -d " + shell(database)
	}
	return fmt.Sprintf("By hand, as an administrator of the database server (on its machine: %s):\n\n    %s;", psql, strings.Join(statements, ";\n    "))
}

// shell is an argument as a POSIX shell takes it.
func shell(arg string) string {
	if arg != "" && strings.Trim(arg, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.:/-") == "" {
		return arg
	}
	return "'" + strings.ReplaceAll(arg, "'", `'\''`) + "'"
}

// literal is a text as SQL takes it.
func literal(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }
