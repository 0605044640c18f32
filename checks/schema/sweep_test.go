package schema

import (
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/synapse-doctor/synapse-doctor/core/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// sweep breaks real schemas in one transaction that is always rolled back.
type sweep struct {
	t     *testing.T
	tx    pgx.Tx
	known []*Catalog
	want  *Catalog
}

// freshSchema is the one database of all sweeps: each of them leaves it as it was.
var freshSchema struct {
	once sync.Once
	db   *pgtest.DB
	err  error
}

// knownUntil are the catalogs up to one, so that a later release changes nothing in a test.
func knownUntil(t *testing.T, release string) []*Catalog {
	t.Helper()
	known, err := Catalogs()
	i := slices.IndexFunc(known, func(c *Catalog) bool { return c.Synapse == release })
	if err != nil || i < 0 {
		t.Fatalf("there is no catalog of %s: %v", release, err)
	}
	return known[:i+1]
}

func begin(t *testing.T) *sweep {
	dump, server := filepath.Join(pgtest.Data(t), "synapse_empty.dump"), pgtest.Start(t)
	freshSchema.once.Do(func() {
		freshSchema.db, freshSchema.err = server.CreateDatabase(context.WithoutCancel(t.Context()), pgtest.WithDump(dump))
	})
	if freshSchema.err != nil {
		t.Fatal(freshSchema.err)
	}
	db := freshSchema.db
	known := knownUntil(t, "1.160") // which made the dump
	tx, err := db.Conn(t).Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tx.Rollback(context.WithoutCancel(t.Context())) })
	s := &sweep{t: t, tx: tx, known: known, want: known[len(known)-1]}
	s.exec(`SET LOCAL client_min_messages = error`)
	return s
}

func (s *sweep) exec(sql string, args ...any) {
	s.t.Helper()
	if _, err := s.tx.Exec(s.t.Context(), sql, args...); err != nil {
		s.t.Fatalf("%s: %v", sql, err)
	}
}

