package locale

import (
	"errors"
	"strings"
	"testing"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/pgtest"
)

func TestRowsThatNobodyMayChooseFromStopThePlanBeforeAnythingIsChanged(t *testing.T) {
	s := pgtest.StartWith(t, english(0))
	for name, c := range map[string]struct {
		tables, twice string
		want          []string
	}{
		"users with other passwords": {
			`CREATE TABLE users (name text UNIQUE, password_hash text); INSERT INTO users VALUES ('@anna:test.example', 'hash-one'), ('@b:test.example', 'x')`,
			`INSERT INTO users VALUES ('@anna:test.example', 'hash-two')`,
			[]string{`"public"."users"`, "the same name", "'(0,1)', '(0,3)'", "SELECT ctid, *"},
		},
		"a token of two users": {
			`CREATE TABLE access_tokens (id bigint, user_id text, token text UNIQUE); INSERT INTO access_tokens VALUES (1, '@anna:test.example', 'syt_secret')`,
			`INSERT INTO access_tokens VALUES (2, '@b:test.example', 'syt_secret')`,
			[]string{`"public"."access_tokens"`, "the same token", "'(0,1)', '(0,2)'"},
		},
		"a table that is not Synapse's": {
			`CREATE TABLE puppets (mxid text UNIQUE, name text); INSERT INTO puppets VALUES ('anna', 'one')`,
			`INSERT INTO puppets VALUES ('anna', 'two')`,
			[]string{`"public"."puppets"`},
		},
		"receipts of which neither is newer": {
			`CREATE TABLE receipts_linearized (stream_id bigint, room_id text, receipt_type text, user_id text, event_id text, thread_id text);
			CREATE UNIQUE INDEX u ON receipts_linearized (room_id, receipt_type, user_id) WHERE thread_id IS NULL; INSERT INTO receipts_linearized VALUES (1, 'r', 't', 'u', 'a', NULL)`,
			`INSERT INTO receipts_linearized VALUES (1, 'r', 't', 'u', 'b', NULL)`,
			[]string{`room_id, receipt_type, user_id`},
		},
		"a row that others belong to": {
			`CREATE TABLE worker_read_write_locks_mode (lock_name text NOT NULL, lock_key text NOT NULL, write_lock bool NOT NULL);
			CREATE UNIQUE INDEX m ON worker_read_write_locks_mode (lock_name, lock_key); CREATE UNIQUE INDEX k ON worker_read_write_locks_mode (lock_name, lock_key, write_lock);
			CREATE TABLE locks (n text, k text, w bool, FOREIGN KEY (n, k, w) REFERENCES worker_read_write_locks_mode (lock_name, lock_key, write_lock));
			INSERT INTO worker_read_write_locks_mode VALUES ('a', 'b', true); INSERT INTO locks VALUES ('a', 'b', true)`,
			`INSERT INTO worker_read_write_locks_mode VALUES ('a', 'b', false)`,
			[]string{"rows of public.locks belong to one of them"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			db := s.Database(t, pgtest.WithCreate(inEnUS), pgtest.WithSetup(`CREATE TABLE schema_version (version int);`+c.tables))
			const only = `UPDATE pg_index SET indisvalid = %, indisready = % WHERE indisunique AND indrelid IN (SELECT oid FROM pg_class WHERE relnamespace = 'public'::regnamespace);`
			db.AdminExec(t, strings.ReplaceAll(only, "%", "false")+c.twice+";"+strings.ReplaceAll(only, "%", "true"))
			b := newBench(t, db)
			before := b.content()
			err := b.apply(b.plan(of(NotC, "database", db.Name)))
			if _, unchanged := errors.AsType[*doctor.UnchangedError](err); !unchanged {
				t.Fatalf("not refused: %v", err)
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q is not in: %v", want, err)
				}
			}
			for _, secret := range []string{"anna", "hash-", "syt_"} {
				if strings.Contains(err.Error(), secret) {
					t.Errorf("%q is in: %v", secret, err)
				}
			}
			if changed := differing(before, b.content()); len(changed) > 0 {
				t.Errorf("changed: %v", changed)
			}
			if limit := b.ask(`SELECT datconnlimit || ' ' || datcollate FROM pg_database WHERE datname = current_database()`)[0]; limit != "-1 en_US.UTF-8" {
				t.Errorf("the database is %s", limit)
			}
		})
	}
}

func TestWhatCantBeFinishedIsNotBegun(t *testing.T) {
	s := pgtest.StartWith(t, english(0))
	db := s.Database(t, pgtest.WithCreate(inEnUS), pgtest.WithSetup(few))
	refused := func(why string, err error) {
		t.Helper()
		if _, unchanged := errors.AsType[*doctor.UnchangedError](err); !unchanged || !strings.Contains(err.Error(), why) {
			t.Errorf("not refused because of %q: %v", why, err)
		}
		if is := newBench(t, db).ask(`SELECT datcollate FROM pg_database WHERE datname = current_database()`)[0]; is != "en_US.UTF-8" {
			t.Errorf("the locale is %s", is)
		}
	}
	b := newBench(t, db)
	p := b.plan(of(NotC, "database", db.Name))
	refused("not shut", b.step(p, 2, false))

	b.ok(b.step(p, 1, false))
	conn := db.AdminConn(t)
	refused("still connected", b.step(p, 2, false))
	conn.Close(t.Context())
	db.AdminExec(t, `CREATE SCHEMA synapse_doctor AUTHORIZATION `+db.User)
	refused("belongs to an ordinary role", b.step(p, 2, false))
	db.AdminExec(t, `DROP SCHEMA synapse_doctor`)
	db.AdminExec(t, `UPDATE pg_database SET datctype = 'C' WHERE datname = current_database()`)
	if err := b.step(p, 2, false); err == nil || !strings.Contains(err.Error(), "has been changed since the plan was made") {
		t.Errorf("a locale that was changed meanwhile: %v", err)
	}
	db.AdminExec(t, `UPDATE pg_database SET datctype = 'en_US.UTF-8' WHERE datname = current_database()`)
	db.AdminExec(t, `CREATE TABLE parts (v text) PARTITION BY RANGE (v)`)
	refused("partitioned by ranges of text", b.step(p, 0, false))

	db.AdminExec(t, `DROP TABLE parts; ALTER ROLE `+db.User+` CREATEDB`)
	b.target.Admin.Settings["user"], b.target.Admin.Settings["password"], b.target.Admin.Settings["host"] = db.User, db.Password, db.Host
	b.ok(b.step(p, 3, false))
	plain := newBench(t, db)
	plain.target.Admin.Settings["user"], plain.target.Admin.Settings["password"], plain.target.Admin.Settings["host"] = db.User, db.Password, db.Host
	refused("superuser", plain.step(p, 0, false))
}
