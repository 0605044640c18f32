package ident

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/synapse-doctor/synapse-doctor/core/pgtest"
)

// disk reads files as the check does.
var disk = files{
	Read: os.ReadFile,
	List: func(dir string) ([]string, error) {
		entries, err := os.ReadDir(dir)
		var names []string
		for _, e := range entries {
			if info, err := os.Stat(filepath.Join(dir, e.Name())); err == nil && !info.IsDir() {
				names = append(names, e.Name())
			}
		}
		return names, err
	},
}

// plant puts files into the data directory, where the server may read them.
func plantFiles(t *testing.T, dir string, tree map[string]string) {
	t.Helper()
	for name, text := range tree {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func viewOf(ctx context.Context, conn *pgx.Conn, major int) ([]viewRow, error) {
	query := viewQuery
	if major < 16 {
		query = viewQueryBefore16
	}
	rows, err := conn.Query(ctx, query)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[viewRow])
}

func superuserOf(t *testing.T, s *pgtest.Server) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), s.Admin())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) }) // the server is about to stop
	return conn
}

// The view parses the files as they are, so thousands can be tried without a reload.
func TestFilesAreUnderstoodAsTheServerDoes(t *testing.T) {
	count := 1500
	if testing.Short() {
		count = 300
	}
	pgtest.EachMajor(t, nil, func(t *testing.T, s *pgtest.Server) {
		major := s.Major(t)
		conn := superuserOf(t, s)
		main := filepath.Join(s.DataDir, "pg_hba.conf")
		records, refused, uncertain := 0, 0, 0
		try := func(name string, tree map[string]string) {
			plantFiles(t, s.DataDir, tree)
			rows, err := viewOf(t.Context(), conn, major)
			r, parseErr := parse(main, major, disk)
			if parseErr != nil {
				t.Fatal(parseErr)
			}
			if e, ok := errors.AsType[*pgconn.PgError](err); ok && e.Code == "53000" && major < 16 {
				// Lists that name each other make it open too many files.
				if len(r.faulty()) == 0 {
					t.Errorf("%s: the server gave up: %v\n%s", name, err, showTree(tree))
				}
				return
			}
			if err != nil {
				t.Fatalf("%s: %v\n%s", name, err, showTree(tree))
			}
			if slices.ContainsFunc(r.Records, afterTheDeepest) {
				return
			}
			if difference := r.compare(rows); difference != "" {
				t.Errorf("%s: %s\n%s%s", name, difference, showTree(tree), showRows(rows))
			}
			records += len(r.Records)
			for _, rec := range r.Records {
				switch {
				case rec.Fault != "":
					refused++
				case rec.Uncertain != "":
					uncertain++
				}
			}
		}
		for seed := range count {
			if try(fmt.Sprintf("seed %d", seed), newGenerator(uint64(seed)).tree()); t.Failed() {
				return
			}
		}
		t.Logf("%d records, %d of them refused, %d uncertain", records, refused, uncertain)
		if refused < records/5 || refused > records*2/3 || uncertain > records/10 {
			t.Error("the generated files are too much alike")
		}
	})
}

// afterTheDeepest is whether a record would include a file that is nested too deeply, if it exists. The server passes it
// over or refuses it by what an earlier system call failed with (16 to 18: tokenize_include_file looks at errno, which
// open_auth_file has not set).
func afterTheDeepest(r record) bool {
	return strings.Contains(r.Text, "include_if_exists") && strings.Contains(r.Fault, "nested too deeply")
}

func showTree(tree map[string]string) string {
	var text string
	for _, name := range slices.Sorted(maps.Keys(tree)) {
		text += fmt.Sprintf("%s: %q\n", name, tree[name])
	}
	return text
}

func showRows(rows []viewRow) string {
	var text string
	for _, r := range rows {
		text += fmt.Sprintf("%s:%d %s %q %q %s %s %s %q %s\n", r.File, r.Line, deref(r.Type), r.Database, r.User, deref(r.Address), deref(r.Netmask), deref(r.Method), r.Options, deref(r.Error))
	}
	return text
}
