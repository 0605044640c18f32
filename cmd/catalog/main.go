// Command catalog writes what the schema of a release of Synapse holds into a file of checks/schema/catalog, from where the
// check schema knows it. For a new release it is one command:
//
//	make catalog DSN='host=/var/run/postgresql dbname=fresh user=synapse_user' VERSION=1.161
//
// DSN leads to a PostgreSQL database that this release itself has made, and nothing else has touched: an empty one in UTF8 and
// the locale C, filled by
//
//	update_synapse_database --database-config homeserver.yaml --run-background-updates
//
// Log in as the owner of the tables. The file has a line for each column, index, constraint and trigger, in a fixed order:
// compare it with that of the release before. An index that is new and that a background update makes is entered, with the
// update's name, in checks/schema/updates.go; a table, or a delta, of the state store in checks/schema/store.go. Name the
// release in docs/checks/schema.md. Where the PostgreSQL server is of another major version the same file comes out.
//
// With -base the database holds the full schema that new databases begin with, and nothing of any delta. It is what may be
// expected of a database that is older than every other catalog.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"

	"github.com/jackc/pgx/v5"

	"github.com/synapse-doctor/synapse-doctor/checks/schema"
)

func main() {
	dsn := flag.String("dsn", "", "the database of a fresh schema, as libpq's connection string")
	version := flag.String("version", "", "the release of Synapse that made it: 1.161")
	dir := flag.String("dir", "checks/schema/catalog", "where the file is written")
	base := flag.Bool("base", false, "the database holds the full schema without any delta")
	source := flag.String("source", "", "where the facts were seen; empty: the release on this server")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := write(ctx, *dsn, *version, *dir, *source, *base); err != nil {
		fmt.Fprintln(os.Stderr, "catalog:", err)
		os.Exit(1)
	}
}

var release = regexp.MustCompile(`^[0-9]+\.[0-9]+(\.[0-9]+)?$`)

func write(ctx context.Context, dsn, version, dir, source string, base bool) error {
	if base {
		version = fmt.Sprintf("full schema %d", schema.Base)
	}
	if dsn == "" || !base && !release.MatchString(version) {
		return errors.New("both are needed: make catalog DSN='host=… dbname=…' VERSION=1.161")
	}
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	var c *schema.Catalog
	err = pgx.BeginTxFunc(ctx, conn, pgx.TxOptions{AccessMode: pgx.ReadOnly, IsoLevel: pgx.RepeatableRead}, func(tx pgx.Tx) error {
		c, err = read(ctx, tx, version, source, base)
		return err
	})
	if err != nil {
		return err
	}
	if err := another(c); err != nil {
		return err
	}
	text, err := c.Encode()
	if err != nil {
		return err
	}
	path := filepath.Join(dir, strings.ReplaceAll(version, " ", "-")+".json")
	if err := replace(path, text); err != nil {
		return err
	}
	fmt.Printf("%s: %d tables, %d deltas, %d bytes\n", path, len(c.Tables), len(c.Deltas), len(text))
	known, err := schema.Catalogs()
	if err != nil {
		return err
	}
	for _, h := range hints(c, known[len(known)-1]) {
		fmt.Println(h)
	}
	return nil
}

// replace writes a file as a whole, or not at all.
func replace(path string, text []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".*.json.part")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // nothing, once it has its name
	_, err = f.Write(text)
	if err := errors.Join(err, f.Chmod(0o644), f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// another refuses a schema that is known already under the name of another release: not each of them changes it.
func another(c *schema.Catalog) error {
	known, err := schema.Catalogs()
	if err != nil {
		return err
	}
	for _, k := range known {
		if k.Synapse != c.Synapse && slices.Equal(k.Deltas, c.Deltas) {
			return fmt.Errorf("the schema of %s went through the same as that of %s, which is known: no file is needed", c.Synapse, k.Synapse)
		}
	}
	return nil
}

// hints name the tables and indexes in which a schema differs from the newest catalog that this program was built with, and
// what has to be seen to by hand.
func hints(c, newest *schema.Catalog) (out []string) {
	before := map[string]bool{}
	for _, t := range newest.Tables {
		for _, i := range t.Indexes {
			before[i.Name] = true
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.Tables)) {
		if newest.Tables[name] == nil {
			out = append(out, fmt.Sprintf("new: the table %s. Is it of the state store? See checks/schema/store.go", name))
		}
		for _, i := range c.Tables[name].Indexes {
			if !before[i.Name] {
				out = append(out, fmt.Sprintf("new: the index %s of %s. Does a background update make it, under another name? See "+
					"checks/schema/updates.go", i.Name, name))
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(newest.Tables)) {
		if c.Tables[name] == nil {
			out = append(out, fmt.Sprintf("vanished: the table %s. Do upgrades leave it where it was? See formerTables in "+
				"checks/schema/updates.go", name))
		}
	}
	return out
}

func read(ctx context.Context, tx pgx.Tx, version, source string, base bool) (*schema.Catalog, error) {
	c, err := schema.Read(ctx, tx, nil, nil)
	if err != nil {
		return nil, err
	}
	if source == "" {
		var server string
		if err := tx.QueryRow(ctx, "SELECT split_part(current_setting('server_version'), ' ', 1)").Scan(&server); err != nil {
			return nil, err
		}
		source = fmt.Sprintf("a schema that Synapse %s made on PostgreSQL %s", version, server)
	}
	if err := clean(c); err != nil {
		return nil, err
	}
	c.Synapse, c.Source, c.Schema = version, source, schema.Base
	if base {
		return c, nil
	}
	if c.Schema, c.Deltas, err = schema.ReadState(ctx, tx); err != nil {
		return nil, err
	}
	return c, fresh(ctx, tx, c)
}

// clean refuses a schema with tables that are there for a while only.
func clean(c *schema.Catalog) error {
	for _, name := range slices.Sorted(maps.Keys(c.Tables)) {
		if schema.Passing(name) {
			return fmt.Errorf("the table %s is none of the schema: something was begun in this database and not finished; make a fresh one", name)
		}
	}
	return nil
}

// fresh refuses a schema that is not what a release makes.
func fresh(ctx context.Context, tx pgx.Tx, c *schema.Catalog) error {
	var queued, users int
	if err := tx.QueryRow(ctx, "SELECT (SELECT count(*) FROM background_updates), (SELECT count(*) FROM (SELECT FROM users LIMIT 1) u)").Scan(&queued, &users); err != nil {
		return err
	}
	switch {
	case queued > 0:
		return fmt.Errorf("%d background updates are queued: run update_synapse_database with --run-background-updates first", queued)
	case users > 0:
		return errors.New("the database has users: a fresh schema is needed, which nobody has changed")
	}
	for name, t := range c.Tables {
		for _, i := range t.Indexes {
			if i.Invalid || i.NotReady {
				return fmt.Errorf("the index %s of %s is not valid", i.Name, name)
			}
		}
	}
	return nil
}
