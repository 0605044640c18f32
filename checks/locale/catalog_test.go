package locale

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/synapse-doctor/synapse-doctor/core/pgtest"
)

// what a sound database may hold.
const manyIndexes = `
CREATE TABLE rooms (room_id text PRIMARY KEY, alias varchar(20), kind "char", big text, n bigint);
CREATE UNIQUE INDEX rooms_alias ON rooms (alias) WHERE n IS NOT NULL;
CREATE INDEX rooms_lower ON rooms (lower(alias), (n + 1));
CREATE INDEX rooms_pattern ON rooms (alias text_pattern_ops);
CREATE INDEX rooms_hash ON rooms USING hash (alias);
CREATE INDEX rooms_n ON rooms (n);
CREATE INDEX rooms_c ON rooms (alias COLLATE "C");
CREATE INDEX rooms_vector ON rooms USING gin (to_tsvector('english', big));
CREATE TABLE parts (k text, n int, PRIMARY KEY (k, n)) PARTITION BY RANGE (n);
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (10);
CREATE INDEX parts_only ON ONLY parts (k);
INSERT INTO rooms SELECT '!r' || n, 'a' || n, 'x', repeat(md5(n::text), 200), n FROM generate_series(1, 100) n;`

// filled is a database with many kinds of indexes.
func filled(t *testing.T, s *pgtest.Server, opts ...pgtest.Option) *pgtest.DB {
	t.Helper()
	db := s.Database(t, opts...)
	db.Exec(t, manyIndexes)
	return db
}

func TestOnlyWhatDependsOnALibraryIsFound(t *testing.T) {
	pgtest.EachMajor(t, english, func(t *testing.T, s *pgtest.Server) {
		major := s.Major(t)
		t.Run("a database in C is sound", func(t *testing.T) {
			db := filled(t, s)
			if major >= 15 {
				db.Exec(t, `CREATE UNIQUE INDEX rooms_big ON rooms (n, big) NULLS NOT DISTINCT WHERE n < 0`)
			}
			conn := db.Conn(t)
			if _, err := conn.Exec(t.Context(), `CREATE TEMP TABLE passing (v text COLLATE "en-x-icu" UNIQUE)`); err != nil {
				t.Fatal(err)
			}
			examined(t, targetOf(t, db))
		})
		t.Run("a database in en_US", func(t *testing.T) {
			db := filled(t, s, pgtest.WithCreate(inEnUS))
			f := examined(t, targetOf(t, db), "locale/not-c error database "+db.Name)[0]
			if !f.Fixable || f.Observed != "COLLATE en_US.UTF-8, CTYPE en_US.UTF-8, provider libc" {
				t.Errorf("%+v", f)
			}
			// rooms_pkey, rooms_alias, rooms_lower, parts_1_pkey
			if !strings.HasPrefix(f.Evidence["text indexes"], "4, of which 3 unique, ") {
				t.Errorf("evidence %q", f.Evidence)
			}
			if major == 14 != strings.HasPrefix(f.Evidence["recorded collation version"], "none") {
				t.Errorf("recorded version %q", f.Evidence["recorded collation version"])
			}
			if major >= 15 != strings.Contains(f.Remedy, "--locale-provider=libc") {
				t.Errorf("remedy %s", f.Remedy)
			}
		})
		t.Run("names that are not exactly C", func(t *testing.T) {
			db := filled(t, s, pgtest.WithCreate("LC_COLLATE 'C' LC_CTYPE 'C.UTF-8'"))
			f := examined(t, targetOf(t, db), "locale/not-c error database "+db.Name)[0]
			if !strings.HasPrefix(f.Evidence["text indexes"], "4; none depends on a library") {
				t.Errorf("evidence %q", f.Evidence)
			}
		})
		t.Run("collations of their own", func(t *testing.T) { findsOwnCollations(t, s) })
		if major < 15 {
			return // no provider but libc, and no version on record
		}
		t.Run("C by name, compared by ICU", func(t *testing.T) {
			db := filled(t, s, pgtest.WithCreate("LC_COLLATE 'C' LC_CTYPE 'C' LOCALE_PROVIDER icu ICU_LOCALE 'en-US'"))
			f := examined(t, targetOf(t, db), "locale/provider-not-libc-c warning database "+db.Name)[0]
			if !f.Fixable || f.Observed != "COLLATE C, CTYPE C, provider icu with the locale en-US" || !strings.HasPrefix(f.Evidence["text indexes"], "4, of which 3") {
				t.Errorf("%+v", f)
			}
			db.AdminExec(t, `UPDATE pg_database SET datcollversion = '1' WHERE datname = current_database()`)
			examined(t, targetOf(t, db), "locale/provider-not-libc-c warning database "+db.Name, "locale/collation-version-changed warning database "+db.Name)
		})
		for _, locale := range []string{"C", "C.UTF-8", "PG_UNICODE_FAST"} {
			if major < 17 || major < 18 && locale == "PG_UNICODE_FAST" {
				continue
			}
			t.Run("C by name, compared by the builtin "+locale, func(t *testing.T) {
				db := filled(t, s, pgtest.WithCreate("LC_COLLATE 'C' LC_CTYPE 'C' LOCALE_PROVIDER builtin BUILTIN_LOCALE '"+locale+"'"))
				if f := examined(t, targetOf(t, db), "locale/provider-not-libc-c info database "+db.Name)[0]; f.Fixable {
					t.Errorf("%+v", f)
				}
			})
		}
		t.Run("a catalog edited by hand", func(t *testing.T) {
			db := filled(t, s, pgtest.WithCreate(inEnUS))
			if err := db.Corrupt(t.Context()); err != nil {
				t.Fatal(err)
			}
			f := examined(t, targetOf(t, db), "locale/catalog-edited error database "+db.Name)[0]
			if !f.Fixable || !strings.HasPrefix(f.Evidence["text indexes"], "4, of which 3") {
				t.Errorf("%+v", f)
			}
			db.AdminExec(t, `UPDATE pg_database SET datcollate = 'C.UTF-8', datctype = 'C.UTF-8' WHERE datname = current_database()`)
			examined(t, targetOf(t, db), "locale/not-c error database "+db.Name, "locale/catalog-edited error database "+db.Name)
		})
		t.Run("a library that has changed", func(t *testing.T) {
			db := filled(t, s, pgtest.WithCreate(inEnUS))
			if err := db.Drift(t.Context()); err != nil {
				t.Fatal(err)
			}
			f := examined(t, targetOf(t, db), "locale/not-c error database "+db.Name, "locale/collation-version-changed warning database "+db.Name)[1]
			if !f.Fixable || !strings.HasPrefix(f.Observed, "collation version: recorded 2.28, now 2.") {
				t.Errorf("%+v", f)
			}
			if !strings.Contains(f.Remedy, "\n    REINDEX INDEX CONCURRENTLY \"public\".\"rooms_pkey\";\n") {
				t.Errorf("remedy %s", f.Remedy)
			}
		})
		t.Run("the databases beside it", func(t *testing.T) {
			db := s.Database(t)
			db.AdminExec(t, `UPDATE pg_database SET datcollversion = '2.28' WHERE datname IN ('template1', 'postgres')`)
			defer db.AdminExec(t, `ALTER DATABASE template1 REFRESH COLLATION VERSION; ALTER DATABASE postgres REFRESH COLLATION VERSION`)
			for _, f := range examined(t, targetOf(t, db), "locale/collation-version-changed warning database template1", "locale/collation-version-changed warning database postgres") {
				if f.Fixable || !strings.Contains(f.Remedy, "\n    REINDEX DATABASE ") {
					t.Errorf("%+v", f)
				}
			}
		})
	})
}

