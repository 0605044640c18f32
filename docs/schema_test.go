package docs_test

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/synapse-doctor/synapse-doctor/core/config"
)

// What the schema lets an editor offer, the program understands, and nothing else.
func TestTheSchemaOfTheConfigurationIsWhatIsUnderstood(t *testing.T) {
	data, err := os.ReadFile("config.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	type object struct {
		Properties map[string]json.RawMessage `json:"properties"`
		Required   []string                   `json:"required"`
	}
	var schema struct {
		object
		Definitions map[string]object `json:"definitions"`
	}
	if err := json.Unmarshal(data, &schema); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		what, form string
		in         object
	}{
		{"the file", "?: 1", schema.object},
		{"a plugin", "plugins:\n  acme:\n    ?: 1", schema.Definitions["plugin"]},
		{"what is ignored", "ignore:\n  - ?: 1", schema.Definitions["ignore"]},
	} {
		_, err := read(t, strings.Replace(c.form, "?", "nonsense", 1))
		if err == nil {
			t.Fatalf("%s: nonsense is understood", c.what)
		}
		_, keys, _ := strings.Cut(err.Error(), "the keys are ")
		if want := slices.Sorted(maps.Keys(c.in.Properties)); keys != strings.Join(want, ", ") {
			t.Errorf("%s: the schema has %q, the program understands %q", c.what, want, keys)
		}
	}
}

func read(t *testing.T, text string) (*config.Config, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return config.Read(path)
}
