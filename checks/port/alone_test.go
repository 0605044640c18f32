package port

import (
	"strconv"
	"strings"
	"testing"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/pgtest"
	"github.com/synapse-doctor/synapse-doctor/plugins/sdk/sdktest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// ported is a sound homeserver's database that Synapse's script has filled.
const ported = `
CREATE TABLE port_from_sqlite3 (table_name varchar(100) NOT NULL UNIQUE, forward_rowid bigint NOT NULL, backward_rowid bigint NOT NULL);
INSERT INTO port_from_sqlite3 VALUES ('events', 540, -1);
ALTER TABLE pushers ADD COLUMN ts bigint;
UPDATE pushers SET ts = 1700000000000;
UPDATE users SET approved = true;
UPDATE event_json SET json = '{"body":"a\\b \" \u00e9"}' WHERE event_id = '$event20';`

func TestWhatAPortHasDoneIsSeenWithoutTheFile(t *testing.T) {
	sdktest.Suite{
		Check: Check,
		Setup: pgtest.Fixture() + ported,
		Cases: []sdktest.Case{{
			Name:  "the user directory is frozen",
			Break: `UPDATE user_directory_stream_pos SET stream_id = NULL`,
			Want:  []string{"port/directory-frozen table user_directory_stream_pos"},
			Plan:  "port/queue-directory", Changes: []string{"background_updates"},
		}, {
			Name:  "a directory that is going to be filled",
			Break: `UPDATE user_directory_stream_pos SET stream_id = NULL; INSERT INTO background_updates VALUES ('populate_user_directory_cleanup', '{}', NULL, 7322)`,
		}, {
			Name:  "one pusher that is older than the switch",
			Break: `UPDATE pushers SET enabled = false, ts = 1600000000000 WHERE id = 2`,
			Want:  []string{"port/boolean-null-lost column pushers.enabled"},
		}, {
			Name:  "half of the pushers are off",
			Break: `UPDATE pushers SET enabled = false WHERE id < 7`,
			Want:  []string{"port/boolean-null-lost column pushers.enabled"},
		}, {
			Name:  "some people have switched their pushers off",
			Break: `UPDATE pushers SET enabled = false WHERE id < 6; UPDATE pushers SET enabled = NULL WHERE id = 9`,
		}, {
			Name:  "users from before there was approval",
			Break: `UPDATE users SET approved = false, creation_ts = 1600000000 WHERE name = '@user2:test.example'`,
			Want:  []string{"port/boolean-null-lost column users.approved"},
		}, {
			Name: "JSON that stands in octal, in hexadecimal, and with doubled backslashes",
			Break: `UPDATE event_json SET json = E'{"body":"caf\\303\\251"}' WHERE event_id = '$event7';
				UPDATE event_json SET json = E'\\x7b2261223a317d' WHERE event_id = '$event8';
				UPDATE event_json SET json = E'{"body":"a \\\\"quoted\\\\" word"}' WHERE event_id = '$event9';
				UPDATE pushers SET data = E'{"url":"https://b\\303\\274cher.example"}' WHERE id = 3;
				UPDATE account_data SET content = '\x7b7d' WHERE user_id = '@user4:test.example'`,
			Want: []string{"port/escaped-json table event_json", "port/escaped-json table pushers", "port/escaped-json table account_data"},
		}, {
			Name:  "what is no JSON for another reason is nobody's escape",
			Break: `UPDATE event_json SET json = 'a \ b' WHERE event_id = '$event7'; UPDATE pushers SET data = '{"a":"\x"}' WHERE id = 3`,
		}},
	}.Run(t)
}

// collector keeps what a check says.
type collector struct {
	found   []doctor.Finding
	covered []string
}

func (c *collector) Find(f doctor.Finding)    { c.found = append(c.found, f) }
func (c *collector) Progress(doctor.Progress) {}
func (c *collector) Covered(s string)         { c.covered = append(c.covered, s) }
func (c *collector) Measure(doctor.Measure)   {}

func (c *collector) one(t *testing.T, code string) doctor.Finding {
	t.Helper()
	var one *doctor.Finding
	for _, f := range c.found {
		if f.Code == code && one != nil {
			t.Fatalf("%s was found twice", code)
		} else if f.Code == code {
			one = &f
		}
	}
	if one == nil {
		t.Fatalf("%s was not found: %v", code, c.codes())
	}
	return *one
}

func (c *collector) codes() (codes []string) {
	for _, f := range c.found {
		codes = append(codes, f.Code+" "+f.Object.Name)
	}
	return codes
}

// postgres is an entry for a database, as its owner.
func postgres(db *pgtest.DB) *doctor.Database {
	return &doctor.Database{
		Label: "main", Engine: doctor.Postgres, DataStores: []string{"main", "state"}, Meets: doctor.NeedsPostgresEntry | doctor.NeedsPostgres,
		Settings: map[string]string{"host": db.Host, "port": strconv.Itoa(db.Port), "dbname": db.Name, "user": db.User, "password": db.Password, "sslmode": "disable"},
	}
}

func TestTheRemedyOfEscapedJSONGivesItBack(t *testing.T) {
	db := pgtest.Start(t).Database(t, pgtest.WithSetup(pgtest.Fixture()+ported))
	texts := map[string]string{ // by event: what it was as a BLOB
		"$event7": `{"body":"café \\ \" \n"}`, "$event8": `{"a":"b\\\"c"}`, "$event9": `{"body":"C:\\303\\dir é"}`,
	}
	conn := db.Conn(t)
	for id, text := range texts {
		how := "encode(convert_to($2, 'UTF8'), 'escape')"
		if id == "$event8" {
			how = `'\x' || encode(convert_to($2, 'UTF8'), 'hex')`
		}
		if _, err := conn.Exec(t.Context(), "UPDATE event_json SET json = "+how+" WHERE event_id = $1", id, text); err != nil {
			t.Fatal(err)
		}
	}
	target := &doctor.Target{ServerName: "test.example", Databases: []*doctor.Database{postgres(db)}}
	defer target.Close()
	var c collector
	if err := Check.Run(t.Context(), target, &c); err != nil {
		t.Fatal(err)
	}
	f := c.one(t, EscapedJSON)
	for line := range strings.Lines(f.Remedy) {
		if statement, ok := strings.CutPrefix(line, "    "); ok {
			if _, err := conn.Exec(t.Context(), statement); err != nil {
				t.Fatalf("%s: %v", statement, err)
			}
		}
	}
	for id, text := range texts {
		var is string
		if err := conn.QueryRow(t.Context(), "SELECT json FROM event_json WHERE event_id = $1", id).Scan(&is); err != nil || is != text {
			t.Errorf("%s is %s (%v), want %s", id, is, err, text)
		}
	}
}

func TestADatabaseThatNoPortHasFilledIsSkipped(t *testing.T) {
	db := pgtest.Start(t).Database(t, pgtest.WithSetup(pgtest.Fixture()))
	target := &doctor.Target{ServerName: "test.example", Databases: []*doctor.Database{postgres(db)}}
	defer target.Close()
	err := Check.Run(t.Context(), target, &collector{})
	if reason, ok := doctor.SkipReason(err); !ok || !strings.Contains(reason, "nothing in database") {
		t.Errorf("got %v", err)
	}
	target.Databases[0].Meets = doctor.NeedsPostgresEntry
	if err, ok := Check.Run(t.Context(), target, &collector{}).(*doctor.SkipError); !ok || !err.NeedFailed {
		t.Errorf("without a connection: %v", err)
	}
}

func TestOfALargeTableOnlyADeepLookSeesAll(t *testing.T) {
	db := pgtest.Start(t).Database(t, pgtest.WithSetup(pgtest.Fixture()+ported))
	db.Exec(t, `INSERT INTO event_json SELECT '$many' || i, 'r', '{}', '{}', 3 FROM generate_series(1, 50000) i; INSERT INTO event_json VALUES ('$last', 'r', '{}', '\x7b7d', 3)`)
	for deep, want := range map[bool]int{false: 0, true: 1} {
		target := &doctor.Target{ServerName: "test.example", Deep: deep, Databases: []*doctor.Database{postgres(db)}}
		var c collector
		if err := Check.Run(t.Context(), target, &c); err != nil {
			t.Fatal(err)
		}
		target.Close()
		if len(c.found) != want || (len(c.covered) == 0) != deep {
			t.Errorf("deep %t: found %v, covered %q", deep, c.codes(), c.covered)
		}
	}
}
