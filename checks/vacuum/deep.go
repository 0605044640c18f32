package vacuum

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/sqlitedb"
)

// damage is something that SQLite found unsound, and in what.
type damage struct{ what, message string }

// maxDamage is the most faults that quick_check is asked for.
const maxDamage = 40

// orphans are the rows of one table whose parents are not there.
type orphans struct {
	table   string
	rows    int64
	parents []string         // in the order in which they were met
	count   map[string]int64 // by parent
	rowids  map[string][]string
}

// maxOrphans is how many rows are named for each parent.
const maxOrphans = 10

// wholeFile is the piece of work that is not a table's: quick_check reads every page once. Asked of one table at a time it
// would miss pages that two tables share, and a broken list of free ones.
const wholeFile = ""

// deep reads every page and follows every foreign key, on several connections at once.
func (x *examination) deep(ctx context.Context, tables []string) ([]doctor.Finding, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	w := &deepWork{x: x, total: len(tables) + 1, busy: map[string]bool{}}
	queue := make(chan string)
	var wg sync.WaitGroup
	for range min(deepConnections, max(2, runtime.GOMAXPROCS(0))) {
		wg.Go(func() {
			if err := w.run(ctx, queue); err != nil {
				cancel(err)
			}
		})
	}
	for _, piece := range append([]string{wholeFile}, tables...) {
		select {
		case queue <- piece:
			continue
		case <-ctx.Done():
		}
		break
	}
	close(queue)
	wg.Wait()
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	x.covered = append(x.covered, fmt.Sprintf("quick_check of all pages and foreign keys of %d tables", len(tables)))
	return w.findings(), nil
}

// deepConnections bounds how many files are open at once; more gain nothing on one disk.
const deepConnections = 4

