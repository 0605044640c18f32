package pgdb

import (
	"context"
	"strings"
	"testing"

	"github.com/synapse-doctor/synapse-doctor/core/pgtest"
)

// The server is asked, not a table: what it keeps of a password fits that password, and what is computed here lets in.
func TestWhatTheServerKeepsOfAPassword(t *testing.T) {
	db := pgtest.Start(t).Database(t)
	admin := db.AdminConn(t)
	run := func(sql string) {
		t.Helper()
		if _, err := admin.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	run("CREATE ROLE hashed LOGIN")
	t.Cleanup(func() {
		if _, err := admin.Exec(context.Background(), "DROP ROLE hashed"); err != nil {
			t.Error(err)
		}
	})
	stored := func() string {
		return ask[string](t, admin, "SELECT coalesce(rolpassword, '') FROM pg_authid WHERE rolname = 'hashed'")
	}
	if KindOfHash(stored()) != NoHash {
		t.Errorf("a role without a password has %q", stored())
	}
	for _, password := range []string{"secret", "p%4'\"\\ $ä", "ﬁne Ⅸ\u00a0x", "a\u00adb", " ", "ünï", "日本語", strings.Repeat("long", 100)} {
		for encryption, kind := range map[string]HashKind{"md5": MD5Hash, "scram-sha-256": ScramHash} {
			run("SET password_encryption = '" + encryption + "'")
			run("ALTER ROLE hashed PASSWORD '" + strings.ReplaceAll(password, "'", "''") + "'")
			if got := KindOfHash(stored()); got != kind {
				t.Errorf("%q: kind %s, want %s", password, got, kind)
			}
			if fits, err := PasswordFits(password, "hashed", stored()); err != nil || !fits {
				t.Errorf("%q does not fit what the server keeps of it with %s: %v", password, encryption, err)
			}
			if fits, err := PasswordFits(password+"x", "hashed", stored()); err != nil || fits {
				t.Errorf("%q fits too (%v)", password+"x", err)
			}
		}
		verifier, err := ScramVerifier(password, []byte("sixteen bytes ok"))
		if err != nil {
			t.Fatal(err)
		}
		run("ALTER ROLE hashed PASSWORD '" + verifier + "'")
		if stored() != verifier {
			t.Errorf("the server did not take the verifier as it is, but keeps %s", stored())
		}
		if fits, err := PasswordFits(password, "hashed", stored()); err != nil || !fits {
			t.Errorf("%q does not fit its own verifier: %v", password, err)
		}
	}
	verifier, err := ScramVerifier("let me in", []byte("sixteen bytes ok"))
	if err != nil {
		t.Fatal(err)
	}
	run("ALTER ROLE hashed PASSWORD '" + verifier + "'")
	connect(t, login(db, Settings{"user": "hashed", "password": "let me in"}), Options{})
	for _, damaged := range []string{"SCRAM-SHA-256$", "SCRAM-SHA-256$4096:x$y:z", "SCRAM-SHA-256$0:c2FsdA==$a:b", "plain"} {
		if fits, err := PasswordFits("x", "hashed", damaged); err == nil || fits {
			t.Errorf("%q: %v, %v", damaged, fits, err)
		}
	}
}
