package doctor

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

func TestDiffShowsAnInsertionWithItsSurroundings(t *testing.T) {
	before := "server_name: example.org\ndatabase:\n  name: psycopg2\n  args:\n    user: synapse\n    password: hunter2\n    host: db\nlog_config: x\n"
	after := strings.Replace(before, "    host: db\n", "    host: db\n    keepalives_idle: 10\n", 1)
	want := `--- /etc/homeserver.yaml
+++ /etc/homeserver.yaml
@@ -5,4 +5,5 @@
     user: synapse
     password: ********
     host: db
+    keepalives_idle: 10
 log_config: x
`
	if got := Diff("/etc/homeserver.yaml", []byte(before), []byte(after), nil); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
	if got := Diff("x", []byte(before), []byte(before), nil); got != "" {
		t.Errorf("no change has the diff %q", got)
	}
}

func TestDiffOfFilesWithoutALastNewline(t *testing.T) {
	got := Diff("x", []byte("a\nb"), []byte("a\nb\nc\n"), nil)
	want := "--- x\n+++ x\n@@ -1,2 +1,3 @@\n a\n-b\n\\ No newline at end of file\n+b\n+c\n"
	if got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
	if got := Diff("x", nil, []byte("a\n"), nil); got != "--- x\n+++ x\n@@ -0,0 +1 @@\n+a\n" {
		t.Errorf("a new file: %q", got)
	}
}

func TestFarChangesAreHunksOfTheirOwn(t *testing.T) {
	var lines []string
	for i := range 40 {
		lines = append(lines, fmt.Sprintf("line %d\n", i))
	}
	before := strings.Join(lines, "")
	lines[5], lines[13], lines[30] = "five\n", "thirteen\n", "thirty\n"
	got := Diff("x", []byte(before), []byte(strings.Join(lines, "")), nil)
	if n := strings.Count(got, "\n@@ "); n != 3 {
		t.Errorf("%d hunks, want 3:\n%s", n, got)
	}
	lines[9] = "nine\n"
	got = Diff("x", []byte(before), []byte(strings.Join(lines, "")), nil)
	if n := strings.Count(got, "\n@@ "); n != 2 {
		t.Errorf("%d hunks, want 2:\n%s", n, got)
	}
}

// Every diff must turn one file into the other, and be as short as the longest common subsequence allows.
func TestEditsTurnOneFileIntoTheOther(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 3000 {
		random := func() []string {
			s := make([]string, r.IntN(12))
			for i := range s {
				s[i] = string(rune('a' + r.IntN(3)))
			}
			return s
		}
		a, b := random(), random()
		var made []string
		at, changed := 0, 0
		for _, e := range compare(a, b) {
			made = append(append(made, a[at:e.a1]...), b[e.b1:e.b2]...)
			at = e.a2
			changed += e.a2 - e.a1 + e.b2 - e.b1
		}
		made = append(made, a[at:]...)
		if !slices.Equal(made, b) {
			t.Fatalf("%q to %q gave %q", a, b, made)
		}
		if want := len(a) + len(b) - 2*common(a, b); changed != want {
			t.Fatalf("%q to %q: %d changed lines, want %d", a, b, changed, want)
		}
	}
}

func common(a, b []string) int {
	if len(a) == 0 || len(b) == 0 {
		return 0
	}
	row := make([]int, len(b)+1)
	for i := range a {
		diagonal := 0
		for j := range b {
			above := row[j+1]
			if a[i] == b[j] {
				row[j+1] = diagonal + 1
			} else {
				row[j+1] = max(row[j+1], row[j])
			}
			diagonal = above
		}
	}
	return row[len(b)]
}

func TestFilesThatShareNothingAreReplacedWhole(t *testing.T) {
	var a, b []string
	for i := range 3 * mostDifferences {
		a, b = append(a, fmt.Sprint("a", i)), append(b, fmt.Sprint("b", i))
	}
	if got := compare(a, b); len(got) != 1 || got[0] != (edit{0, len(a), 0, len(b)}) {
		t.Errorf("got %v", got)
	}
}

