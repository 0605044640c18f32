package upkeep

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/pgdb"
)

// opVacuum vacuums, analyzes or freezes tables, one after the other.
const opVacuum = "vacuum"

const (
	modeVacuum  = "vacuum"
	modeAnalyze = "analyze"
	modeFreeze  = "freeze"
)

func statement(mode, table string) string {
	switch mode {
	case modeAnalyze:
		return "ANALYZE " + table
	case modeFreeze:
		return "VACUUM (FREEZE) " + table
	}
	return "VACUUM (ANALYZE) " + table
}

func params(label, mode string, admin bool, tables []table) map[string]string {
	p := map[string]string{"database": label, "mode": mode, "tables": strconv.Itoa(len(tables))}
	if admin {
		p["as"] = "administrator"
	}
	for i, t := range tables {
		p[fmt.Sprintf("table %03d", i+1)] = identifier(t.Schema, t.Name)
	}
	return p
}

// lockPatience is how long a table is waited for. An automatic vacuum of it gives way after a second, unless it is to prevent
// wraparound: then it goes on for as long as it takes. Whoever reads or writes the table is not held up meanwhile.
var lockPatience = "5s"

// vacuumer is one execution of the operation.
type vacuumer struct {
	db      *doctor.Database
	watched *doctor.Database
	mode    string
	tables  []string // quoted
	host    doctor.OperationHost
}

func newVacuumer(t *doctor.Target, step doctor.OperationStep, h doctor.OperationHost) (*vacuumer, error) {
	label := step.Params["database"]
	db := t.Database(label)
	if db == nil {
		return nil, doctor.Unchanged("The plan is for the database entry %q, which is no longer configured.", label)
	}
	v := &vacuumer{db: db, watched: db, mode: step.Params["mode"], host: h}
	if step.Params["as"] != "" {
		if v.db = t.AdminIn(db); v.db == nil {
			return nil, doctor.Unchanged("There is no administrator's connection to %s.", db.Where())
		}
		v.watched = v.db
	}
	n, _ := strconv.Atoi(step.Params["tables"])
	for i := range n {
		v.tables = append(v.tables, step.Params[fmt.Sprintf("table %03d", i+1)])
	}
	return v, nil
}

// vacuum goes from table to table. It changes no row, whatever happens on its way: it ends as done, so that the check says what is
// left, or as having changed nothing, and never so that something would have to be settled before another plan.
func vacuum(ctx context.Context, t *doctor.Target, step doctor.OperationStep, resume string, h doctor.OperationHost) error {
	v, err := newVacuumer(t, step, h)
	if err == nil {
		err = v.run(ctx, t, resume)
	}
	_, said := errors.AsType[*doctor.UnchangedError](err)
	switch {
	case err == nil, said:
		return err
	case ctx.Err() != nil:
		return doctor.Unchanged("Interrupted; no row was changed. Run the fix again for what is left.")
	}
	return doctor.Unchanged("%v; no row was changed. Run the fix again for what is left.", err)
}

// begun is the token of a run that has done no table yet. A run that was killed is gone on with by the next one.
const begun = "0"

func (v *vacuumer) run(ctx context.Context, t *doctor.Target, resume string) error {
	done, _ := strconv.Atoi(resume)
	conn, err := pgdb.Connect(ctx, v.db.Settings, v.db.Options())
	if err != nil {
		return err
	}
	defer pgdb.Close(conn)
	if _, err := conn.Exec(ctx, sessionSettings, lockPatience); err != nil {
		return fmt.Errorf("prepare the session: %w", err)
	}
	if resume == "" {
		if err := v.nobodyHolds(ctx, t); err != nil {
			return err
		}
		if err := v.host.Save(ctx, begun, nil); err != nil {
			return err
		}
	}
	var passed []string
	for i := done; i < len(v.tables); i++ {
		why, err := v.one(ctx, conn, i)
		if err != nil {
			return err
		}
		if why != "" {
			passed = append(passed, why)
			v.host.Progress(doctor.Progress{Text: v.name(i), Note: why})
		}
		if err := v.host.Save(ctx, strconv.Itoa(i+1), nil); err != nil {
			return err
		}
	}
	if resume == "" && len(passed) > 0 && len(passed) == len(v.tables) {
		return doctor.Unchanged("%s", strings.Join(passed[:min(len(passed), 3)], " "))
	}
	return nil
}

// sessionSettings: no time limit may break off what takes hours. Each server knows some of them.
const sessionSettings = `SELECT set_config(name, CASE name WHEN 'lock_timeout' THEN $1 WHEN 'default_transaction_read_only' THEN 'off' ELSE '0' END, false)
FROM pg_settings WHERE name IN ('lock_timeout', 'default_transaction_read_only', 'statement_timeout', 'transaction_timeout', 'idle_session_timeout',
  'idle_in_transaction_session_timeout')`

// name is a table's as a person reads it.
func (v *vacuumer) name(i int) string {
	return strings.Trim(strings.TrimPrefix(v.tables[i], `"public".`), `"`)
}

