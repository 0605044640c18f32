package ident

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
)

// generator makes files that are odd in the ways in which pg_hba.conf can be.
type generator struct {
	*rand.Rand
	sense int // one in so many things is odd
}

func newGenerator(seed uint64) generator {
	g := generator{Rand: rand.New(rand.NewPCG(seed, 14))}
	g.sense = 3 + g.IntN(30)
	return g
}

func (g generator) pick(list ...string) string { return list[g.IntN(len(list))] }

func (g generator) chance(n int) bool { return g.IntN(n) == 0 }

func (g generator) odd() bool { return g.chance(g.sense) }

// included are the files beside the main one. They may name each other, and missing is not there.
var included = []string{"list", "names", "extra.conf", "dir/a.conf", "dir/b.conf", "dir/a.b.conf", "dir/.hidden.conf", "dir/other", "dir/.conf"}

// tree is a main file and what it may include, by name.
func (g generator) tree() map[string]string {
	tree := map[string]string{"pg_hba.conf": g.file()}
	for _, name := range included {
		switch {
		case g.chance(2):
			tree[name] = ""
		case name == "list" || name == "names":
			tree[name] = g.listFile()
		default:
			tree[name] = g.file()
		}
	}
	return tree
}

func (g generator) eol() string {
	if g.chance(12) {
		return g.pick("\r\n", "\\\n", "\\\r\n", "\\\\\n", "\r\r\n", "\n\n", " \\\n", "\\ \n", "\r\\\n")
	}
	return "\n"
}

func (g generator) file() string {
	var b strings.Builder
	if g.chance(60) {
		b.WriteString("\ufeff")
	}
	for range 1 + g.IntN(6) {
		line := g.record()
		switch {
		case g.odd():
			line = g.mutate(line)
		case g.chance(14):
			line = "# " + line
		case g.odd():
			line = g.pick("", " ", "\t", ",", "@", "@list", `""`, "#", "\x00", "\\", "host", "local all", "include extra.conf", "include_dir dir")
		}
		b.WriteString(line + g.eol())
	}
	text := b.String()
	if g.chance(4) {
		return strings.TrimRight(text, "\n")
	}
	return text
}

func (g generator) listFile() string {
	var b strings.Builder
	for range g.IntN(5) {
		b.WriteString(g.name())
		b.WriteString(g.pick("\n", "\n", " ", ", ", ",\n", "\n# more\n", " include extra.conf\n", "\ninclude names\n", g.eol()))
	}
	return b.String()
}

// mutate changes a few bytes.
func (g generator) mutate(s string) string {
	b := []byte(s)
	for range 1 + g.IntN(3) {
		at := g.IntN(len(b) + 1)
		switch g.IntN(3) {
		case 0:
			b = append(b[:at:at], append([]byte(g.pick(`"`, `""`, ",", " ", "\t", "#", "\\", "\r", "\x00", "@", "/", "%", "\v", "\f", "=", "é", "\xff", "\n", "+")), b[at:]...)...)
		case 1:
			if at < len(b) {
				b = append(b[:at:at], b[at+1:]...)
			}
		case 2:
			if at < len(b) {
				b[at] = "\" ,\t#\\@/\x000:.x="[g.IntN(14)]
			}
		}
	}
	return string(b)
}

func (g generator) blank() string {
	if g.odd() {
		return g.pick("\t", "  ", "\r", " , ", " ,", "\t\t ", ",")
	}
	return " "
}

func (g generator) record() string {
	if g.odd() {
		return g.pick("include", "include", "include_if_exists", "include_dir", `"include"`, "INCLUDE") + g.blank() +
			g.pick("extra.conf", "dir", "missing", `"extra.conf"`, `""`, "names,list", "pg_hba.conf", "dir/a.conf", "../data/extra.conf", "dir/../names", "./extra.conf", "dir//b.conf", "/missing", `" "`, "dir/")
	}
	kind := g.pick("local", "host", "host", "host", "hostssl", "hostnossl", "hostgssenc", "hostnogssenc")
	if g.odd() {
		kind = g.pick("Host", `"host"`, `"local"`, "hosts", "host,local", "hostnosslx", "Local")
	}
	fields := []string{kind, g.names(), g.names()}
	if !strings.Contains(kind, "local") || g.odd() && g.chance(3) {
		fields = append(fields, g.address()...)
	}
	method := g.method(kind)
	fields = append(fields, method)
	for g.odd() || slices.Contains(buildMethods, method) && g.chance(2) || method == "radius" && g.chance(2) {
		fields = append(fields, g.option(method))
	}
	if g.odd() && g.chance(3) {
		fields = fields[:1+g.IntN(len(fields))]
	}
	var b strings.Builder
	if g.chance(10) {
		b.WriteString(g.blank())
	}
	for i, f := range fields {
		if i > 0 {
			b.WriteString(g.blank())
		}
		b.WriteString(f)
	}
	if g.chance(12) {
		b.WriteString(g.pick(" # comment", "#comment", " ", ",", "\t#, \"", " #\\"))
	}
	return b.String()
}

