package port

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/pgtest"
)

// fresh is Synapse's schema without a homeserver in it.
var fresh = pgtest.Fixture() + `
TRUNCATE users, profiles, rooms, events, event_json, state_events, room_memberships, current_state_events, state_groups, account_data, device_inbox;
ALTER TABLE account_data ADD UNIQUE (user_id, account_data_type);
DROP INDEX account_data_uniqueness;
CREATE TABLE user_directory (user_id text NOT NULL UNIQUE, room_id text, display_name text, avatar_url text);
CREATE TABLE user_directory_search (user_id text NOT NULL UNIQUE, vector tsvector);
`

// examinePair runs the check on a file and a database.
func examinePair(t *testing.T, file string, db *doctor.Database, also func(*doctor.Target)) (*collector, *doctor.Target, error) {
	t.Helper()
	target := &doctor.Target{ServerName: "test.example", RunID: "test", Databases: []*doctor.Database{db, sqlite(file, "sqlite")}}
	if also != nil {
		also(target)
	}
	target.Bind()
	t.Cleanup(target.Close)
	c := &collector{}
	err := Check.Run(t.Context(), target, c)
	return c, target, err
}

func (c *collector) only() (codes []string) {
	for _, f := range c.found {
		codes = append(codes, f.Code)
	}
	slices.Sort(codes)
	return codes
}

func TestWhatStandsInTheWayOfAPort(t *testing.T) {
	server := pgtest.Start(t)
	for name, tt := range map[string]struct {
		create, setup, change string
		want                  []string
	}{
		"nothing, and there is no schema yet": {"", "", "", []string{NotPorted, RoomNotSeen}},
		"nothing, and the schema is there":    {"", fresh, "", []string{NotPorted, RoomNotSeen}},
		"pending updates":                     {"", fresh, "INSERT INTO background_updates VALUES ('a', '{}', NULL, 1)", []string{NotPorted, RoomNotSeen, UpdatesPending}},
		"a newer file":                        {"", fresh, "INSERT INTO applied_schema_deltas VALUES (94, '94/09_x.sql')", []string{NotPorted, RoomNotSeen, SchemaDiffers}},
		"a table of a module":                 {"", fresh, "CREATE TABLE module (a TEXT); INSERT INTO module VALUES ('x')", []string{ModuleTables, NotPorted, RoomNotSeen}},
		"another column":                      {"", fresh, "ALTER TABLE users ADD COLUMN x TEXT DEFAULT 'y'", []string{NotPorted, RoomNotSeen, SchemaDiffers}},
		"an empty table of a module":          {"", fresh, "CREATE TABLE module (a TEXT)", []string{NotPorted, RoomNotSeen}},
		"another locale":                      {"ENCODING 'UTF8' LC_COLLATE 'C.UTF-8' LC_CTYPE 'C.UTF-8'", "", "", []string{NotPorted, RoomNotSeen, TargetLocale}},
		"another encoding":                    {"ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C'", "", "", []string{NotPorted, RoomNotSeen, TargetLocale}},
		"somebody else's tables":              {"", "CREATE TABLE invoice (id int)", "", []string{RoomNotSeen, TargetNotEmpty}},
		"a homeserver in use":                 {"", pgtest.Fixture(), "", []string{RoomNotSeen, TargetNotEmpty}},
		"another homeserver":                  {"", fresh + "INSERT INTO users (name) VALUES ('@x:other.example');", "", []string{Other, RoomNotSeen}},
		"rooms without users":                 {"", fresh + "INSERT INTO rooms (room_id) VALUES ('!x:test.example');", "", []string{NotPorted, RoomNotSeen, TargetNotEmpty}},
	} {
		t.Run(name, func(t *testing.T) {
			options := []pgtest.Option{pgtest.WithSetup(tt.setup)}
			if tt.create != "" {
				options = []pgtest.Option{pgtest.WithCreate(tt.create)}
			}
			db := server.Database(t, options...)
			c, target, err := examinePair(t, sqliteFile(t, soundFile+tt.change), postgres(db), nil)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(c.only(), tt.want) {
				t.Errorf("found %v, want %v", c.codes(), tt.want)
			}
			for _, f := range c.found {
				if f.Summary == "" || f.Observed == "" || f.Expected == "" || f.Remedy == "" {
					t.Errorf("%s lacks something: %+v", f.Code, f)
				}
			}
			plans, err := Check.Plan(t.Context(), target, c.found)
			if err != nil {
				t.Fatal(err)
			}
			possible := strings.HasPrefix(name, "nothing") || name == "an empty table of a module"
			if possible != (len(plans) == 1 && plans[0].ID == "port/copy") || !possible && len(plans) > 0 {
				t.Errorf("plans %+v", plans)
			}
			if f := c.found; tt.want[0] == NotPorted && f[len(f)-1].Fixable != possible {
				t.Errorf("%s is fixable: %t", NotPorted, !possible)
			}
		})
	}
}

func TestASkippedTableOfAModuleDoesNotStandInTheWay(t *testing.T) {
	db := pgtest.Start(t).Database(t, pgtest.WithSetup(fresh))
	file := sqliteFile(t, soundFile+"CREATE TABLE module (a TEXT); INSERT INTO module VALUES ('x')")
	c, _, err := examinePair(t, file, postgres(db), func(t *doctor.Target) { t.SkipTables = []string{"module"} })
	if err != nil || !c.one(t, NotPorted).Fixable {
		t.Errorf("found %v, %v", c.codes(), err)
	}
}

func TestASessionOfSynapsesRoleIsNamed(t *testing.T) {
	db := pgtest.Start(t).Database(t, pgtest.WithSetup(fresh))
	conn := db.Conn(t)
	if _, err := conn.Exec(t.Context(), "SET application_name = 'synapse main'"); err != nil {
		t.Fatal(err)
	}
	c, _, err := examinePair(t, sqliteFile(t, soundFile), postgres(db), nil)
	if err != nil {
		t.Fatal(err)
	}
	f := c.one(t, TargetInUse)
	if pid := fmt.Sprintf("process %d ", conn.PgConn().PID()); !strings.Contains(f.Observed, pid) || !strings.Contains(f.Observed, "synapse main") || c.one(t, NotPorted).Fixable {
		t.Errorf("observed %q", f.Observed)
	}
}

func TestTheDiskOfAServerOnThisMachineIsLookedAt(t *testing.T) {
	server := pgtest.Start(t)
	db := postgres(server.Database(t, pgtest.WithSetup(fresh)))
	db.DataDir = server.DataDir
	c, _, err := examinePair(t, sqliteFile(t, soundFile), db, nil)
	if err != nil || !slices.Equal(c.only(), []string{NotPorted}) {
		t.Errorf("found %v, %v", c.codes(), err)
	}
	rooms := measure(db, &target{bytes: 1 << 20, maxWAL: 3 << 20}, &source{bytes: 8 << 20})
	if len(rooms) != 1 || !rooms[0].seen || rooms[0].free <= 0 || rooms[0].least != (10-1+3)<<20 || rooms[0].most != (16-1+3)<<20 {
		t.Errorf("measured %+v", rooms)
	}
	if found := judgeRoom(measure(db, &target{}, &source{bytes: 1 << 50}), &target{}); len(found) != 1 || found[0].Code != NoRoom {
		t.Errorf("a file larger than the disk: %+v", found)
	}
}
