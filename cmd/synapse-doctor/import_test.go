package main

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"path"
	"strings"
	"testing"
)

const module = "github.com/synapse-doctor/synapse-doctor/"

// mayImport is the table of ARCHITECTURE.md: who may import whom inside the repository, tests aside. A trailing * stands
// for every package of that folder.
var mayImport = map[string][]string{
	"core/synapse":          {},
	"core/pgdb":             {},
	"core/sqlitedb":         {},
	"core/pghash":           {},
	"core/owned":            {},
	"core/config":           {"core/owned"},
	"core/pgtest":           {},
	"proto/*":               {},
	"docs":                  {},
	"core/doctor":           {"core/synapse", "core/pgdb", "core/sqlitedb"},
	"core/journal":          {"core/doctor"},
	"core/report":           {"core/doctor"},
	"core/engine":           {"core/doctor", "core/synapse", "core/journal", "core/pgdb"},
	"core/rebuild":          {"core/doctor", "core/synapse", "core/pgdb"},
	"core/sequence":         {"core/doctor", "core/pgdb"},
	"core/port":             {"core/doctor", "core/synapse", "core/pgdb", "core/sqlitedb", "core/pghash", "core/sequence"},
	"checks/*":              {"core/doctor", "core/synapse", "core/pgdb", "core/sqlitedb", "core/rebuild", "core/port", "core/sequence"},
	"plugins/internal/wire": {"core/doctor", "proto/*"},
	"plugins/sdk":           {"core/doctor", "plugins/internal/wire"},
	"plugins/sdk/sdktest":   {"core/doctor", "plugins/internal/wire", "core/engine", "core/journal", "core/pgtest"},
	"plugins/host":          {"core/doctor", "core/owned", "plugins/internal/wire"},
	"plugins/conformance":   {"core/doctor", "core/pgdb", "core/pgtest", "plugins/host", "plugins/internal/wire"},
	"plugins/builtin":       {"checks/*", "core/doctor"},
	"cmd/*":                 {"core/*", "checks/*", "plugins/builtin", "plugins/host", "plugins/conformance", "plugins/sdk", "docs", "proto/*"},
}

func TestPackagesImportOnlyWhatTheArchitectureAllows(t *testing.T) {
	list := exec.Command("go", "list", "-json=ImportPath,Imports", module+"...")
	out, err := list.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	seen := 0
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p struct {
			ImportPath string
			Imports    []string
		}
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		name := strings.TrimPrefix(p.ImportPath, module)
		allowed, known := rules(name)
		if !known {
			t.Errorf("package %s has no row in the table of who may import whom", name)
			continue
		}
		seen++
		for _, imported := range p.Imports {
			if other, ours := strings.CutPrefix(imported, module); ours && !matches(allowed, other) {
				t.Errorf("%s imports %s, which the table forbids", name, other)
			}
		}
	}
	if seen < 15 {
		t.Errorf("only %d packages were looked at", seen)
	}
}

func rules(name string) ([]string, bool) {
	for pattern, allowed := range mayImport {
		if pattern == name {
			return allowed, true
		}
	}
	for pattern, allowed := range mayImport {
		if matches([]string{pattern}, name) {
			return allowed, true
		}
	}
	return nil, false
}

func matches(patterns []string, name string) bool {
	for _, p := range patterns {
		if folder, all := strings.CutSuffix(p, "/*"); p == name || all && strings.HasPrefix(name, folder+"/") && !strings.Contains(name, "internal") && path.Dir(name) != "" {
			return true
		}
	}
	return false
}
