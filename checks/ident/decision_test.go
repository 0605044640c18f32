package ident

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/synapse-doctor/synapse-doctor/core/pgtest"
)

// roles are those of the cluster that connections are tried on, with the groups that each is put in. Nobody has a
// password that is tried, so that nearly every connection fails, and the server logs which record decided.
var roles = map[string][]string{
	"synapse_user": {"synapse"},
	"synapse":      nil,
	"alice":        {"group"},
	"group":        {"outer"},
	"outer":        nil,
	"Upper Case":   {"a,b"},
	"a,b":          nil,
	"all":          nil,
	"super":        nil,
}

// inRole is whether a role is in another by the table above.
func inRole(user, role string) (bool, error) {
	groups, exists := roles[user]
	if !exists {
		return false, nil
	}
	if user == role {
		return true, nil
	}
	for _, g := range groups {
		if is, _ := inRole(g, role); is { // it never fails
			return true, nil
		}
	}
	return false, nil
}

var (
	someUsers     = []string{"synapse_user", "synapse", "alice", "Upper Case", "all", "super", "nobody", "group", "synapse_1"}
	someDatabases = []string{"synapse", "synapse_user", "group", "outer", "all", "replication", "a,b", "Upper Case", "other", "synapse_1"}
)

// validNames is a field with databases or users.
func (g generator) validNames() string {
	name := func() string {
		if !g.chance(3) {
			return g.pick("all", "synapse", "synapse_user", "alice")
		}
		return g.pick("all", `"all"`, "synapse", "synapse_user", "alice", `"Upper Case"`, "Upper\" \"Case", "sameuser", "samerole", "samegroup", "replication", `"replication"`, `"sameuser"`,
			"+group", "+outer", `"+outer"`, "+synapse", `+"a,b"`, "+super", "+nowhere", "@names", "@list", "/^syn", "/_", `"/^(syn|Upper) C?"`, "/se$", "/^[a-z]+$", `/\d$`, "/.", "other", "nobody")
	}
	list := name()
	for g.chance(2) {
		list += g.pick(",", ", ") + name()
	}
	return list
}

// validRecord is a record whose method's name is unknown to the server's authentication only where it may be.
func (g generator) validRecord(hostNames bool, method string) string {
	kind := g.pick("local", "local", "host", "host", "host", "host", "hostssl", "hostssl", "hostnossl", "hostnogssenc", "hostgssenc")
	fields := []string{kind, g.validNames(), g.validNames()}
	if kind != "local" {
		addr := g.pick("all", "all", "all", "all", "samenet", "127.0.0.0/8", "127.0.0.0/8", "127.0.0.1/32", "127.1/8", "::1/128", "0.0.0.0/0", "::/0", "samehost", "samenet", "10.0.0.0/8", "127.0.0.0 255.0.0.3", "127.0.0.1 0.0.0.255", "0/1", "128.0.0.0/1",
			"127.7.0.0/16", "::ffff:127.0.0.1/128", "::ffff:0:0/96", "0x7f.7.1/31", "fd00::/8", "::1 ::1", "::2 ::fffe", "::1%1/128", "127.7.7.7/30")
		if hostNames && g.chance(3) {
			addr = g.pick("localhost", "LOCALHOST", ".localhost", "other.example", `"localhost"`, ".host")
		}
		fields = append(fields, addr)
	}
	return strings.Join(append(fields, method), g.pick(" ", "\t", "  ", " "))
}

// validTree is files without fault, in which at most one record rejects and one trusts: the server does not name those.
func (g generator) validTree(major int, hostNames bool) map[string]string {
	special := map[int]string{}
	if g.chance(2) {
		special[g.IntN(8)] = "reject"
	}
	if g.chance(2) {
		special[g.IntN(8)] = "trust"
	}
	total := 0
	record := func() string {
		method := g.pick("md5", "scram-sha-256", "password", "ident", "ident map=none")
		if m, ok := special[total]; ok {
			method = m
		}
		total++
		return g.validRecord(hostNames, method)
	}
	file := func(n int) string {
		var b strings.Builder
		for range n {
			b.WriteString(record() + "\n")
			if g.chance(6) {
				b.WriteString(g.pick("\n", "# host all all all trust\n", "# and \\\nhost all all all trust\n", "\\\n\n"))
			}
		}
		return b.String()
	}
	main := "local all postgres trust\n" + file(g.IntN(4))
	tree := map[string]string{"names": g.pick("alice\n", "synapse, other\n", "# none but these\nalice,other\n", "@list\n"), "list": g.pick("synapse_user\n", "\"Upper Case\" all\n")}
	if major >= 16 {
		tree["dir/names"], tree["dir/list"] = "alice @list\n", "other\n"
		tree["extra.conf"], tree["dir/a.conf"], tree["dir/b.conf"] = file(g.IntN(3)), file(g.IntN(3)), "include_if_exists missing\n"+file(1)
		main += g.pick("include extra.conf\n", "include_dir dir\n", "", "include_if_exists dir/b.conf\n")
	}
	tree["pg_hba.conf"] = main + file(5+g.IntN(8))
	return tree
}

