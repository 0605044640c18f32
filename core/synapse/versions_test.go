package synapse

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func TestReleasesAreInOrderAndWhole(t *testing.T) {
	all, err := parseReleases(versionsCSV)
	if err != nil {
		t.Fatal(err)
	}
	version, date := regexp.MustCompile(`^1\.\d+\.\d+$`), regexp.MustCompile(`^20\d\d-\d\d-\d\d$`)
	for i, r := range all {
		if !version.MatchString(r.Version) || !date.MatchString(r.Date) || r.Schema < 55 || r.Compat > r.Schema {
			t.Errorf("odd release %+v", r)
		}
		if !slices.Contains([]string{"", "warn", "mandatory"}, r.LocaleCheck) {
			t.Errorf("%s: locale check %q", r.Version, r.LocaleCheck)
		}
		if i > 0 && (r.Schema < all[i-1].Schema || r.MinPostgresNum() < all[i-1].MinPostgresNum() || r.Compat < all[i-1].Compat) {
			t.Errorf("%s goes back behind %s", r.Version, all[i-1].Version)
		}
	}
	if NewestRelease().Schema != all[len(all)-1].Schema || len(all) < 230 {
		t.Errorf("%d releases, the newest %+v", len(all), NewestRelease())
	}
}

// TestReleasesAreTheCatalogs compares the embedded table with the one it was made from.
func TestReleasesAreTheCatalogs(t *testing.T) {
	data := os.Getenv("SYNAPSE_DOCTOR_DATA")
	if data == "" {
		t.Skip("SYNAPSE_DOCTOR_DATA is not set")
	}
	catalog, err := os.ReadFile(filepath.Join(data, "catalog", "synapse-versions.csv"))
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for line := range strings.Lines(string(catalog)) {
		if fields := strings.Split(strings.TrimSpace(line), ","); strings.HasPrefix(fields[0], "v") {
			row := strings.Join(fields[:7], ",")[1:]
			want = append(want, strings.NewReplacer(",-", ",", ",none", ",").Replace(row))
		}
	}
	got := strings.Split(strings.TrimSpace(versionsCSV), "\n")[1:]
	if !slices.Equal(got, want) {
		t.Errorf("the embedded table differs from the catalog: %d and %d rows", len(got), len(want))
	}
}

func TestMinPostgresNum(t *testing.T) {
	for text, want := range map[string]int{"": 0, "9.6": 90600, "14": 140000} {
		if got := (Release{MinPostgres: text}).MinPostgresNum(); got != want {
			t.Errorf("%q is %d, want %d", text, got, want)
		}
	}
}

func TestReleasesOfASchema(t *testing.T) {
	for _, tt := range []struct {
		schema, compat int
		oldest, newest string
	}{
		{94, 84, "1.151.0", "1.157.1"},
		{88, 84, "1.116.0", "1.123.0"},
		{84, 83, "1.100.0", "1.105.0"},
		{84, 84, "1.105.1", "1.106.0"},
		{73, 72, "1.68.0", "1.69.0"},
		{73, 71, "1.68.0", "1.76.0"}, // no release has this pair: all of the schema
		{59, 0, "1.26.0", "1.36.0"},
		{75, 73, "", ""}, // between 1.82 and 1.83
		{95, 84, "", ""},
	} {
		got := ReleasesOf(tt.schema, tt.compat)
		oldest, newest := "", ""
		if len(got) > 0 {
			oldest, newest = got[0].Version, got[len(got)-1].Version
		}
		if oldest != tt.oldest || newest != tt.newest {
			t.Errorf("schema %d, compat %d: %s to %s, want %s to %s", tt.schema, tt.compat, oldest, newest, tt.oldest, tt.newest)
		}
	}
}

func TestHowFarBackAReleaseStillStarts(t *testing.T) {
	for _, tt := range []struct {
		schema, compat int
		want           string
	}{
		{94, 84, "1.100.0"},
		{69, 69, "1.57.0"},
		{68, 66, "1.49.0"}, // the first with schema 66
		{58, 0, "1.13.0"},  // before 1.37 nothing older than the schema starts
		{60, 59, "1.37.0"}, // 1.26 to 1.36 have schema 59 but do not know compat
		{200, 200, ""},
	} {
		r, _ := OldestAble(tt.schema, tt.compat)
		if r.Version != tt.want {
			t.Errorf("schema %d, compat %d: %s, want %s", tt.schema, tt.compat, r.Version, tt.want)
		}
	}
}
