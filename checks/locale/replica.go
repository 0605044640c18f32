package locale

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
)

// replica is what was seen of a server that --replica names.
type replica struct {
	server
	name string          // its address
	row  *dbRow          // of the primary's database; nil when it has none of that name
	used []usedCollation // only read in a session in that database
}

// compareReplicas compares each replica with its primary, and mentions the standbys that nobody named. A replica that
// can't be looked at is an error.
func compareReplicas(ctx context.Context, t *doctor.Target, seen []*catalog, r doctor.Reporter) error {
	if len(seen) == 0 {
		if len(t.Replicas) > 0 {
			return errors.New("no replica was compared, since the primary could not be looked at")
		}
		return nil
	}
	main := seen[0]
	for _, c := range seen {
		if c.db == t.Main() {
			main = c
		}
	}
	var errs []error
	var named []*replica
	unseen := 0
	for _, d := range t.Replicas {
		x := &replica{name: addressOf(d)}
		primary, err := x.look(ctx, d, main, seen)
		if err != nil {
			errs = append(errs, fmt.Errorf("the replica %s was not compared: %w", x.name, err))
			unseen++
			continue
		}
		named = append(named, x)
		if f, differs := x.compare(primary); differs {
			f.Database = primary.db.Label
			r.Find(f)
		}
	}
	for i, c := range seen {
		if onServerOf(seen[:i], c) {
			continue
		}
		f, found, err := c.unnamedStandbys(ctx, t, named, unseen)
		if err != nil {
			errs = append(errs, fmt.Errorf("database %s: %w", c.db.Label, err))
		}
		if found {
			f.Database = c.db.Label
			r.Find(f)
		}
	}
	return errors.Join(errs...)
}

// addressOf is host:port as it was given.
func addressOf(d *doctor.Database) string {
	host := d.Settings["host"]
	if host == "" {
		host = d.Settings["hostaddr"]
	}
	if strings.HasPrefix(host, "/") {
		return host + ":" + d.Settings["port"]
	}
	return net.JoinHostPort(host, d.Settings["port"])
}