// A server that went from glibc to musl, or the other way, has recorded versions that the library can't confirm. That can't
// be had with the C library of one machine.
func TestWhenAVersionIsAnotherOne(t *testing.T) {
	v := func(s string) *string { return &s }
	for name, c := range map[string]struct {
		row             dbRow
		edited, changed bool
	}{
		"C":                          {dbRow{Provider: "c", Collate: "C"}, false, false},
		"unknown, as in template0":   {dbRow{Provider: "c", Collate: "en_US.UTF-8", Actual: v("2.36")}, false, false},
		"the same":                   {dbRow{Provider: "c", Collate: "en_US.UTF-8", Recorded: v("2.36"), Actual: v("2.36")}, false, false},
		"another":                    {dbRow{Provider: "c", Collate: "en_US.UTF-8", Recorded: v("2.28"), Actual: v("2.36")}, false, true},
		"glibc to musl":              {dbRow{Provider: "c", Collate: "en_US.UTF-8", Recorded: v("2.36")}, false, true},
		"musl":                       {dbRow{Provider: "c", Collate: "en_US.UTF-8"}, false, false},
		"C with a version":           {dbRow{Provider: "c", Collate: "C", Recorded: v("2.36")}, true, false},
		"C.UTF-8 with a version":     {dbRow{Provider: "c", Collate: "C.UTF-8", Recorded: v("2.36")}, true, false},
		"ICU named C, as it is made": {dbRow{Provider: "i", Collate: "C", Locale: "en-US", Recorded: v("153.80"), Actual: v("153.80")}, false, false},
		"ICU named C, changed":       {dbRow{Provider: "i", Collate: "C", Locale: "en-US", Recorded: v("153.14"), Actual: v("153.80")}, false, true},
	} {
		if c.row.edited() != c.edited || c.row.changed() != c.changed {
			t.Errorf("%s: edited %v, changed %v", name, c.row.edited(), c.row.changed())
		}
	}
}

// Real tables of Synapse: how many of their indexes depend on a library.
func TestTheIndexesOfARealHomeserver(t *testing.T) {
	dump := filepath.Join(pgtest.Data(t), "synapse_ported.dump")
	s := pgtest.StartWith(t, english(0))
	f := examined(t, targetOf(t, s.Database(t, pgtest.WithCreate(inEnUS), pgtest.WithDump(dump))), "locale/not-c error database synapse_1")[0]
	if want := "255, of which 148 unique, "; !strings.HasPrefix(f.Evidence["text indexes"], want) {
		t.Errorf("text indexes %q, want %q", f.Evidence["text indexes"], want)
	}
	if !strings.HasPrefix(f.Evidence["largest indexes"], "event_id_user_id_profile_tag_uniqueness (OID ") {
		t.Errorf("largest %q", f.Evidence["largest indexes"])
	}
	t.Logf("%s\n%s\n%s\n%s", f.Summary, f.Remedy, f.Evidence["time to rebuild them"], f.Evidence["disk to rebuild them"])
	examined(t, targetOf(t, s.Database(t, pgtest.WithDump(dump))))
}