func identifier(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

func literal(text string) string { return `'` + strings.ReplaceAll(text, `'`, `''`) + `'` }

type deepWork struct {
	x     *examination
	total int

	mu      sync.Mutex
	done    int
	busy    map[string]bool
	damaged []damage
	orphans []orphans
}

func (w *deepWork) run(ctx context.Context, queue <-chan string) error {
	db, err := sqlitedb.Open(ctx, w.x.database.Path)
	if err != nil {
		return err
	}
	defer db.Close()
	if err := db.Map(w.x.state.Size); err != nil {
		return err
	}
	return db.Shield(func() error { return w.each(ctx, db, queue) })
}

func (w *deepWork) each(ctx context.Context, db *sqlitedb.DB, queue <-chan string) (err error) {
	for piece := range queue {
		w.progress(piece, 0)
		var found []damage
		var o orphans
		if piece == wholeFile {
			found, err = quickCheck(ctx, db)
		} else {
			o, err = foreignKeys(ctx, db, piece)
			if e, ok := errors.AsType[*sqlitedb.Error](err); ok && e.Corrupt() {
				found, err = []damage{{piece + ", or a table that it refers to", e.Message}}, nil
			}
		}
		if err != nil {
			return err
		}
		w.mu.Lock()
		w.damaged = append(w.damaged, found...)
		if o.rows > 0 {
			w.orphans = append(w.orphans, o)
		}
		w.mu.Unlock()
		w.progress(piece, 1)
	}
	return nil
}

func (w *deepWork) progress(piece string, done int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.done += done
	if w.busy[piece] = true; done > 0 {
		delete(w.busy, piece)
	}
	var doing []string
	for name := range w.busy {
		if name == wholeFile {
			name = "every page"
		}
		doing = append(doing, name)
	}
	slices.Sort(doing)
	w.x.Progress(doctor.Progress{Text: "checking " + strings.Join(doing, ", "), Done: int64(w.done), Total: int64(w.total), Unit: "tables"})
}

// quickCheck asks SQLite whether the pages, the rows and the constraints are sound.
func quickCheck(ctx context.Context, db *sqlitedb.DB) ([]damage, error) {
	var found []damage
	tables, err := roots(ctx, db)
	var s *sqlitedb.Stmt
	if err == nil {
		s, err = db.Prepare(fmt.Sprintf(`PRAGMA quick_check(%d)`, maxDamage))
	}
	for err == nil {
		var row bool
		if row, err = s.Step(ctx); err != nil || !row {
			break
		}
		for _, message := range strings.Split(s.String(0), "\n") {
			if message != "ok" && !strings.HasPrefix(message, "***") {
				found = append(found, damage{placed(message, tables), message})
			}
		}
	}
	if s != nil {
		s.Close()
	}
	if e, ok := errors.AsType[*sqlitedb.Error](err); ok && e.Corrupt() {
		return append(found, damage{"the file", e.Message}), nil
	}
	return found, err
}

// roots are the tables by the root page of each of their trees.
func roots(ctx context.Context, db *sqlitedb.DB) (map[int64]string, error) {
	s, err := db.Prepare(`SELECT rootpage, tbl_name FROM sqlite_schema WHERE rootpage > 0`)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	tables := map[int64]string{1: "sqlite_schema"}
	for {
		row, err := s.Step(ctx)
		if err != nil || !row {
			return tables, err
		}
		tables[s.Int(0)] = s.String(1)
	}
}

var treeMessage = regexp.MustCompile(`^Tree (\d+) `)

// placed is the table that a message of quick_check is about.
func placed(message string, tables map[int64]string) string {
	if m := treeMessage.FindStringSubmatch(message); m != nil {
		root, _ := strconv.ParseInt(m[1], 10, 64) // 0 for one that is too large
		if table := tables[root]; table != "" {
			return table
		}
	}
	return "the file"
}

// foreignKeys counts the rows of a table that refer to a row that is not there.
func foreignKeys(ctx context.Context, db *sqlitedb.DB, table string) (orphans, error) {
	o := orphans{table: table, count: map[string]int64{}, rowids: map[string][]string{}}
	s, err := db.Prepare(`PRAGMA foreign_key_check(` + literal(table) + `)`)
	if err != nil {
		return o, err
	}
	defer s.Close()
	for {
		row, err := s.Step(ctx)
		if err != nil || !row {
			return o, err
		}
		parent := s.String(2)
		if o.count[parent] == 0 {
			o.parents = append(o.parents, parent)
		}
		if o.count[parent]++; o.count[parent] <= maxOrphans {
			rowid := "without a rowid"
			if s.Class(1) == sqlitedb.Integer {
				rowid = strconv.FormatInt(s.Int(1), 10)
			}
			o.rowids[parent] = append(o.rowids[parent], rowid)
		}
		o.rows++
	}
}

func (w *deepWork) findings() []doctor.Finding {
	var found []doctor.Finding
	if len(w.damaged) > 0 {
		found = append(found, w.x.damageFinding(w.damaged))
	}
	slices.SortFunc(w.orphans, func(a, b orphans) int { return cmp.Compare(a.table, b.table) })
	for _, o := range w.orphans {
		found = append(found, orphanFinding(o))
	}
	return found
}

func (x *examination) corrupt(d []damage) { x.find(x.damageFinding(d)) }

func (x *examination) damageFinding(found []damage) doctor.Finding {
	slices.SortStableFunc(found, func(a, b damage) int { return cmp.Compare(a.what, b.what) })
	var tables []string
	evidence := map[string]string{}
	for _, d := range found {
		if !slices.Contains(tables, d.what) {
			tables = append(tables, d.what)
		}
		if evidence[d.what] != "" {
			evidence[d.what] += "; "
		}
		evidence[d.what] += d.message
	}
	return doctor.Finding{
		Code: Corrupt, Severity: doctor.Error,
		Summary:  fmt.Sprintf("%s is damaged: %s", x.database.Path, some(tables, 5)),
		Observed: found[0].message,
		Expected: "ok, from PRAGMA quick_check",
		Remedy: "Stop Synapse and keep the file as it is. Put back a backup; without one, save what can be read into a new file, and examine that:\n" +
			recoverCommand(x.database.Path) + "\nLook for the cause, a failing disk or file system, or a copy that was made while Synapse ran, before going on.",
		Evidence: evidence,
	}
}

func orphanFinding(o orphans) doctor.Finding {
	evidence := map[string]string{}
	var observed []string
	for _, parent := range o.parents {
		observed = append(observed, fmt.Sprintf("%d refer to %s", o.count[parent], parent))
		text := strings.Join(o.rowids[parent], ", ")
		if o.count[parent] > maxOrphans {
			text += ", …"
		}
		evidence["rowids without "+parent] = text
	}
	return doctor.Finding{
		Code: Orphans, Severity: doctor.Warning,
		Object:   doctor.Object{Kind: "table", Name: o.table},
		Summary:  fmt.Sprintf("%d rows of %s refer to rows that are not there", o.rows, o.table),
		Observed: strings.Join(observed, ", "),
		Expected: "no row, from PRAGMA foreign_key_check",
		Remedy: "Nothing needs to be done: a port puts these rows into a quarantine table, where they can be looked at, and stores all others. To see them:\n" +
			fmt.Sprintf("    PRAGMA foreign_key_check(%s);", literal(o.table)),
		Evidence: evidence,
	}
}