// look reads the replica, and tells which of the databases seen is its primary's: one on the server with the same
// system identifier, the main one first.
func (x *replica) look(ctx context.Context, d *doctor.Database, main *catalog, seen []*catalog) (*catalog, error) {
	primary := main
	err := d.Read(ctx, func(tx pgx.Tx) (err error) {
		if x.server, err = readServer(ctx, tx); err != nil {
			return err
		}
		if x.SystemID != "" && x.SystemID != main.SystemID {
			if i := slices.IndexFunc(seen, func(c *catalog) bool { return c.SystemID == x.SystemID }); i >= 0 {
				primary = seen[i]
			}
		}
		rows, err := readDatabases(ctx, tx, x.Version, primary.own.Name)
		if err != nil {
			return err
		}
		if len(rows) > 0 {
			x.row = &rows[0]
		}
		if x.Database == primary.own.Name {
			x.used, err = usedCollations(ctx, tx)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return primary, nil
}

// usedCollation is a named collation that is the order of an index, and the version that this server's library has of it.
type usedCollation struct {
	OID    uint32
	Name   string
	Actual string
}

const usedQuery = `SELECT l.oid, l.collname::text, v.actual FROM pg_collation l, LATERAL pg_collation_actual_version(l.oid) AS v(actual)
WHERE l.collprovider IN ('c', 'i', 'b') AND v.actual IS NOT NULL AND l.oid IN (
  SELECT c.coll FROM pg_index i, unnest(i.indcollation::oid[]) AS c(coll)
  UNION SELECT d.refobjid FROM pg_depend d JOIN pg_index i ON i.indexrelid = d.objid
    WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_collation'::regclass)
ORDER BY 1`

func usedCollations(ctx context.Context, tx pgx.Tx) ([]usedCollation, error) {
	rows, err := tx.Query(ctx, usedQuery)
	if err != nil {
		return nil, fmt.Errorf("read the versions of the named collations that indexes use: %w", err)
	}
	found, err := pgx.CollectRows(rows, pgx.RowToStructByPos[usedCollation])
	if err != nil {
		return nil, fmt.Errorf("read the versions of the named collations that indexes use: %w", err)
	}
	return found, nil
}

// compare judges the replica against its primary. Everything in the catalog is a copy on a standby; what can differ is the
// library that compares.
func (x *replica) compare(primary *catalog) (doctor.Finding, bool) {
	f := doctor.Finding{
		Code: ReplicaDiffers, Severity: doctor.Warning, Object: doctor.Object{Kind: "replica", Name: x.name},
		Expected: "a standby of the primary, that compares text as the primary does: " + primary.own.comparesBy(),
		Evidence: map[string]string{"the primary's server": primary.Software, "the replica's server": x.Software},
	}
	if x.SystemID != "" && primary.SystemID != "" {
		f.Evidence["system identifier"] = primary.SystemID
		if x.SystemID != primary.SystemID {
			f.Evidence["system identifier"] += ", the replica's " + x.SystemID
		}
	}
	itself := x.Started == primary.Started && x.SystemID == primary.SystemID && !x.Standby
	other := x.SystemID != "" && primary.SystemID != "" && x.SystemID != primary.SystemID
	var differences []string
	switch {
	case itself:
		f.Summary = fmt.Sprintf("What --replica names, %s, is the primary itself: no replica was compared.", x.name)
		f.Observed = "the primary's own server process"
		f.Remedy = "Give --replica the address of the standby, not one that leads to the primary, such as that of a load balancer."
		return f, true
	case other:
		differences = append(differences, "another system identifier: it is not a copy of the primary's server")
	}
	if !x.Standby {
		differences = append(differences, "pg_is_in_recovery() is false: it follows nobody")
	}
	switch {
	case x.row == nil:
		differences = append(differences, "no database "+primary.own.Name)
	default:
		differences = append(differences, x.row.differences(primary.own, primary.Version)...)
	}
	if !other {
		differences = append(differences, x.otherVersions(primary)...)
	}
	if len(differences) == 0 {
		return f, false
	}
	f.Observed = strings.Join(differences, "; ")
	f.Summary = fmt.Sprintf("The replica %s compares text in another way than the primary: it does not find keys that exist, and once it is promoted it stores them again.", x.name)
	f.Remedy = "Give the standby's machine or image the same operating system release and the same PostgreSQL packages as the primary's, and make the standby anew from a base backup. " +
		"Do not promote it before. A database in C by libc does not depend on the system at all (synapse-doctor check locale)."
	if !x.Standby || other {
		f.Summary = fmt.Sprintf("The server %s is no standby of the primary: %s.", x.name, strings.Join(differences, "; "))
		f.Remedy = "If it was promoted while the primary still runs, there are two primaries: make certain that Synapse uses only one, and make the other anew from a base backup. " +
			"If it is the target of logical replication, or another server altogether, it is not a replica that Synapse could fail over to: give --replica only standbys."
	}
	return f, true
}

// comparesBy is the row with the version of the library.
func (r dbRow) comparesBy() string {
	if r.Actual == nil {
		return r.String()
	}
	return r.String() + ", version " + *r.Actual
}

// differences says how the database's row on a replica differs from the primary's. A version that is not known is not another
// one, except where one library tells it and the other does not: glibc and musl, since PostgreSQL 15.
func (r dbRow) differences(primary dbRow, version int) []string {
	var found []string
	if r.String() != primary.String() {
		found = append(found, r.String())
	}
	switch {
	case r.bytewise() && primary.bytewise():
	case r.Actual != nil && primary.Actual != nil && *r.Actual != *primary.Actual,
		r.Provider == "c" && version >= 150000 && (r.Actual == nil) != (primary.Actual == nil) && r.String() == primary.String():
		found = append(found, fmt.Sprintf("collation version %s, and %s on the primary", versionText(r.Actual), versionText(primary.Actual)))
	}
	return found
}

// otherVersions compares the libraries behind named collations that indexes use. A standby has the OIDs of its primary.
func (x *replica) otherVersions(primary *catalog) []string {
	var found []string
	for _, l := range x.used {
		for _, p := range primary.used {
			if p.OID == l.OID && p.Actual != l.Actual {
				found = append(found, fmt.Sprintf("version %s of the collation %s, and %s on the primary", l.Actual, l.Name, p.Actual))
			}
		}
	}
	return found
}

// standby is one that follows this server.
type standby struct {
	PID     int32
	Name    string // application_name
	Address string // empty through a socket
	Hidden  bool   // this role may see only that it is there
}

// standbysQuery lists who streams the server's log: not what a base backup or an archiver reads, nor subscribers of logical
// replication. A plain role sees only that somebody does.
const standbysQuery = `SELECT r.pid, coalesce(r.application_name, ''), coalesce(host(r.client_addr), ''), r.state IS NULL FROM pg_stat_replication r
WHERE coalesce(r.state, 'streaming') IN ('startup', 'catchup', 'streaming')
  AND coalesce(r.application_name, '') NOT IN ('pg_basebackup', 'pg_receivewal', 'barman_receive_wal')
  AND NOT EXISTS (SELECT FROM pg_replication_slots s WHERE s.active_pid = r.pid AND s.slot_type = 'logical')
ORDER BY 2, 3, 1`

// unnamedStandbys mentions standbys that stream from the server and that no --replica names. A named one is known by the
// address that it sees itself; behind a socket or a translation of addresses it is one of those that are left.
func (c *catalog) unnamedStandbys(ctx context.Context, t *doctor.Target, named []*replica, unseen int) (f doctor.Finding, found bool, err error) {
	from := c.db
	if admin := t.AdminIn(c.db); admin != nil {
		from = admin
	}
	var standbys []standby
	err = from.Read(ctx, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, standbysQuery)
		if err != nil {
			return err
		}
		standbys, err = pgx.CollectRows(rows, pgx.RowToStructByPos[standby])
		return err
	})
	if err != nil {
		return f, false, fmt.Errorf("list the standbys that stream from the server: %w", err)
	}
	unplaced := unseen // named replicas of which it is not known which of the standbys they are
	for _, x := range named {
		if !x.Standby || x.SystemID != c.SystemID {
			continue
		}
		i := slices.IndexFunc(standbys, func(s standby) bool { return s.Address != "" && s.Address == x.Address })
		if i < 0 {
			unplaced++
			continue
		}
		standbys = slices.Delete(standbys, i, i+1)
	}
	n := len(standbys) - unplaced
	if n <= 0 {
		return f, false, nil
	}
	return c.notCompared(standbys, n, unplaced), true, nil
}

func (c *catalog) notCompared(standbys []standby, n, unplaced int) doctor.Finding {
	standbyText := fmt.Sprintf("%d standbys stream", n)
	if n == 1 {
		standbyText = "A standby streams"
	}
	f := doctor.Finding{
		Code: ReplicaNotCompared, Severity: doctor.Info, Object: c.object(),
		Summary:  standbyText + " from this server and was not compared: on another system or image its text may have another order.",
		Observed: fmt.Sprintf("%d not compared", n), Expected: "each standby named with --replica",
		Evidence: map[string]string{},
		Remedy:   "Name it, with a role that may log in there:\n\n    synapse-doctor check locale --replica 'host=STANDBY port=5432 user=ROLE dbname=" + c.own.Name + "'",
	}
	if n > 1 {
		f.Summary = standbyText + " from this server and were not compared: on another system or image their text may have another order."
	}
	if c.own.sound() {
		f.Remedy += "\n\nThere is no hurry: this database is in C by libc, whose order is the same on every system."
	}
	var hidden int
	var texts []string
	for _, s := range standbys {
		switch {
		case s.Hidden:
			hidden++
		case s.Address == "":
			texts = append(texts, s.Name+" through a socket")
		default:
			texts = append(texts, s.Name+" at "+s.Address)
		}
	}
	if len(texts) > 0 {
		f.Evidence["standbys"] = someOf(texts)
	}
	if hidden > 0 {
		f.Evidence["standbys whose names this role may not see"] = fmt.Sprint(hidden)
		f.Remedy += "\n\nWhere it is, an administrator sees:\n\n    SELECT application_name, client_addr, state FROM pg_stat_replication;"
	}
	if unplaced > 0 {
		f.Evidence["replicas named"] = fmt.Sprintf("%d, which may be any of these", unplaced)
	}
	return f
}
