package ident

import (
	"bytes"
	"fmt"
	"net/netip"
	"strings"
)

// insertBefore is what has to be inserted, and where, to have the line tried just before a record: into the record's
// file, or at the end of the main file when there is no record. The content is that file's. All bytes that are there
// stay.
func (r *rules) insertBefore(rec *record, content []byte, comment, line string) (offset int64, text []byte) {
	eol := lineEnding(content)
	var b bytes.Buffer
	offset = int64(len(content))
	if rec != nil {
		offset = rec.Offset
	} else {
		// A last line that ends in a backslash, or hides its end behind a NUL, goes on after the first line ending.
		for open(append(bytes.Clone(content), b.Bytes()...)) {
			b.WriteString(eol)
		}
	}
	if comment != "" {
		for c := range strings.Lines(comment) {
			c = strings.TrimSpace(c)
			if strings.HasSuffix(c, `\`) {
				c += "." // it would continue the comment over the line
			}
			b.WriteString(strings.TrimSpace("# "+c) + eol)
		}
	}
	b.WriteString(line + eol)
	return offset, b.Bytes()
}

// open is whether what is added at the content's end would belong to a line that is there.
func open(content []byte) bool {
	lines := logicalLines(content)
	return len(lines) > 0 && lines[len(lines)-1].open
}

// lineEnding is how the first line ends.
func lineEnding(content []byte) string {
	if at := bytes.IndexByte(content, '\n'); at > 0 && content[at-1] == '\r' {
		return "\r\n"
	}
	return "\n"
}

// recordLine is the line that gives one role a way into one database: through the socket for the zero Addr, or from
// that address alone. There is none for a name that begins with /, which is a regular expression even within quotes
// (PostgreSQL 16 and later), or that has a character that no line can hold.
func recordLine(database, user string, addr netip.Addr, method string) (string, bool) {
	d, ok := quoteName(database)
	u, ok2 := quoteName(user)
	if !ok || !ok2 {
		return "", false
	}
	if !addr.IsValid() {
		return fmt.Sprintf("local   %s    %s    %s", d, u, method), true
	}
	addr = addr.WithZone("").Unmap()
	return fmt.Sprintf("host    %s    %s    %s/%d    %s", d, u, addr, addr.BitLen(), method), true
}

var keywords = map[string]bool{"all": true, "sameuser": true, "samerole": true, "samegroup": true, "replication": true}

// quoteName is a database's or a role's name as a value of its own.
func quoteName(name string) (string, bool) {
	const plain = "abcdefghijklmnopqrstuvwxyz0123456789_"
	switch {
	case name == "", name[0] == '/', strings.ContainsAny(name, "\n\x00"):
		return "", false
	case strings.Trim(name, plain) == "" && !keywords[name]:
		return name, true
	}
	return `"` + strings.ReplaceAll(name, `"`, `""`) + `"`, true
}
