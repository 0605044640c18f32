package upkeep

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
)

// reading is one table that --deep reads, and what it looks for in each row.
type reading struct {
	code     string
	severity doctor.Severity
	table    string              // whose pages are read
	needs    map[string][]string // the tables and columns that the query uses
	by       map[string]string   // the columns by which rows of other tables are looked up
	faulty   string              // the query for the faulty rows among r, the rows of some pages; it gives one text column
	filter   func(ctx context.Context, faulty []string) ([]string, error)
	tell     func(f *doctor.Finding, n int64)
	// atLeast is how many there must be, so that it matters.
	atLeast float64

	n       int64
	samples []string
	hashes  bool // a small table lacks the index: it is read for each part
}

// firstPages is how many pages one transaction reads at first; then as many as it reads in about a second.
var firstPages int64 = 2048

const (
	mostPages = 32768
	pagesTime = time.Second
)

var errBudget = errors.New("the budget is used up")

// deep reads tables page by page, the smaller ones first. Each row is looked at alone, with what belongs to it looked up by an
// index, so that memory and temporary files don't grow with the table.
func (e *examination) deep(ctx context.Context) {
	limited := ctx
	if !e.deadline.IsZero() {
		var cancel context.CancelFunc
		limited, cancel = context.WithDeadlineCause(ctx, e.deadline, errBudget)
		defer cancel()
	}
	e.deepExtremities(limited)
	var readings []*reading
	var total, done int64
	for _, r := range e.readings() {
		if why := e.unreadable(r); why != "" {
			if why != absent {
				e.leave(r.what(), why)
			}
			continue
		}
		readings = append(readings, r)
		total += e.known[r.table].Bytes
	}
	slices.SortStableFunc(readings, func(a, b *reading) int { return int(min(max(e.known[a.table].Bytes-e.known[b.table].Bytes, -1), 1)) })
	for _, r := range readings {
		before := done
		err := e.readAll(limited, r, func(bytes int64) {
			done = before + bytes
			e.reporter.Progress(doctor.Progress{Text: "reading " + r.table, Done: done, Total: total, Unit: "bytes"})
		})
		done = before + e.known[r.table].Bytes
		if r.n > 0 && float64(r.n) > r.atLeast {
			e.find(r.finding())
		}
		if err != nil {
			e.leave(r.what(), deepWhy(limited, err))
		} else {
			e.readTable(r.table)
		}
	}
}

func deepWhy(ctx context.Context, err error) string {
	switch {
	case errors.Is(context.Cause(ctx), errBudget):
		return "no time left in the budget"
	case ctx.Err() != nil:
		return "the examination was ended"
	}
	if why, refused := refusal(ctx, err); refused {
		return why
	}
	return err.Error()
}

func (e *examination) deepExtremities(ctx context.Context) {
	if !e.has("event_forward_extremities", "room_id") {
		return
	}
	const what = "event_forward_extremities"
	if err := e.db.Read(ctx, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `SELECT set_config('statement_timeout', '0', true)`); err != nil {
			return err
		}
		return e.readExtremities(ctx, tx)
	}); err != nil {
		e.leave(what, deepWhy(ctx, err))
		return
	}
	e.readTable(what)
}

func (e *examination) readTable(table string) {
	if !slices.Contains(e.read, table) {
		e.read = append(e.read, table)
	}
}

// what says in a few words what is looked for.
func (r *reading) what() string {
	_, fault, _ := strings.Cut(r.code, "/")
	return fault + " in " + r.table
}

const absent = "not there"

// unreadable says why a table can't be read this way; absent where this schema has no such thing.
func (e *examination) unreadable(r *reading) string {
	for table, columns := range r.needs {
		if !e.has(table, columns...) {
			return absent
		}
	}
	for table, column := range r.by {
		if e.leads(table, column) {
			continue
		}
		if r.hashes = true; e.known[table].Bytes > small {
			return fmt.Sprintf("%s has no index that begins with %s", table, column)
		}
	}
	if e.server.Version < 140000 {
		return "PostgreSQL before 14 can't read a table part by part"
	}
	return ""
}

// readAll reads the table from its first page to its last.
func (e *examination) readAll(ctx context.Context, r *reading, progress func(bytes int64)) error {
	const block = 8192 // only how progress is told, and how much one transaction reads, depend on it
	pages, step := e.known[r.table].Bytes/block+1, firstPages
	for from := int64(0); from < pages; {
		progress(from * block)
		start := time.Now()
		to := from + step
		end := fmt.Sprintf("AND ctid < '(%d,0)'", to)
		if to >= pages {
			end = "" // what has been added meanwhile too
		}
		faulty, err := e.readPages(ctx, r, fmt.Sprintf("SELECT * FROM %s WHERE ctid >= '(%d,0)' %s", r.table, from, end))
		if err != nil {
			return err
		}
		r.n += int64(len(faulty))
		r.samples = append(r.samples, faulty[:min(len(faulty), maxSamples-len(r.samples))]...)
		from = to
		switch took := time.Since(start); {
		case took > 2*pagesTime:
			step = max(step/2, 64)
		case took < pagesTime/2:
			step = min(step*2, mostPages)
		}
	}
	return nil
}

const maxSamples = 5

// deepSettings make the server look up each row by an index, whatever it knows of the tables.
const deepSettings = `SELECT set_config('enable_hashjoin', $1, true), set_config('enable_mergejoin', 'off', true),
  set_config('enable_seqscan', 'off', true), set_config('jit', 'off', true), set_config('statement_timeout', '0', true),
  set_config('max_parallel_workers_per_gather', '0', true)`

func (e *examination) readPages(ctx context.Context, r *reading, rows string) (faulty []string, err error) {
	err = e.db.Read(ctx, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, deepSettings, map[bool]string{true: "on", false: "off"}[r.hashes]); err != nil {
			return err
		}
		answer, err := tx.Query(ctx, strings.Replace(r.faulty, "$ROWS", "("+rows+") r", 1), pgx.QueryExecModeExec)
		if err != nil {
			return err
		}
		faulty, err = pgx.CollectRows(answer, pgx.RowTo[string])
		return err
	})
	if err != nil || r.filter == nil || len(faulty) == 0 {
		return faulty, err
	}
	return r.filter(ctx, faulty)
}

func (r *reading) finding() doctor.Finding {
	f := doctor.Finding{Code: r.code, Severity: r.severity, Object: doctor.Object{Kind: "table", Name: r.table}, Evidence: map[string]string{}}
	r.tell(&f, r.n)
	for i, s := range r.samples {
		f.Evidence[fmt.Sprintf("row %d", i+1)] = s
	}
	return f
}