func (s *sweep) list(sql string) []string {
	s.t.Helper()
	rows, err := s.tx.Query(s.t.Context(), sql)
	if err != nil {
		s.t.Fatal(err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		s.t.Fatal(err)
	}
	return list
}

// look reads the schema as it is in the transaction, as the check does.
func (s *sweep) look() (*live, wanted, error) {
	return lookIn(s.t.Context(), s.tx, s.known)
}

// in puts the schema back after do.
func (s *sweep) in(t *testing.T, do func()) {
	outer := s.t
	s.t = t
	s.exec(`SAVEPOINT sound`)
	defer func() {
		s.exec(`ROLLBACK TO sound`)
		s.t = outer
	}()
	do()
}

// finds compares what is found now with what is wanted, as code and object, and puts the schema back.
func (s *sweep) finds(what string, want []string) {
	s.t.Helper()
	l, w, err := s.look()
	if err != nil {
		s.t.Fatal(err)
	}
	var got []string
	for _, found := range compare(l, w) {
		f := found.finding()
		got = append(got, strings.TrimPrefix(f.Code, "schema/")+" "+f.Object.Name)
		if f.Summary == "" || f.Observed == "" || f.Expected == "" || f.Remedy == "" || strings.Contains(f.Summary+f.Remedy, "%!") {
			s.t.Errorf("%s: %+v", what, f)
		}
	}
	for _, f := range foreign(l, w) {
		got = append(got, strings.TrimPrefix(f.Code, "schema/")+" "+f.Object.Kind+": "+f.Evidence["names"])
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		s.t.Errorf("%s:\nfound too much: %q\nnot found: %q", what, minus(got, want), minus(want, got))
	}
}

func minus(a, b []string) []string {
	return slices.DeleteFunc(slices.Clone(a), func(x string) bool { return slices.Contains(b, x) })
}

// round is one way to break a sound schema; what it returns is wanted.
func (s *sweep) round(what string, broken func() []string) {
	s.t.Helper()
	s.in(s.t, func() { s.finds(what, broken()) })
}

func (s *sweep) tables() []string { return slices.Sorted(maps.Keys(s.want.Tables)) }

const foreignKeys = `SELECT conname || ' on ' || conrelid::regclass FROM pg_constraint WHERE contype = 'f'`

// Each round drops one index of every table.
func TestEveryIndexThatIsDroppedIsNamed(t *testing.T) {
	s := begin(t)
	s.finds("sound", nil)
	dropped := 0
	for n := 0; ; n++ {
		more := false
		s.round(fmt.Sprintf("index %d of each table", n), func() (want []string) {
			before := s.list(foreignKeys)
			for _, name := range s.tables() {
				table := s.want.Tables[name]
				if n >= len(table.Indexes) {
					continue
				}
				more = true
				dropped++
				i := table.Indexes[n]
				if i.Constraint == "" {
					s.exec("DROP INDEX " + ident(i.Name) + " CASCADE")
				} else {
					s.exec("ALTER TABLE " + ident(name) + " DROP CONSTRAINT " + ident(i.Name) + " CASCADE")
				}
				twin := slices.ContainsFunc(table.Indexes, func(o Index) bool {
					return o.Name != i.Name && o.Def == i.Def && (o.Unique || !i.Unique)
				})
				switch {
				case twin: // nothing is lost
				case i.Constraint == "":
					want = append(want, "missing-index "+i.Name)
				default:
					want = append(want, "missing-constraint "+i.Name+" on "+name)
				}
			}
			for _, key := range minus(before, s.list(foreignKeys)) {
				want = append(want, "missing-constraint "+key)
			}
			return want
		})
		if !more {
			break
		}
	}
	if dropped < 330 {
		t.Errorf("only %d indexes were dropped", dropped)
	}
}

func TestEveryConstraintThatIsDroppedIsNamed(t *testing.T) {
	s := begin(t)
	s.round("all at once", func() (want []string) {
		for _, name := range s.tables() {
			for _, k := range s.want.Tables[name].Constraints {
				s.exec("ALTER TABLE " + ident(name) + " DROP CONSTRAINT " + ident(k.Name))
				want = append(want, "missing-constraint "+k.Name+" on "+name)
			}
		}
		return want
	})
	s.round("added again, for new rows only", func() (want []string) {
		for _, name := range s.tables() {
			for _, k := range s.want.Tables[name].Constraints {
				s.exec("ALTER TABLE " + ident(name) + " DROP CONSTRAINT " + ident(k.Name))
				s.exec("ALTER TABLE " + ident(name) + " ADD CONSTRAINT other" + fmt.Sprint(len(want)) + " " + k.Def + " NOT VALID")
				if !k.NotValid {
					want = append(want, fmt.Sprintf("constraint-not-valid other%d on %s", len(want), name))
				}
			}
		}
		return want
	})
}

func TestEveryTriggerFunctionAndOptionThatIsLostIsNamed(t *testing.T) {
	s := begin(t)
	s.round("triggers", func() (want []string) {
		for _, name := range s.tables() {
			for _, g := range s.want.Tables[name].Triggers {
				s.exec("DROP TRIGGER " + ident(g.Name) + " ON " + ident(name))
				want = append(want, "missing-trigger "+g.Name+" on "+name)
			}
		}
		return want
	})
	for _, how := range []string{"DISABLE", "ENABLE REPLICA"} {
		s.round(how, func() (want []string) {
			for _, name := range s.tables() {
				for _, g := range s.want.Tables[name].Triggers {
					s.exec("ALTER TABLE " + ident(name) + " " + how + " TRIGGER " + ident(g.Name))
					want = append(want, "trigger-disabled "+g.Name+" on "+name)
				}
			}
			return want
		})
	}
	s.round("functions", func() (want []string) {
		for _, name := range slices.Sorted(maps.Keys(s.want.Functions)) {
			s.exec("DROP FUNCTION " + name + " CASCADE")
			want = append(want, "trigger-function "+name)
		}
		return want
	})
	s.round("other functions", func() (want []string) {
		for _, name := range slices.Sorted(maps.Keys(s.want.Functions)) {
			s.exec("CREATE OR REPLACE FUNCTION " + name + "() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'")
			want = append(want, "trigger-function "+name)
		}
		return want
	})
	s.round("options", func() (want []string) {
		for _, name := range s.tables() {
			for _, c := range s.want.Tables[name].Columns {
				if c.NDistinct != "" {
					s.exec("ALTER TABLE " + ident(name) + " ALTER COLUMN " + ident(c.Name) + " RESET (n_distinct)")
					want = append(want, "option-lost "+name+"."+c.Name)
				}
			}
		}
		if len(want) != 4 {
			t.Errorf("%q", want)
		}
		return want
	})
}

// Each round drops one column of every table, and with it the indexes, constraints and foreign keys of others that need it.
func TestEveryColumnThatIsDroppedIsNamed(t *testing.T) {
	s := begin(t)
	for n := 0; n < 40; n++ {
		s.round(fmt.Sprintf("column %d of each table", n), func() (want []string) {
			for _, name := range s.tables() {
				columns := s.want.Tables[name].Columns
				if n < len(columns) && !slices.Contains(bookkeeping, name) {
					s.exec("ALTER TABLE " + ident(name) + " DROP COLUMN " + ident(columns[n].Name) + " CASCADE")
					want = append(want, "missing-column "+name+"."+columns[n].Name)
				}
			}
			return want
		})
	}
}

func TestEveryPropertyOfAColumnThatIsLostIsNamed(t *testing.T) {
	s := begin(t)
	each := func(do func(table string, c Column) string) func() []string {
		return func() (want []string) {
			for _, name := range s.tables() {
				for _, c := range s.want.Tables[name].Columns {
					if w := do(name, c); w != "" {
						want = append(want, w+" "+name+"."+c.Name)
					}
				}
			}
			if len(want) < 4 {
				t.Errorf("%q", want)
			}
			return want
		}
	}
	alter := func(table string, c Column, how string) {
		s.exec("ALTER TABLE " + ident(table) + " ALTER COLUMN " + ident(c.Name) + " " + how)
	}
	s.round("NOT NULL", each(func(table string, c Column) string {
		inKey := slices.ContainsFunc(s.want.Tables[table].Indexes, func(i Index) bool { return i.Constraint == "p" && mentions(i.Def, c.Name) })
		if !c.NotNull || inKey || c.Identity != "" {
			return ""
		}
		alter(table, c, "DROP NOT NULL")
		return "nullability"
	}))
	s.round("no NOT NULL", each(func(table string, c Column) string {
		if c.NotNull || c.Default != "" || slices.Contains(bookkeeping, table) {
			return ""
		}
		s.exec("DELETE FROM " + ident(table))
		alter(table, c, "SET NOT NULL")
		return "nullability"
	}))
	s.round("default", each(func(table string, c Column) string {
		if c.Default == "" {
			return ""
		}
		alter(table, c, "DROP DEFAULT")
		return "default-lost"
	}))
	s.round("identity", each(func(table string, c Column) string {
		if c.Identity == "" {
			return ""
		}
		alter(table, c, "DROP IDENTITY")
		return "identity-lost"
	}))
	s.round("type", each(func(table string, c Column) string {
		if c.Type != "bigint" || c.Identity != "" || c.Default != "" {
			return ""
		}
		for _, w := range s.want.Tables[table].Indexes {
			if strings.Contains(w.Def, "WHERE") || w.Constraint != "" {
				return ""
			}
		}
		if slices.ContainsFunc(s.list(`SELECT pg_get_constraintdef(oid) || ' ' || conrelid::regclass FROM pg_constraint WHERE contype = 'f'`), func(def string) bool { return mentions(def, table) }) {
			return ""
		}
		alter(table, c, "TYPE integer")
		return "column-type"
	}))
}

func TestEveryTableAndSequenceThatIsDroppedIsNamed(t *testing.T) {
	s := begin(t)
	tables := slices.DeleteFunc(s.tables(), func(name string) bool { // without these it can't be told what to compare with
		return slices.Contains([]string{"schema_version", "applied_schema_deltas", "background_updates"}, name)
	})
	const rounds = 12 // names beside each other, and so tables that refer to each other, are in different ones
	for n := range rounds {
		s.round(fmt.Sprintf("tables, round %d", n), func() (want []string) {
			for i := n; i < len(tables); i += rounds {
				s.exec("DROP TABLE " + ident(tables[i]) + " CASCADE")
				want = append(want, "missing-table "+tables[i])
			}
			return want
		})
	}
	s.round("sequences", func() (want []string) {
		for _, name := range slices.Sorted(maps.Keys(s.want.Sequences)) {
			owner := s.want.Sequences[name].OwnedBy
			if table, column, _ := strings.Cut(owner, "."); owner == "" || s.want.Tables[table].column(column).Identity == "" {
				s.exec("DROP SEQUENCE " + ident(name) + " CASCADE")
				want = append(want, "missing-sequence "+name)
			}
		}
		return want
	})
}
