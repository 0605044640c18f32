package upkeep

import (
	"time"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
)

const (
	// apart is how far two sizes must be from each other for their difference to mean anything. A daily run may come early.
	apart = 20 * time.Hour
	// window is how far back growth is looked at, where runs are recorded often.
	window = 7 * 24 * time.Hour
	// month is what growth is told for.
	month = 30 * 24 * time.Hour
)

const (
	sizeMeasure    = "size"
	baseMeasure    = "base-size"
	baseAgeMeasure = "base-age"
)

// base is what the size of something is compared with. The last run may have been an hour ago: each run hands on to the next what
// it has compared with itself.
type base struct {
	size float64
	age  time.Duration
}

// takeBase is the base of an object that has this size now; false where nothing was measured before.
func (e *examination) takeBase(object doctor.Object, now float64) (base, bool) {
	last, ok := e.earlier(object, sizeMeasure)
	if !ok || last.Value <= 0 {
		return base{}, false
	}
	b := base{last.Value, e.since(last)}
	if carried, ok := e.earlier(object, baseMeasure); ok && carried.Value > 0 {
		old, _ := e.earlier(object, baseAgeMeasure)
		b = base{carried.Value, seconds(old.Value) + e.since(carried)}
	}
	if next, ok := b.next(now); ok {
		e.measure(doctor.Measure{Object: object, Name: baseMeasure, Value: next.size, Unit: "fingerprint"})
		e.measure(doctor.Measure{Object: object, Name: baseAgeMeasure, Value: float64(int64(next.age.Seconds())), Unit: "fingerprint"})
	}
	if e.bases == nil {
		e.bases = map[doctor.Object]base{}
	}
	e.bases[object] = b
	return b, true
}

// next is the base of the next run: the same, or, where it is too old, the point half-way from it to now, so that the rate of
// growth goes on being the same. What has shrunk begins anew with its size now.
func (b base) next(now float64) (base, bool) {
	if now < b.size {
		return base{}, false
	}
	for b.age >= window {
		b = base{(b.size + now) / 2, b.age / 2}
	}
	return b, true
}

// stalledFor is for how long, up to now, something has been as it should not be while Synapse worked: what the earlier run has told,
// and the time since, if it was so then already.
func (e *examination) stalledFor(object doctor.Object, name string, since doctor.Measure) time.Duration {
	before, _ := e.earlier(object, name)
	stalled := seconds(before.Value)
	if e.worked {
		stalled += e.since(since)
	}
	return stalled
}
