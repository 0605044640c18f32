package port

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/port"
)

// place is where oddities are counted together.
type place struct {
	table, column string
	lost          bool
}

// oddities are those of one place.
type oddities struct {
	count   int64
	reasons map[string]int64
	keys    []string
}

// scan reads every row as a port would, and says what will not fit. A fix that is about to be applied finds it anyway.
func (x *pair) scan(ctx context.Context) error {
	if x.t.Applying {
		return nil
	}
	if x.match == nil {
		x.r.Covered("what will not fit into PostgreSQL can be told only when Synapse's schema is there: the port makes it, and tells")
		return nil
	}
	if x.tooLarge("what will not fit into PostgreSQL") {
		return nil
	}
	var mu sync.Mutex
	found := map[place]*oddities{}
	err := x.match.Scan(ctx, x.source.path, x.r.Progress, func(o port.Oddity) {
		mu.Lock()
		defer mu.Unlock()
		at := place{o.Table, o.Column, o.Lost}
		if found[at] == nil {
			found[at] = &oddities{reasons: map[string]int64{}}
		}
		found[at].add(o)
	})
	places := slices.SortedFunc(maps.Keys(found), func(a, b place) int {
		return cmp.Or(strings.Compare(a.table, b.table), strings.Compare(a.column, b.column))
	})
	for _, at := range places {
		x.find(oddFinding(at, found[at]))
	}
	if err != nil {
		return fmt.Errorf("look for what will not fit: %w", err)
	}
	return nil
}

// mostReasons bounds the different reasons that are counted apart in one place.
const mostReasons = 20

func (o *oddities) add(x port.Oddity) {
	o.count++
	if o.reasons[x.Reason] > 0 || len(o.reasons) < mostReasons {
		o.reasons[x.Reason]++
	}
	if len(o.keys) < mostNamed {
		key := x.Key
		if key == "" {
			key = fmt.Sprintf("rowid %d", x.Rowid)
		}
		o.keys = append(o.keys, key)
	}
}

func oddFinding(at place, o *oddities) doctor.Finding {
	object := doctor.Object{Kind: "table", Name: at.table}
	if at.column != "" {
		object = doctor.Object{Kind: "column", Name: at.table + "." + at.column}
	}
	evidence := map[string]string{"rows": strings.Join(o.keys, "; ")}
	for reason, n := range o.reasons {
		evidence[reason] = fmt.Sprint(n)
	}
	reasons := slices.SortedFunc(maps.Keys(o.reasons), func(a, b string) int {
		return cmp.Or(cmp.Compare(o.reasons[b], o.reasons[a]), strings.Compare(a, b))
	})
	f := doctor.Finding{
		Code: OddCells, Severity: doctor.Warning, Object: object,
		Summary:  fmt.Sprintf("%s in %s can't be stored in PostgreSQL as %s: the port will change %s, and list each.", valueCount(o.count), object.Name, verb(o.count, "it is", "they are"), verb(o.count, "it", "them")),
		Observed: named(reasons), Expected: "values that PostgreSQL can hold",
		Remedy:   "Nothing needs to be done before the port. Where you would rather decide yourself, correct the rows in SQLite with Synapse stopped, and look again.",
		Evidence: evidence,
	}
	if at.lost {
		f.Code = Unstorable
		f.Summary = fmt.Sprintf("%s of %s can't be stored in PostgreSQL: the port will put %s into quarantine, whole.", rowCount(o.count), at.table, verb(o.count, "it", "them"))
		f.Expected = "rows that PostgreSQL can hold"
	}
	return f
}