func (g generator) names() string {
	list := g.name()
	for g.chance(4) {
		list += g.pick(",", ", ", ",\t", " ,", ",,") + g.name()
	}
	return list
}

func (g generator) name() string {
	if !g.odd() {
		return g.pick("all", "all", "synapse", "synapse_user", "sameuser", "samerole", "replication", "+group", "alice", "@list", "/^syn")
	}
	if g.chance(40) {
		return g.pick("", `"`) + strings.Repeat("x", 10236+g.IntN(6)) + g.pick("", `"`, ",")
	}
	return g.pick("all", "synapse", "synapse_user", "sameuser", "samerole", "samegroup", "replication", "+group", "+", "alice",
		g.pick(`"all"`, `"+group"`, `"Upper Case"`, `"a""b"`, `a"b c"d`, `""`, `""x`, `"""x"`, `x""`, `x"`, `"@list"`, `@"list"`, `"a,b"`, `"#"`, "ALL", "a#b", `"x""`, `"""`, `""""`),
		g.pick("@list", "@names", "@missing", "@", "@pg_hba.conf", "@dir", "@dir/other", "@../data/list", "@/missing", `@"no such"`, "@extra.conf", "@list,alice", "@./names"),
		g.pick("/^syn", "/synapse", "/", "/a|b", "/[a-z]+$", `/^\w+\d*$`, `"/^a"`, "/(", "/a**", "/[", "/^(syn|alice)$", `"/a,b"`, "/a{2}", "/x+?", "/(?i)a", "/***=a", "/\\", "/a)", "/^*", "/a|", `/\.`, "/(a|b)*c", "/[^a-z]", "/.", "/a$b^c"))
}

func (g generator) address() []string {
	if g.chance(3) && !g.odd() {
		return []string{g.pick("all", "samehost", "samenet", "localhost", ".example.com", "db.example.com")}
	}
	if g.odd() {
		return []string{g.pick(`"all"`, `"samehost"`, "ALL", "all/8", "samenet/8", "localhost/8", `""`, `"/8"`, "a,b", "1.2.3.4,5.6.7.8", "@list", "-", "*", "db_1", "1.2.3.4.5", "127.0.0.1x", "0x", "08.1.1.1", "1..2", ".", "1.2.3.", "::g", "256.1.1.1", "1.2.3.256", "1.16777216", "4294967296", `"127.0.0.1 "/8`, `" 127.0.0.1/8"`, "+1", "-1", "1.2.3.4%1", "fe80::1%", "::1%lo", "fe80::1%nosuch", "1:2:3:4:5:6:7:8:9", "[::1]", "::1]", "1::2::3", "12345::", "::ffff:1.2.3", "::1.2.3.04", "::1.2.3.256")}
	}
	addr := g.pick("127.0.0.1", "10.0.0.0", "192.168.1.7", "0.0.0.0", "127.1", "0x7f.1", "0x7f000001", "017700000001", "2130706433", "10.256", "1.2.65535", "0", "00", "1", "::1", "::", "fe80::1", "2001:DB8::", "::ffff:10.0.0.1", "::10.0.0.1", "fe80::1%2", "fe80::1%lo", "ff02::1%1", "::1%1", "1:2:3:4:5:6:7::", "::2:3:4:5:6:7:8", `"10.0.0.1"`, "0x0X1", "0X7F.0.0.1", fmt.Sprintf("%d.%d.%d.%d", g.IntN(300), g.IntN(300), g.IntN(300), g.IntN(300)), fmt.Sprintf("%x:%x::%x", g.IntN(70000), g.IntN(70000), g.IntN(70000)))
	switch {
	case g.chance(8) && strings.Contains(addr, ":"):
		return []string{addr, g.pick("ffff::", "::", "ffff:0:ffff::", "ffff:ffff:ffff:ffff::")}
	case g.chance(8) && !g.odd():
		return []string{addr, g.pick("255.0.0.0", "255.255.255.255", "255.0.255.0", "0.0.0.0", "0xff.0")}
	case g.odd():
		return []string{addr, g.pick("255.0.0.0", "255.255.255.255", "255.0.255.0", "0.0.0.0", "0xff.0", "ffff::", "::", "ffff:ffff::%1", "0", "all", "24", `"255.255.0.0"`, `""`, "255.0.0.0,255.0.0.0", "/8", "localhost", "255.255.255.0/24")}
	}
	if strings.Contains(addr, ":") && g.chance(2) {
		return []string{addr + g.pick("/128", "/64", "/33")}
	}
	if !g.odd() {
		return []string{addr + g.pick("/32", "/8", "/24", "/0")}
	}
	return []string{addr + g.pick("/33", "/129", "/", "/-1", "/+8", "/08", "/0x8", "/ 8", "/8 ", "/8/8", "/a", `"/ 8"`, `"/	+8"`, "/-0", "/99999999999999999999", "/8.0", `/"8"`, "%1/8", `"/-"`, `"/ "`, "/8,/8")}
}