// attempt is a connection, and from which address of this machine.
type attempt struct {
	path
	server string
}

func (a attempt) String() string {
	return fmt.Sprintf("database %q user %q from %v, TLS %v", a.Database, a.User, a.Addr, a.TLS)
}

func (g generator) attempt(clients []netip.Addr) attempt {
	a := attempt{path: path{Database: g.pick(someDatabases...), User: g.pick(someUsers...)}}
	if g.chance(2) {
		a.Database, a.User = g.pick("synapse", "synapse_user"), g.pick("synapse_user", "alice")
	}
	if g.chance(4) {
		return a
	}
	a.Addr, a.TLS = clients[g.IntN(len(clients))], g.chance(2)
	a.server = "127.0.0.1"
	if a.Addr.Is6() {
		a.server = "::1"
	}
	return a
}

// outcome is the record that decided: its place, a word where the server does not tell it, or that none did.
const (
	rejected  = "rejected"
	trusted   = "trusted"
	noneMatch = "no record matches"
)

var (
	matchedFile = regexp.MustCompile(`Connection matched file "([^"]*)" line (\d+): "`)
	matchedLine = regexp.MustCompile(`Connection matched pg_hba\.conf line (\d+): "`)
)

// decide connects with a wrong password, and finds in the log which record decided.
func (a attempt) decide(t *testing.T, s *pgtest.Server, log *os.File) string {
	t.Helper()
	config, err := pgconn.ParseConfig(fmt.Sprintf("host=%s port=%d sslmode=disable", s.SocketDir, s.Port))
	if err != nil {
		t.Fatal(err)
	}
	config.Database, config.User, config.Password = a.Database, a.User, "wrong"
	if a.Addr.IsValid() {
		mode := "disable"
		if a.TLS {
			mode = "require"
		}
		tcp, err := pgconn.ParseConfig(fmt.Sprintf("host=%s port=%d sslmode=%s", a.server, s.Port, mode))
		if err != nil {
			t.Fatal(err)
		}
		config.Host, config.TLSConfig = a.server, tcp.TLSConfig
		dialer := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(a.Addr, 0))}
		config.DialFunc = dialer.DialContext
	}
	config.Fallbacks = nil
	conn, err := pgconn.ConnectConfig(t.Context(), config)
	if err == nil {
		_ = conn.Close(t.Context())
		return trusted
	}
	pg, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		t.Fatalf("%v: %v", a, err)
	}
	if pg.Code == "3D000" { // it was let in, to a database that does not exist
		return trusted
	}
	var text bytes.Buffer
	if _, err := text.ReadFrom(log); err != nil {
		t.Fatal(err)
	}
	switch m, n := matchedFile.FindAllSubmatch(text.Bytes(), -1), matchedLine.FindAllSubmatch(text.Bytes(), -1); {
	case len(m) == 1:
		return fmt.Sprintf("%s:%s", m[0][1], m[0][2])
	case len(n) == 1:
		return fmt.Sprintf("%s:%s", filepath.Join(s.DataDir, "pg_hba.conf"), n[0][1])
	case strings.Contains(pg.Message, "pg_hba.conf rejects connection"):
		return rejected
	case strings.Contains(pg.Message, "no pg_hba.conf entry"):
		return noneMatch
	case strings.Contains(pg.Message, "is not permitted to log in"), strings.Contains(pg.Message, "does not exist"):
		return trusted // a group, or nobody
	}
	t.Fatalf("%v: %v\n%s", a, err, text.Bytes())
	return ""
}

// expected is the same from our decision.
func expected(d decision) string {
	switch {
	case d.Record == nil:
		return noneMatch
	case d.Record.Method == "reject":
		return rejected
	case d.Record.Method == "trust":
		return trusted
	}
	return d.Record.where()
}

