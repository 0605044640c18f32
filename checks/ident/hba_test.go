package ident

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
)

var majors = []int{14, 15, 16, 17, 18}

// inMemory is files that are not on a disk, by their path.
func inMemory(tree map[string]string) files {
	return files{
		Read: func(path string) ([]byte, error) {
			text, ok := tree[path]
			if !ok {
				return nil, fs.ErrNotExist
			}
			return []byte(text), nil
		},
		List: func(dir string) (names []string, err error) {
			for path := range tree {
				if filepath.Dir(path) == dir {
					names = append(names, filepath.Base(path))
				}
			}
			if names == nil {
				return nil, fs.ErrNotExist
			}
			slices.Sort(names)
			slices.Reverse(names) // a directory has no order
			return names, nil
		},
	}
}

const mainFile = "/etc/pg_hba.conf"

func parseText(t testing.TB, major int, text string, more ...string) *rules {
	t.Helper()
	tree := map[string]string{mainFile: text}
	for i := 0; i < len(more); i += 2 {
		tree[more[i]] = more[i+1]
	}
	r, err := parse(mainFile, major, inMemory(tree))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestStockFilesHaveNoFault(t *testing.T) {
	want := map[string]int{"debian": 7, "redhat": 6, "docker": 7}
	for name, records := range want {
		text, err := os.ReadFile("testdata/" + name + ".conf")
		if err != nil {
			t.Fatal(err)
		}
		for _, major := range majors {
			r := parseText(t, major, string(text))
			if len(r.faulty()) > 0 || len(r.Records) != records {
				t.Errorf("%s, PostgreSQL %d: %d records, %d refused", name, major, len(r.Records), len(r.faulty()))
			}
		}
	}
}

func TestUnreadableMainFileIsAnError(t *testing.T) {
	_, err := parse("/etc/other.conf", 15, inMemory(nil))
	if err == nil || !strings.Contains(err.Error(), "/etc/other.conf") {
		t.Error(err)
	}
}

func TestRecordsKnowWhereTheyBegin(t *testing.T) {
	text := "# first\r\n\r\nlocal all \\\r\n  all peer # why\r\nhost all all ::1/128 ident\r\n"
	r := parseText(t, 15, text)
	type place struct {
		line   int
		offset int64
		text   string
	}
	var got []place
	for _, rec := range r.Records {
		got = append(got, place{rec.Line, rec.Offset, rec.Text})
	}
	want := []place{
		{3, int64(strings.Index(text, "local")), "local all   all peer # why"},
		{5, int64(strings.Index(text, "host")), "host all all ::1/128 ident"},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%+v", got)
	}
	if where := r.Records[1].where(); where != mainFile+":5" {
		t.Error(where)
	}
}

func TestIncludedRecordsComeWhereTheyAreIncluded(t *testing.T) {
	main := "local a a peer\ninclude_dir hba.d\ninclude /srv/more.conf\ninclude_if_exists missing.conf\nlocal z z peer\n"
	more := []string{
		"/etc/hba.d/b.conf", "local c c peer\n", "/etc/hba.d/a.conf", "# nothing\nlocal b @names peer\n", "/etc/hba.d/names", "x, y\n",
		"/etc/hba.d/.c.conf", "nonsense\n", "/etc/hba.d/d.conf.bak", "nonsense\n", "/etc/hba.d/.conf", "nonsense\n", "/srv/more.conf", "local d d peer\n",
	}
	r := parseText(t, 16, main, more...)
	var got []string
	for _, rec := range r.Records {
		got = append(got, fmt.Sprintf("%s %s %s", rec.where(), rec.Databases[0].Text, rec.Users[0].Text))
	}
	want := []string{mainFile + ":1 a a", "/etc/hba.d/a.conf:2 b x", "/etc/hba.d/b.conf:1 c c", "/srv/more.conf:1 d d", mainFile + ":5 z z"}
	if !slices.Equal(got, want) || len(r.faulty()) > 0 {
		t.Errorf("%q", got)
	}
	if want := []string{mainFile, "/etc/hba.d/a.conf", "/etc/hba.d/names", "/etc/hba.d/b.conf", "/srv/more.conf"}; !slices.Equal(r.Files, want) {
		t.Errorf("read %q", r.Files)
	}

	r = parseText(t, 15, main, more...)
	if f := r.faulty(); len(f) != 3 || f[0].Line != 2 {
		t.Errorf("before 16 nothing is included, and the file is refused: %+v", f)
	}
}

// Each is what a server refuses, as seen in pg_hba_file_rules.
func TestFaults(t *testing.T) {
	all := func(int) bool { return true }
	before16 := func(major int) bool { return major < 16 }
	before18 := func(major int) bool { return major < 18 }
	for _, c := range []struct {
		line    string
		refused func(major int) bool
	}{
		{"hosts all all all trust", all},
		{"host,local all all all trust", all},
		{"local", all},
		{"local all", all},
		{"local all all", all},
		{"host all all", all},
		{"host all all 127.0.0.1", all},
		{"host all all 127.0.0.1 trust", all},
		{"host all all 127.0.0.1/33 trust", all},
		{"host all all 127.0.0.1/ trust", all},
		{"host all all 127.0.0.1 ffff:: trust", all},
		{"host all all ::1/129 trust", all},
		{"host all all localhost/32 trust", all},
		{"host all all all/32 trust", all},
		{"host all all a,b trust", all},
		{"host all all all trust,md5", all},
		{"host all all all krb5", all},
		{"host all all all peer", all},
		{"host all all all cert", all},
		{"local all all gss", all},
		{"local all all peer map", all},
		{"local all all trust map=x", all},
		{"host all all all md5 nonsense=1", all},
		{"host all all all md5 clientcert=verify-ca", all},
		{"hostssl all all all md5 clientcert=1", all},
		{"hostssl all all all cert clientcert=verify-ca", all},
		{"host all all all ldap ldapprefix=a ldapbasedn=b", all},
		{"host all all all ldap ldapserver=a", all},
		{"host all all all radius radiusservers=127.0.0.1", all},
		{`host all all all radius "radiusservers=127.0.0.1,127.0.0.2" "radiussecrets=a,b,c"`, all},
		{"host all all all oauth issuer=a scope=b", before18},
		{"host all all all oauth issuer=a scope=b map=c delegate_ident_mapping=1", all},
		{"host all all samehost/8 md5", all},
		{`host all all "samenet" md5`, nil},
		{"host all all all ldap ldapprefix=a ldapport=4294967296", all},
		{"host all all all ldap ldapprefix=a ldapport=x", all},
		{"host all all all oauth issuer=a", all},
		{"host @missing all all trust", all},
		{"include missing.conf", all},
		{"include_if_exists missing.conf", before16},
		{"include_dir missing", all},
		{"include a b", all},
		{"include_dir \" \"", all},
		{"include pg_hba.conf", all},
		{"local @pg_hba.conf all trust", all},
		{"local " + strings.Repeat("x", 10240) + " all trust", before16},
		{"local all all trust", nil},
		{"local all all ident map=x", nil},
		{`"host" all all all "md5"`, nil},
		{"host all all 127.1/8 trust", nil},
		{"host all all 127.0.0.1/+8 trust", nil},
		{"host all all 0x7f.1 255.0.255.0 trust", nil},
		{`host all all "all" trust`, nil}, // a host that is called all
		{"host all all fe80::1%1/64 trust", nil},
		{"hostssl all all all cert map=x clientcert=verify-full clientname=DN", nil},
		{"host all all all radius radiusservers=127.0.0.1 radiussecrets=s radiusports=1812", nil},
		{"host /^(a|b)$ /c all md5", nil},
		{"local all, all peer", all}, // the list goes on after the blank, and a field is missing
		{"local all all peer ,", nil},
		{"local all @", all},
	} {
		for _, major := range majors {
			r := parseText(t, major, c.line+"\n")
			want := c.refused != nil && c.refused(major)
			if got := len(r.faulty()) > 0; got != want {
				t.Errorf("PostgreSQL %d: %.80q: refused %v, but it ought to be %v: %+v", major, c.line, got, want, r.Records)
			}
		}
	}
}

func TestFilesMayBeNestedTenDeep(t *testing.T) {
	for depth, refused := range map[int]bool{10: false, 11: true} {
		var more []string
		for i := 1; i < depth; i++ {
			more = append(more, fmt.Sprintf("/etc/%d", i), fmt.Sprintf("include %d\n", i+1))
		}
		more = append(more, fmt.Sprintf("/etc/%d", depth), "local all all peer\n")
		if r := parseText(t, 16, "include 1\n", more...); len(r.Records) != 1 || len(r.faulty()) > 0 != refused {
			t.Errorf("%d deep: %+v", depth, r.Records)
		}
	}
	// Before 16 there are only lists, and they may be deeper.
	more := []string{"/etc/20", "all\n"}
	for i := 1; i < 20; i++ {
		more = append(more, fmt.Sprintf("/etc/%d", i), fmt.Sprintf("@%d\n", i+1))
	}
	if r := parseText(t, 15, "local @1 all peer", more...); len(r.faulty()) > 0 {
		t.Errorf("%+v", r.Records)
	}
}

func TestADirectoryIncludesNothing(t *testing.T) {
	from := inMemory(map[string]string{mainFile: "local all,@hba.d all peer\ninclude hba.d\n"})
	r, err := parse(mainFile, 16, files{List: from.List, Read: func(path string) ([]byte, error) {
		if path == "/etc/hba.d" {
			return nil, &fs.PathError{Op: "read", Path: path, Err: syscall.EISDIR}
		}
		return from.Read(path)
	}})
	if err != nil || len(r.Records) != 1 || len(r.faulty()) > 0 {
		t.Errorf("%v %+v", err, r)
	}
}

func TestIdentThroughTheSocketIsPeer(t *testing.T) {
	for line, want := range map[string]string{"local all all ident": "peer", "host all all all ident": "ident", "local all all peer": "peer"} {
		if got := parseText(t, 15, line).Records[0].Method; got != want {
			t.Errorf("%s: %s", line, got)
		}
	}
}

func TestWhatDependsOnTheServerIsUncertain(t *testing.T) {
	for line, uncertain := range map[string]bool{
		"host all all all pam":                                          true,
		"host all all all ldap ldapserver=a ldapprefix=b":               true,
		"host all all all gss":                                          true,
		"host /^(?i)a all all md5":                                      true,
		"host all all fe80::1%eth0/64 md5":                              true,
		"host all all fe80::1%eth0 md5":                                 true,
		"host all all all radius radiusservers=a.b radiussecrets=s":     true,
		"host all all all md5":                                          false,
		"host all all all radius radiusservers=1.2.3.4 radiussecrets=s": false,
	} {
		rec := parseText(t, 17, line).Records[0]
		if rec.Fault != "" || rec.Uncertain != "" != uncertain {
			t.Errorf("%s: fault %q, uncertain %q", line, rec.Fault, rec.Uncertain)
		}
	}
}

// Lists and files that include each other must not keep the doctor busy.
func TestFilesThatIncludeEachOtherEnd(t *testing.T) {
	list := strings.Repeat("@list @other\n", 50)
	for _, major := range majors {
		r := parseText(t, major, strings.Repeat("local @list all trust\ninclude pg_hba.conf\n", 20), "/etc/list", list, "/etc/other", list)
		if len(r.faulty()) == 0 {
			t.Errorf("PostgreSQL %d: no fault", major)
		}
	}
}

func TestPasswordsAreNotShown(t *testing.T) {
	for _, line := range []string{
		"host all all all ldap ldapserver=a ldapbasedn=b ldapbindpasswd=hunter2 ldapport=1",
		`host all all all ldap ldapserver=a ldapbasedn=b "ldapbindpasswd=hunter2 hunter2" ldaptls=1`,
		"host all all all ldap ldapserver=a ldapbasedn=b ldapbindpasswd=x hunter2",
		"host all all all ldap ldapserver=a ldapbasedn=b ldapbindpasswd=x,hunter2",
		`host all all all radius radiusservers=127.0.0.1 "radiussecrets=hunter2,hunter2,hunter2"`,
		"host all all all radius radiusservers=127.0.0.1 radiussecrets=hunter2",
		"host all all all md5 ldapbindpasswd=hunter2",
		"host all all all radius radiussecrets=hunter2",
		"host @missing all all ldap ldapbasedn=b ldapbindpasswd=hunter2",
		"hosts all all all ldap ldapbindpasswd=hunter2 # hunter2",
		`host all all all ldap l"dap"bindpasswd=hunter2`,
		"host all all all ldap ldapbindpasswd=" + strings.Repeat("x", 10240) + "hunter2",
	} {
		for _, major := range majors {
			rec := parseText(t, major, line).Records[0]
			if text := fmt.Sprint(rec.Text, rec.Options, rec.Fault, rec.Uncertain); strings.Contains(text, "hunter2") {
				t.Errorf("%.80s: %s", line, text)
			}
			if !strings.HasPrefix(rec.Text, "host") {
				t.Errorf("%.80s is shown as %q", line, rec.Text)
			}
		}
	}
}