func (g generator) method(kind string) string {
	switch {
	case g.odd():
	case kind == "local":
		return g.pick("peer", "ident", "trust", "md5", "reject", "scram-sha-256", "pam")
	case kind == "hostssl" && g.chance(3):
		return "cert"
	default:
		return g.pick("md5", "scram-sha-256", "scram-sha-256", "trust", "reject", "ident", "password", "ident")
	}
	return g.pick("peer", "gss", "sspi", "pam", "bsd", "ldap", "cert", "radius", "oauth", "krb5", "crypt", "MD5", `"md5"`, "md5,trust", "implicit reject", `""`, "@list", "ldap", "radius", "cert", "oauth")
}

func (g generator) option(method string) string {
	switch {
	case method == "radius" && !g.chance(4):
		return g.pick("radiusservers=127.0.0.1", `radiusservers="127.0.0.1,127.0.0.2"`, "radiussecrets=s", `"radiussecrets=a,b"`, `"radiussecrets=""a"" , b"`, `"radiusports=1,2,3"`, "radiusports=0", "radiusports=12x", "radiusidentifiers=x", `"radiussecrets=a,"`, `"radiussecrets= "`, "radiussecrets=", "radiusservers=", `"radiusservers=127.0.0.1 127.0.0.2"`, "radiusservers=127.0.0.1 radiussecrets=s", `"radiussecrets=""a""""b"",c"`, `"radiussecrets=""a"`, `"radiussecrets=""a""b"`)
	case method == "ldap" && !g.chance(4):
		return g.pick("ldapserver=a", "ldapprefix=b", "ldapsuffix=c", "ldapbasedn=d", "ldapport=389", "ldapport=x", "ldapport=0x1", `"ldapport= +12a"`, "ldapport=4294967296", "ldapbinddn=x", "ldapbindpasswd=y", "ldapsearchattribute=z", `"ldapsearchfilter=(uid=$username)"`, "ldapurl=ldap://a/b?c", "ldapurl=nonsense", "ldapscheme=ldaps", "ldapscheme=x", "ldaptls=1")
	case method == "oauth" && !g.chance(4):
		return g.pick("issuer=https://a", "scope=x", "validator=v", "delegate_ident_mapping=1", "map=m", "issuer=a scope=b")
	case method == "cert" && !g.chance(4):
		return g.pick("map=m", "clientcert=verify-full", "clientcert=verify-ca", "clientname=DN")
	}
	return g.pick("map=m", "map=", "map=m", `map="my map"`, `"map=x"`, "clientcert=verify-ca", "clientcert=verify-full", "clientcert=1", "clientcert=no-verify", "clientname=CN", "clientname=DN", "clientname=x", "nonsense=1", "nonsense", "=", "=x", "map=a,map=b", "pamservice=x", "pam_use_hostname=1", "krb_realm=x", "include_realm=0", "compat_realm=1", "upn_username=1", "ldapserver=x", "radiussecrets=x", "issuer=x", "validator=x", "MAP=x", "map =x", "@list", `""`, "usermap=x", "krb_server_hostname=x")
}
