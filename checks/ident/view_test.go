package ident

import (
	"strings"
	"testing"
)

func text(s string) *string { return &s }

func TestDifferencesFromTheView(t *testing.T) {
	const file = "local all all peer\nhost a,b all 10.0.0.0/8 ident map=x\nhosts\nhost all all all ldap ldapserver=a ldapprefix=b ldapbindpasswd=secret\n"
	local := viewRow{File: mainFile, Line: 1, Type: text("local"), Database: []string{"all"}, User: []string{"all"}, Method: text("peer")}
	host := viewRow{File: mainFile, Line: 2, Type: text("host"), Database: []string{"a", "b"}, User: []string{"all"}, Address: text("10.0.0.0"), Netmask: text("255.0.0.0"), Method: text("ident"), Options: []string{"map=x"}}
	hosts := viewRow{File: mainFile, Line: 3, Error: text("invalid")}
	ldap := viewRow{File: mainFile, Line: 4, Error: text("ldapbindpasswd=secret")}
	for _, c := range []struct {
		name   string
		change func(rows []viewRow) []viewRow
		want   string // what the sentence begins and what it has; empty when nothing differs
		about  string
	}{
		{"nothing", func(r []viewRow) []viewRow { return r }, "", ""},
		{"a warning", func(r []viewRow) []viewRow { r[1].Error = text("cannot match"); return r }, "", ""},
		{"one more", func(r []viewRow) []viewRow { return append(r, viewRow{File: mainFile, Line: 9}) }, mainFile + ":9: ", "not seen here"},
		{"one less", func(r []viewRow) []viewRow { return r[:3] }, mainFile + ":4: ", "does not see"},
		{"another line", func(r []viewRow) []viewRow { r[1].Line = 3; return r }, mainFile + ":2: ", mainFile + ":3"},
		{"another file", func(r []viewRow) []viewRow { r[1].File = "/etc/other.conf"; return r }, mainFile + ":2: ", "/etc/other.conf:2"},
		{"refused there", func(r []viewRow) []viewRow { r[0].Type = nil; return r }, mainFile + ":1: ", "refuses"},
		{"accepted there", func(r []viewRow) []viewRow { r[2] = local; r[2].Line = 3; return r }, mainFile + ":3: ", "accepts"},
		{"type", func(r []viewRow) []viewRow { r[1].Type = text("hostssl"); return r }, mainFile + ":2: ", "hostssl"},
		{"databases", func(r []viewRow) []viewRow { r[1].Database = []string{"a b"}; return r }, mainFile + ":2: ", "databases"},
		{"roles", func(r []viewRow) []viewRow { r[1].User = nil; return r }, mainFile + ":2: ", "roles"},
		{"method", func(r []viewRow) []viewRow { r[1].Method = text("md5"); return r }, mainFile + ":2: ", "md5"},
		{"address", func(r []viewRow) []viewRow { r[1].Address = text("11.0.0.0"); return r }, mainFile + ":2: ", "10.0.0.0/8"},
		{"mask", func(r []viewRow) []viewRow { r[1].Netmask = text("255.255.0.0"); return r }, mainFile + ":2: ", "10.0.0.0/8"},
		{"no address", func(r []viewRow) []viewRow { r[1].Address, r[1].Netmask = nil, nil; return r }, mainFile + ":2: ", "address"},
		{"options", func(r []viewRow) []viewRow { r[1].Options = nil; return r }, mainFile + ":2: ", "options"},
		{"a password", func(r []viewRow) []viewRow { r[3].Line = 5; return r }, mainFile + ":4: ", ""},
	} {
		got := parseText(t, 15, file).compare(c.change([]viewRow{local, host, hosts, ldap}))
		if c.want == "" != (got == "") || !strings.HasPrefix(got, c.want) || !strings.Contains(got, c.about) || strings.Contains(got, "secret") {
			t.Errorf("%s: %q", c.name, got)
		}
	}
}