func TestTheRecordThatDecidesIsTheServers(t *testing.T) {
	trees, attempts := 40, 25
	if testing.Short() {
		trees = 8
	}
	own, clients := interfaces(t)
	// A reload keeps its session until the test ends.
	config := func(int) pgtest.Config {
		return pgtest.Config{Settings: map[string]string{"max_connections": strconv.Itoa(trees + 20)}}
	}
	pgtest.EachMajor(t, config, func(t *testing.T, s *pgtest.Server) {
		prepare(t, s)
		major := s.Major(t)
		log, err := os.Open(s.LogFile)
		if err != nil {
			t.Fatal(err)
		}
		defer log.Close()
		seen := map[string]int{}
		for seed := range trees {
			g := newGenerator(uint64(seed))
			// The server asks for an address's name, which is known without a network only here.
			hostNames, from := seed%4 == 0, clients
			if hostNames {
				from = []netip.Addr{netip.MustParseAddr("127.0.0.1")}
			}
			tree := g.validTree(major, hostNames)
			plantFiles(t, s.DataDir, tree)
			s.Reload(t)
			r, err := parse(filepath.Join(s.DataDir, "pg_hba.conf"), major, disk)
			if err != nil {
				t.Fatal(err)
			}
			if f := r.faulty(); len(f) > 0 {
				t.Fatalf("seed %d: %s: %s\n%s", seed, f[0].where(), f[0].Fault, showTree(tree))
			}
			w := world{Member: inRole, Networks: own, Hostname: func(netip.Addr) (string, bool, error) { return "localhost", true, nil }}
			for range attempts {
				a := g.attempt(from)
				d := r.match(a.path, w)
				if d.Undecided != "" {
					t.Errorf("seed %d: %v: %s\n%s", seed, a, d.Undecided, showTree(tree))
				}
				if _, err := log.Seek(0, 2); err != nil {
					t.Fatal(err)
				}
				got, want := a.decide(t, s, log), expected(d)
				if got != want {
					t.Errorf("seed %d: %v: the server's decision is %s, and not %s\n%s", seed, a, got, want, showTree(tree))
				}
				switch got {
				case rejected, trusted, noneMatch:
					seen[got]++
				default:
					seen["named"]++
				}
			}
			if t.Failed() {
				return
			}
		}
		t.Log(seen)
		if !testing.Short() && (seen["named"] < trees*attempts/4 || seen[rejected] < 10 || seen[trusted] < 10 || seen[noneMatch] < trees) {
			t.Error("the decisions are too much alike")
		}
	})
}

// prepare makes the roles and switches TLS on.
func prepare(t *testing.T, s *pgtest.Server) {
	t.Helper()
	key, cert := selfSigned(t)
	s.WriteFile(t, "server.key", key)
	s.WriteFile(t, "server.crt", cert)
	conn := superuserOf(t, s)
	run := func(format string, args ...any) {
		t.Helper()
		if _, err := conn.Exec(t.Context(), fmt.Sprintf(format, args...)); err != nil {
			t.Fatal(err)
		}
	}
	run(`ALTER SYSTEM SET ssl = on`)
	for role := range roles {
		run(`CREATE ROLE "%s" LOGIN PASSWORD '%s'`, role, "right")
	}
	for role, groups := range roles {
		for _, group := range groups {
			run(`GRANT "%s" TO "%s"`, group, role)
		}
	}
	run(`ALTER ROLE super SUPERUSER`)     // is in every role, but not for pg_hba.conf
	run(`ALTER ROLE "group" NOINHERIT`)   // which does not matter either
	run(`ALTER ROLE outer NOLOGIN`)       // nor this
	run(`ALTER ROLE "a,b" PASSWORD NULL`) // nor this
	s.Reload(t)
}

func selfSigned(t *testing.T) (key, cert []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour), DNSNames: []string{"localhost"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// interfaces are this machine's, and the addresses of loopback that connections can come from. From others the server's
// question to an ident daemon may stay without an answer for minutes.
func interfaces(t *testing.T) (own []netip.Prefix, clients []netip.Addr) {
	t.Helper()
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			own = append(own, p)
		}
	}
	candidates := []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("127.7.7.5"), netip.MustParseAddr("127.7.0.1"), netip.MustParseAddr("127.0.0.2"), netip.MustParseAddr("::1"), netip.MustParseAddr("::1")}
	for _, a := range candidates {
		if reaches(a) {
			clients = append(clients, a)
		}
	}
	return own, clients
}

// reaches is whether loopback can be reached from an address.
func reaches(from netip.Addr) bool {
	host := "127.0.0.1"
	if from.Is6() {
		host = "::1"
	}
	l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		return false
	}
	defer l.Close()
	dialer := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0)), Timeout: time.Second}
	conn, err := dialer.DialContext(context.Background(), "tcp", net.JoinHostPort(host, strconv.Itoa(l.Addr().(*net.TCPAddr).Port)))
	if err != nil {
		return false
	}
	conn.Close()
	return true
}
