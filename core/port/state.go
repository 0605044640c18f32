package port

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// stateSchema is where the doctor's own tables are in a target; never public.
const stateSchema = "synapse_doctor"

// stateStatements make the tables in which a port keeps its place. A chunk's row is written in the transaction of its data,
// so that what they say is what is there.
//
//   - port: one row. Whose database it is, which file was read last, and how far the work is.
//   - port_table: what was read of each table, and what must be in it.
//   - port_chunk: rows of the source in the order of their rowids. source_sum is over all of them, stored_sum over those that
//     were stored; both are sums of 64-bit row hashes, which no order of rows changes. The keys are digests of the first and
//     last row as SQLite has them, by which rows that have moved are known.
//   - port_object: indexes and foreign keys that were dropped for the time of the copy, by their definition.
//   - port_quarantine: rows that the target can't hold, whole.
//   - port_change: cells that could not be stored as they were.
var stateStatements = []string{
	`CREATE SCHEMA IF NOT EXISTS synapse_doctor`,
	`CREATE TABLE IF NOT EXISTS synapse_doctor.port (
  one boolean PRIMARY KEY DEFAULT true CHECK (one),
  format integer NOT NULL,
  server_name text NOT NULL,
  users jsonb NOT NULL,              -- {"@name:server": creation_ts}: some of the first users, by which the homeserver is known again
  stage text NOT NULL,               -- loading, finishing, complete
  path text NOT NULL,                -- of the file that was read last
  file jsonb NOT NULL,               -- what identifies that file: size, mtime, page_count, schema_cookie, change_counter, roots, …
  runs integer NOT NULL DEFAULT 0,   -- that were begun
  started timestamptz NOT NULL,
  finished timestamptz,              -- of the last complete run
  seconds jsonb NOT NULL DEFAULT '{}', -- how long the parts of the last complete run took: {"copy": 12.5, …}
  bytes bigint NOT NULL DEFAULT 0    -- of the database when it was finished
)`,
	`CREATE TABLE IF NOT EXISTS synapse_doctor.port_table (
  name text PRIMARY KEY,             -- as the target has it
  key text[],                        -- the columns by which its rows are told apart, while what keeps them unique may be dropped
  whole boolean NOT NULL DEFAULT false, -- every row of the file was read and stored
  rows bigint NOT NULL DEFAULT 0,    -- that must be in it
  sum numeric NOT NULL DEFAULT 0,    -- of their hashes
  verified boolean NOT NULL DEFAULT false,
  activity jsonb                     -- the server's counters when it was verified: by them it is known whether anybody wrote since
)`,
	`CREATE TABLE IF NOT EXISTS synapse_doctor.port_chunk (
  name text NOT NULL,
  first bigint NOT NULL,             -- rowid
  last bigint NOT NULL,
  rows bigint NOT NULL,
  source_sum numeric NOT NULL,
  stored bigint NOT NULL,
  stored_sum numeric NOT NULL,
  first_key bytea NOT NULL,
  last_key bytea NOT NULL,
  extra jsonb,                       -- what is checked of columns that have no hash, such as tsvector
  PRIMARY KEY (name, first)
)`,
	`CREATE TABLE IF NOT EXISTS synapse_doctor.port_object (
  kind text NOT NULL,                -- index, constraint
  relation text NOT NULL,            -- the table, as it is written in a statement
  name text NOT NULL,
  definition text NOT NULL,          -- the statements that make it again
  parent text,                       -- the table that a foreign key points at
  validate boolean NOT NULL DEFAULT false, -- a foreign key was valid; its definition makes it as one that is not, which is quick
  PRIMARY KEY (kind, relation, name)
)`,
	`CREATE TABLE IF NOT EXISTS synapse_doctor.port_quarantine (
  name text NOT NULL,
  key text NOT NULL,                 -- what tells the row from others, for people; never a secret
  reason text NOT NULL,              -- a sentence
  rowid_ bigint,                     -- in the file; NULL where the target told of it (an orphan)
  hash bigint,                       -- of the row, where it had been stored before
  row jsonb NOT NULL,                -- {"column": ["integer", 12], …, ["blob", "base64"]}
  found timestamptz NOT NULL DEFAULT now()
)`,
	`CREATE INDEX IF NOT EXISTS port_quarantine_name ON synapse_doctor.port_quarantine (name, rowid_)`,
	`CREATE TABLE IF NOT EXISTS synapse_doctor.port_change (
  name text NOT NULL,
  rowid_ bigint NOT NULL,
  key text NOT NULL,
  column_ text NOT NULL,
  change text NOT NULL               -- a sentence: what was stored instead
)`,
	`CREATE INDEX IF NOT EXISTS port_change_name ON synapse_doctor.port_change (name, rowid_)`,
}

// format is that of the tables above; a port that was begun in another is begun anew.
const format = 1

// makeState makes the tables where they are not there.
func makeState(ctx context.Context, conn *pgx.Conn) error {
	return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		for _, s := range stateStatements {
			if _, err := tx.Exec(ctx, s); err != nil {
				return fmt.Errorf("make the tables in which the port keeps its place: %w", err)
			}
		}
		return nil
	})
}
