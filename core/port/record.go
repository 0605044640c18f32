package port

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// Record is what a port has left in its target: how far it is, what it had to change, and what it could not store.
type Record struct {
	Format     int
	ServerName string
	Stage      string // loading, finishing, complete
	Path       string // of the file that was read last by a run that was completed, or, before one was, by the first
	File       FileIdentity
	Runs       int // that were begun
	Started    time.Time
	Finished   time.Time          // of the last complete run; zero before there was one
	Seconds    map[string]float64 // how long the parts of the last complete run took
	Bytes      int64              // of the database when it was finished
	Tables     []TableRecord
	Lost       []Oddities // rows in quarantine, by table and reason
	Changed    []Oddities // cells that were not stored as they were, by table, column and change
	Pending    []string   // indexes and foreign keys that were dropped and are not made again, for people
}

// TableRecord is what a port knows of a table.
type TableRecord struct {
	Name     string
	Whole    bool // every row of the file was read and stored
	Verified bool
	Rows     int64
}

// Oddities are rows or cells that have the same reason. Where the server has written the reason it may tell values, so that
// what differs in these alone is together.
type Oddities struct {
	Table  string
	Column string // of cells
	Reason string // of the first
	Count  int64
	Keys   []string // of some
}

// Complete reports whether the last run that was begun has come to its end.
func (r *Record) Complete() bool { return r.Stage == "complete" }

const recordThere = `SELECT count(*) > 0, coalesce(bool_and(has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT')), true)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = 'synapse_doctor' AND c.relname IN ('port', 'port_table', 'port_chunk', 'port_object', 'port_quarantine', 'port_change')`

// mostKeys is how many keys are told of rows or cells with the same reason.
const mostKeys = 5

// A number or a quoted value is what differs between the same reasons of several rows.
const oddRows = `SELECT name, '', min(reason), count(*), (array_agg(key ORDER BY rowid_, key))[1:$1] FROM synapse_doctor.port_quarantine
GROUP BY name, regexp_replace(reason, '("[^"]*"|[0-9]+)', '…', 'g') ORDER BY name, 3`

const oddCells = `SELECT name, column_, min(change), count(*), (array_agg(key ORDER BY rowid_, key))[1:$1] FROM synapse_doctor.port_change
GROUP BY name, column_, regexp_replace(change, '("[^"]*"|[0-9]+)', '…', 'g') ORDER BY name, column_, 3`

// hasRecord reports whether there is a record. It is an error when the role may not read it.
func hasRecord(ctx context.Context, tx pgx.Tx) (bool, error) {
	var there, may bool
	if err := tx.QueryRow(ctx, recordThere).Scan(&there, &may); err != nil {
		return false, fmt.Errorf("look for the record of a port: %w", err)
	}
	if there && !may {
		return false, errors.New("the record of the port may not be read: GRANT USAGE ON SCHEMA synapse_doctor, and GRANT SELECT ON ALL TABLES IN SCHEMA synapse_doctor, TO the role that the doctor logs in with")
	}
	return there, nil
}

// ReadRecord reads the record of a port; nil where there is none. A role that may not read it is told what it needs.
func ReadRecord(ctx context.Context, tx pgx.Tx) (*Record, error) {
	if there, err := hasRecord(ctx, tx); err != nil || !there {
		return nil, err
	}
	r := &Record{}
	var finished *time.Time
	var file, seconds []byte
	err := tx.QueryRow(ctx, `SELECT format, server_name, stage, path, file::text, runs, started, finished, seconds::text, bytes FROM synapse_doctor.port`).
		Scan(&r.Format, &r.ServerName, &r.Stage, &r.Path, &file, &r.Runs, &r.Started, &finished, &seconds, &r.Bytes)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the record of the port: %w", err)
	}
	if r.Format != format {
		return nil, fmt.Errorf("the record of the port has the format %d, and this version of the program knows %d: use the version that has ported", r.Format, format)
	}
	if finished != nil {
		r.Finished = *finished
	}
	if err := errors.Join(json.Unmarshal(file, &r.File), json.Unmarshal(seconds, &r.Seconds)); err != nil {
		return nil, fmt.Errorf("the record of the port is not understood: %w", err)
	}
	var batch pgx.Batch
	collect := func(what, sql string, into func(pgx.Rows) error, args ...any) {
		batch.Queue(sql, args...).Query(func(rows pgx.Rows) error {
			if err := into(rows); err != nil {
				return fmt.Errorf("read the record of the port: %s: %w", what, err)
			}
			return nil
		})
	}
	collect("tables", `SELECT name, whole, verified, rows FROM synapse_doctor.port_table ORDER BY name`, func(rows pgx.Rows) (err error) {
		r.Tables, err = pgx.CollectRows(rows, pgx.RowToStructByPos[TableRecord])
		return err
	})
	collect("quarantine", oddRows, func(rows pgx.Rows) (err error) {
		r.Lost, err = pgx.CollectRows(rows, pgx.RowToStructByPos[Oddities])
		return err
	}, mostKeys)
	collect("changes", oddCells, func(rows pgx.Rows) (err error) {
		r.Changed, err = pgx.CollectRows(rows, pgx.RowToStructByPos[Oddities])
		return err
	}, mostKeys)
	collect("objects", `SELECT kind, relation, name FROM synapse_doctor.port_object ORDER BY kind DESC, relation, name`, func(rows pgx.Rows) error {
		var o object
		_, err := pgx.ForEachRow(rows, []any{&o.kind, &o.relation, &o.name}, func() error {
			r.Pending = append(r.Pending, o.String())
			return nil
		})
		return err
	})
	if err := tx.SendBatch(ctx, &batch).Close(); err != nil {
		return nil, err
	}
	return r, nil
}

// SameFile reports whether the file at path is the one that was read last, and nobody has written to it; otherwise why not.
func (r *Record) SameFile(path string) (bool, string) {
	return r.File.same(path)
}

// Untouched compares what was verified with what the target holds. Where the server's counters don't vouch, the tables of m
// are read again; without m they are named as unsure. What somebody has written to since is the [WrittenError], nil when
// nobody has.
func (r *Record) Untouched(ctx context.Context, tx pgx.Tx, m *Match) (*WrittenError, []string, error) {
	if m != nil {
		written, _, err := look(ctx, tx, m.Tables, true, nil)
		if err != nil || len(written) == 0 {
			return nil, nil, err
		}
		return &WrittenError{Tables: written}, nil, nil
	}
	var tables []Table
	for _, t := range r.Tables {
		table := Table{Name: t.Name}
		var oid *uint32
		if err := tx.QueryRow(ctx, `SELECT to_regclass(quote_ident($1))::oid`, t.Name).Scan(&oid); err != nil {
			return nil, nil, fmt.Errorf("look for the table %s: %w", t.Name, err)
		}
		if oid != nil {
			table.OID = *oid
			tables = append(tables, table)
		}
	}
	_, unsure, err := look(ctx, tx, tables, false, nil)
	return nil, unsure, err
}
