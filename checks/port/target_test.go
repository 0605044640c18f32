package port

import (
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/synapse-doctor/synapse-doctor/core/pgtest"
)

// The catalog tells the locale in another way since 15 and again since 17.
func TestTheLocaleIsReadAsEachMajorTellsIt(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes a while")
	}
	pgtest.EachOf(t, []int{14, 16, 18}, nil, func(t *testing.T, s *pgtest.Server) {
		read := func(create string) *target {
			db := postgres(s.Database(t, pgtest.WithCreate(create)))
			defer db.Close()
			var got *target
			err := db.Read(t.Context(), func(tx pgx.Tx) (err error) {
				got, err = readTarget(t.Context(), tx, "test.example")
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			return got
		}
		if got := read("ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C'"); !got.inUTF8AndC() || got.maxWAL < 32<<20 || got.bytes == 0 {
			t.Errorf("the usual database: %+v", got)
		}
		for major, create := range map[int]string{
			15: "ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C' LOCALE_PROVIDER icu ICU_LOCALE 'en'",
			17: "ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C' LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C.UTF-8'",
		} {
			if s.Major(t) < major {
				continue
			}
			if got := read(create); got.inUTF8AndC() {
				t.Errorf("%s passes for C: %s", create, got.localeText())
			}
		}
		if s.Major(t) >= 17 && !read("ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C' LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C'").inUTF8AndC() {
			t.Error("the builtin C does not pass")
		}
	})
}
