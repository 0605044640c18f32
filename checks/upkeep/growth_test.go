package upkeep

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
)

// What runs every hour has no run of a day ago to compare with: each hands on what it compared itself with.
func TestRunsOfEveryHourAddUp(t *testing.T) {
	object := doctor.Object{Kind: "table", Name: "events"}
	const hourly = 1e6
	size := func(hour int) float64 { return 1e9 + hourly*float64(hour) }
	var earlier doctor.Earlier
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for hour := range 1000 {
		c := &collector{}
		e := &examination{target: &doctor.Target{Earlier: earlier}, db: &doctor.Database{Label: "main"}, reporter: c, now: start.Add(time.Duration(hour) * time.Hour)}
		e.measure(doctor.Measure{Object: object, Name: sizeMeasure, Value: size(hour), Unit: "bytes"})
		b, ok := e.takeBase(object, size(hour))
		if ok != (hour > 0) {
			t.Fatalf("hour %d: a base: %t", hour, ok)
		}
		if want := min(time.Duration(hour)*time.Hour, 20*time.Hour); b.age < want || b.age > window+time.Hour {
			t.Fatalf("hour %d: it is %s old", hour, b.age)
		}
		if rate := (size(hour) - b.size) / b.age.Hours(); ok && math.Abs(rate-hourly) > 1 {
			t.Fatalf("hour %d: it grows by %v an hour", hour, rate)
		}
		for i, m := range c.measures {
			if c.measures[i].At = e.now; m.Name != sizeMeasure && m.Unit != "fingerprint" {
				t.Fatalf("%s is shown", m.Name)
			}
		}
		earlier = doctor.NewEarlier(c.measures)
	}
	if b, ok := (base{1e9, 48 * time.Hour}).next(9e8); ok {
		t.Errorf("what has shrunk is compared with %+v", b)
	}
	if b, _ := (base{1e9, 32 * window}).next(2e9); b.age >= window || b.size <= 1.9e9 {
		t.Errorf("a year later, the base is %+v", b)
	}
}

func TestUpdatesThatGetNowhereFromHourToHourAreFound(t *testing.T) {
	db := fixture(t)
	db.Exec(t, `INSERT INTO background_updates VALUES ('a', '{}', NULL, 1)`)
	set := map[string]float64{"update-hours": 3}
	c := find(t, target(db, set))
	for hour, want := range [][]string{1: nil, 2: nil, 3: nil, 4: {"warning upkeep/background-update-stuck background update a"}, 5: nil} {
		if hour == 0 {
			continue
		}
		switch hour {
		case 5: // it has got on
			db.Exec(t, `UPDATE background_updates SET progress_json = '{"n": 1}'`)
			fallthrough
		default:
			db.Exec(t, strings.NewReplacer("$new", fmt.Sprintf("$new%d", hour), "9999", fmt.Sprint(10000+hour)).Replace(newEvent))
		case 2: // Synapse was off
		}
		later := target(db, set)
		later.Earlier = c.earlier(time.Hour)
		c = find(t, later)
		c.want(t, want...)
	}
}

func TestUpdatesOfASplitStateDatabaseAreFound(t *testing.T) {
	main, state := fixture(t), fixture(t)
	state.Exec(t, `INSERT INTO background_updates VALUES ('a', '{}', NULL, 1)`)
	both := func() *doctor.Target {
		both := target(main, nil)
		both.Databases = append(both.Databases, target(state, nil).Databases...)
		both.Databases[0].DataStores, both.Databases[1].DataStores, both.Databases[1].Label = []string{"main"}, []string{"state"}, "state"
		both.Bind()
		return both
	}
	before := find(t, both())
	before.want(t)
	main.Exec(t, newEvent) // what is left of events in the other one says nothing
	later := both()
	later.Earlier = before.earlier(48 * time.Hour)
	find(t, later).want(t, "warning upkeep/background-update-stuck background update a")
}