// nobodyHolds refuses to begin while something keeps the very rows that are to be removed: vacuum would read everything, and
// remove nothing.
func (v *vacuumer) nobodyHolds(ctx context.Context, t *doctor.Target) error {
	if v.mode == modeAnalyze {
		return nil
	}
	var h holders
	if err := v.watched.Read(ctx, func(tx pgx.Tx) (err error) {
		h, err = readHolders(ctx, tx)
		return err
	}); err != nil {
		return err
	}
	e := &examination{target: t, db: v.db}
	for _, s := range h.sessions {
		switch {
		case !e.old(s) || !s.Holds:
		case s.Building:
			return doctor.Unchanged("The %s: no row that died since it began can be removed. Let it finish first.", s.builds())
		case s.Hidden:
			return doctor.Unchanged("The %s holds a snapshot that is %s transactions old: no row that died since then can be removed. End it first; synapse-doctor check upkeep says how.", s.who(), number(float64(s.Snapshot)))
		default:
			return doctor.Unchanged("The %s has had a transaction open for %s: no row that died since then can be removed. End it first; synapse-doctor check upkeep says how.", s.who(), age(seconds(s.Open)))
		}
	}
	for _, p := range h.prepared {
		if _, old := e.judgePrepared(p); old {
			return doctor.Unchanged("The transaction %q is prepared since %s: no row that died since then can be removed. End it first; synapse-doctor check upkeep says how.", p.GID, age(seconds(p.Age)))
		}
	}
	for _, s := range h.slots {
		if float64(s.Held) >= e.threshold(heldBack) && s.live() {
			return doctor.Unchanged("The replication slot %s keeps dead rows from being removed, since %s transactions. See to it first; synapse-doctor check upkeep says how.", s.Name, number(float64(s.Held)))
		}
	}
	for _, s := range h.standbys {
		if _, old := e.judgeStandby(s); old {
			return doctor.Unchanged("The standby %s keeps dead rows from being removed, since %s transactions. See to it first; synapse-doctor check upkeep says how.", s.Name, number(float64(s.Held)))
		}
	}
	return nil
}

// one vacuums or analyzes one table, under the eyes of a second session. It says why it could not, where that concerns just this
// table.
func (v *vacuumer) one(ctx context.Context, conn *pgx.Conn, i int) (why string, err error) {
	table := v.tables[i]
	var may bool
	var before *time.Time
	if err := conn.QueryRow(ctx, mayQuery, table, v.mode == modeAnalyze).Scan(&may, &before); err != nil {
		if errors.Is(err, pgx.ErrNoRows) {
			return "", nil // it was dropped
		}
		return "", fmt.Errorf("look at %s: %w", table, err)
	}
	if !may { // the server would only warn
		return fmt.Sprintf("The role may not vacuum %s: run this as its owner, or with --admin-dsn.", v.name(i)), nil
	}
	running, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	finished, watched := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(watched)
		v.watch(ctx, conn.PgConn().PID(), i, finished, stop)
	}()
	_, err = conn.Exec(running, statement(v.mode, table))
	close(finished)
	<-watched
	if errors.Is(context.Cause(running), errStopped) {
		return "", doctor.Unchanged("Stopped, as it was asked to: %d of %d tables are done, and no row was changed. Run the fix again for the others.", i, len(v.tables))
	}
	pg, answered := errors.AsType[*pgconn.PgError](err)
	switch {
	case err == nil:
		return "", v.counted(ctx, conn, table, before)
	case !answered || ctx.Err() != nil || conn.IsClosed():
		return "", fmt.Errorf("%s: %w", statement(v.mode, table), err)
	case pg.Code == "55P03":
		return fmt.Sprintf("The table %s is locked by another session (the build of an index, or an automatic vacuum that prevents wraparound): run the fix again later.", v.name(i)), nil
	}
	return fmt.Sprintf("%s failed: %s.", statement(v.mode, table), strings.TrimSuffix(pg.Message, ".")), nil
}

var errStopped = errors.New("asked to stop")

// mayQuery asks whether the server would do it, and when it has last done so.
const mayQuery = `SELECT pg_has_role(relowner, 'USAGE') OR NOT relisshared AND pg_has_role((SELECT datdba FROM pg_database WHERE datname = current_database()), 'USAGE'),
  CASE WHEN $2 THEN pg_stat_get_last_analyze_time(oid) ELSE pg_stat_get_last_vacuum_time(oid) END FROM pg_class WHERE oid = to_regclass($1)`

// counted waits until the statistics know of it; before 15 they are told in passing.
func (v *vacuumer) counted(ctx context.Context, conn *pgx.Conn, table string, before *time.Time) error {
	const patience = 50
	for range patience {
		var may bool
		var at *time.Time
		if err := conn.QueryRow(ctx, mayQuery, table, v.mode == modeAnalyze).Scan(&may, &at); err != nil {
			if errors.Is(err, pgx.ErrNoRows) {
				return nil
			}
			return fmt.Errorf("look at %s: %w", table, err)
		}
		if at != nil && (before == nil || at.After(*before)) {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(100 * time.Millisecond):
		}
	}
	return nil // track_counts may be off
}

// progressQuery reads, by any of the two views, what the session does. Bytes are blocks here.
const progressQuery = `SELECT phase, heap_blks_total, heap_blks_scanned FROM pg_stat_progress_vacuum WHERE pid = $1
UNION ALL SELECT phase, sample_blks_total, sample_blks_scanned FROM pg_stat_progress_analyze WHERE pid = $1`

const watchEvery = 500 * time.Millisecond

// watch tells how far it is until it has finished, and breaks it off when the host asks for that.
func (v *vacuumer) watch(ctx context.Context, pid uint32, i int, finished <-chan struct{}, stop context.CancelCauseFunc) {
	p := doctor.Progress{Text: fmt.Sprintf("%s, %d of %d", v.name(i), i+1, len(v.tables)), Unit: "pages"}
	v.host.Progress(p)
	for {
		select {
		case <-finished:
			return
		case <-v.host.Stopping():
			stop(errStopped)
			return
		case <-time.After(watchEvery):
		}
		now, phase := p, ""
		err := v.watched.Read(ctx, func(tx pgx.Tx) error { return tx.QueryRow(ctx, progressQuery, pid).Scan(&phase, &now.Total, &now.Done) })
		if err == nil { // otherwise it has just finished, or is being broken off
			now.Text += ": " + phase
			v.host.Progress(now)
		}
	}
}
