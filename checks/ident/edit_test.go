package ident

import (
	"bytes"
	"net/netip"
	"slices"
	"testing"
)

func insert(content []byte, offset int64, text []byte) []byte {
	return slices.Concat(content[:offset], text, content[offset:])
}

func TestInsertingALine(t *testing.T) {
	const line = "host synapse synapse_user 127.0.0.1/32 md5"
	for _, c := range []struct {
		content string
		before  int // the record; -1 for the end
		comment string
		want    string
	}{
		{"# x\nlocal a a peer\nlocal b b peer\n", 1, "why", "# x\nlocal a a peer\n# why\n" + line + "\nlocal b b peer\n"},
		{"local a \\\n a peer\n", 0, "", line + "\nlocal a \\\n a peer\n"},
		{"# \\\n\nlocal a a peer", 0, "", "# \\\n\n" + line + "\nlocal a a peer"},
		{"local a a peer\r\nlocal b b peer\r\n", 1, "why", "local a a peer\r\n# why\r\n" + line + "\r\nlocal b b peer\r\n"},
		{"", -1, "", line + "\n"},
		{"local a a peer\n", -1, "why\nso\\", "local a a peer\n# why\n# so\\.\n" + line + "\n"},
		{"local a a peer", -1, "", "local a a peer\n" + line + "\n"},
		{"local a a peer\\", -1, "", "local a a peer\\\n\n" + line + "\n"},
		{"local a a peer\\\n", -1, "", "local a a peer\\\n\n" + line + "\n"},
		{"# x\r\nlocal a a peer\\\r\n", -1, "", "# x\r\nlocal a a peer\\\r\n\r\n" + line + "\r\n"},
		{"# it ends in \\", -1, "", "# it ends in \\\n\n" + line + "\n"},
		{"local a a peer\x00", -1, "", "local a a peer\x00\n\n" + line + "\n"},
	} {
		r := parseText(t, 16, c.content)
		var rec *record
		if c.before >= 0 {
			rec = &r.Records[c.before]
		}
		offset, text := r.insertBefore(rec, []byte(c.content), c.comment, line)
		if got := insert([]byte(c.content), offset, text); !bytes.Equal(got, []byte(c.want)) {
			t.Errorf("%q before %d: %q", c.content, c.before, got)
		}
	}
}

func TestTheLineIsForOneRoleAndAddress(t *testing.T) {
	v4, v6 := netip.MustParseAddr("192.0.2.7"), netip.MustParseAddr("fe80::7%eth0")
	for _, c := range []struct {
		database, user string
		addr           netip.Addr
		want           string
	}{
		{"synapse", "synapse_user", v4, "host    synapse    synapse_user    192.0.2.7/32    md5"},
		{"synapse", "synapse_user", v6, "host    synapse    synapse_user    fe80::7/128    md5"},
		{"synapse", "synapse_user", netip.MustParseAddr("::ffff:192.0.2.7"), "host    synapse    synapse_user    192.0.2.7/32    md5"},
		{"synapse", "synapse_user", netip.Addr{}, "local   synapse    synapse_user    md5"},
		{"all", "all", v4, `host    "all"    "all"    192.0.2.7/32    md5`},
		{"Synapse DB", `a"b`, v4, `host    "Synapse DB"    "a""b"    192.0.2.7/32    md5`},
	} {
		if got, ok := recordLine(c.database, c.user, c.addr, "md5"); !ok || got != c.want {
			t.Errorf("%s", got)
		}
	}
	for _, name := range []string{"", "/^a", "a\nb", "a\x00b"} {
		if line, ok := recordLine(name, "b", v4, "md5"); ok {
			t.Errorf("database %q: %s", name, line)
		}
		if line, ok := recordLine("a", name, v4, "md5"); ok {
			t.Errorf("role %q: %s", name, line)
		}
	}
}

// oddNames are names that mean something else where they are not quoted.
var oddNames = []string{"all", "sameuser", "samerole", "samegroup", "replication", "+group", "@list", "@", "a b", "a,b", ",", "#", "a#b", `"`, `""`, `a"b`, `a"`, "Upper", `a\`, `\`, "é", "\t", " a ", "a\rb", "include"}

func TestTheLineMatchesOnlyItsRole(t *testing.T) {
	for _, name := range oddNames {
		line, ok := recordLine(name, name, netip.Addr{}, "md5")
		if !ok {
			t.Errorf("no line for %q", name)
			continue
		}
		for _, major := range majors {
			r := parseText(t, major, line+"\n")
			if len(r.Records) != 1 || len(r.faulty()) > 0 {
				t.Fatalf("%q: %+v", line, r.Records)
			}
			for _, other := range append(oddNames, "synapse", "group") {
				d := r.match(path{Database: other, User: other}, world{})
				if d.Undecided != "" || (d.Record != nil) != (other == name) {
					t.Errorf("PostgreSQL %d: %q and the role %q: %+v", major, line, other, d)
				}
			}
		}
	}
}