// Whatever the way it is written, hunter2 must not be seen, and keep must be.
func TestADiffShowsNoSecretOfTheConfiguration(t *testing.T) {
	for _, doc := range []string{
		"password: hunter2\nkeep: 1\n",
		"a:\n  password: 'hun''hunter2'\n  keep: 1\n",
		"a:\n  password: \"x\\\"hunter2\"\n  keep: 1\n",
		"a:\n  \"password\" : hunter2\n  keep: 1\n",
		"a: {password: hunter2, keep: 1}\n",
		"a: {\"password\":\"hunter2,hunter2}\", keep: 1}\n",
		"a: {\n  password: hunter2,\n  keep: 1}\n",
		"a: {password: !!str \"x,hunter2\", keep: 1}\n",
		"a: [{password: hunter2}, {keep: 1}]\n",
		"password: x,hunter2}\nkeep: 1\n",
		"template: foo{bar\npassword: x,hunter2\nkeep: 1\n",
		"password:\n  hunter2\nkeep: 1\n",
		"password: one\n  hunter2\nkeep: 1\n",
		"password: |\n  one\n\n  hunter2\nkeep: 1\n",
		"password: >-\n  hunter2\nkeep: 1\n",
		"password: &p\n  hunter2\nkeep: 1\n",
		"password: &p hunter2\nkeep: 1\n",
		"password: \"one\n  hunter2\n  two\"\nkeep: 1\n",
		"password: 'one\n  hunter2'\nkeep: 1\n",
		"# password: hunter2\nkeep: 1\n",
		"#password: hunter2\nkeep: 1\n",
		"registration_shared_secret: hunter2\nkeep: 1\n",
		"macaroon_secret_key: hunter2\nkeep: 1\n",
		"old_keys:\n- hunter2\n- hunter2\nkeep: 1\n",
		"turn_shared_secret: hunter2 # hunter2\nkeep: 1\n",
		"access_token: hunter2\nkeep: 1\n",
		"- password: hunter2\n  keep: 1\n",
		"- password:\n    hunter2\n  keep: 1\n",
		"dsn: postgres://u:hunter2@h/db\nkeep: 1\n",
		"url: postgres://u:hunter2@h/db?keep\n",
		"url: \"http://u:p@hunter2@h/keep\"\n",
		"args: host=keep password=hunter2\n",
		"args: host=keep password='a \\' hunter2' x=1\n",
		"smtp_pass: hunter2\r\nkeep: 1\r\n",
		"password_config:\n  pepper: hunter2\n  keep: 1\n",
		"signing_key_path: keep\nform_secret: hunter2\n",
		"password_file: keep\nform_secret: hunter2\n",
		"trusted_key_servers: keep\nform_secret: hunter2\n",
	} {
		got := strings.Join(maskYAML(fileLines([]byte(doc))), "")
		if strings.Contains(got, "hunter2") || !strings.Contains(got, "keep") {
			t.Errorf("%q\nbecame\n%q", doc, got)
		}
		if strings.Count(got, "\n") != strings.Count(doc, "\n") {
			t.Errorf("%q changed its number of lines: %q", doc, got)
		}
	}
}

func TestKnownSecretsAreMaskedInADiffToo(t *testing.T) {
	r := NewRedactor([]string{"hunter2"}, nil)
	got := Diff("x", []byte("harmless: hunter2\n"), []byte("harmless: hunter2\nb: \x1b[31m\n"), r.String)
	if strings.Contains(got, "hunter2") || strings.Contains(got, "\x1b") {
		t.Errorf("got:\n%s", got)
	}
}

func FuzzMaskYAML(f *testing.F) {
	f.Add("a: {password: x}\n")
	f.Add("password: \"x\n y\"\n")
	f.Fuzz(func(t *testing.T, doc string) {
		lines := fileLines([]byte(doc))
		if got := maskYAML(lines); len(got) != len(lines) {
			t.Errorf("%d lines became %d", len(lines), len(got))
		}
	})
}
