package rebuild

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
)

// compare makes sure that the new database has everything that the old one has, and records what it holds.
func (f *filling) compare(ctx context.Context) error {
	f.say("compare the two databases")
	conn, err := f.session(ctx, f.p.fresh)
	if err != nil {
		return err
	}
	defer closeConn(conn)
	made := content{tables: map[string]sum{}}
	old := content{}
	if old.objects, err = definitions(ctx, f.old); err != nil {
		return err
	}
	if made.objects, err = definitions(ctx, conn); err != nil {
		return err
	}
	if difference := firstDifferences(old.objects, made.objects); difference != "" {
		return mismatch("the new database is not defined as the old one: %s", difference)
	}
	if old.sequences, err = sequences(ctx, f.old); err != nil {
		return err
	}
	if made.sequences, err = sequences(ctx, conn); err != nil {
		return err
	}
	if !maps.Equal(old.sequences, made.sequences) {
		return mismatch("the sequences of the new database do not stand where those of the old one do")
	}
	maps.Copy(made.tables, f.sums)
	if err := f.addUpChanged(ctx, conn, made.tables); err != nil {
		return err
	}
	if err := f.writeMarker(ctx, conn, f.sums, made); err != nil {
		return err
	}
	f.w.point("compared")
	return nil
}

// addUpChanged adds up what is not what the old database has: with new vectors, or read otherwise there.
func (f *filling) addUpChanged(ctx context.Context, conn *pgx.Conn, made map[string]sum) error {
	for _, t := range f.tables {
		_, renewed := f.vectors[t.qualified()]
		if !renewed && f.reads[1].utf8 == "" {
			continue
		}
		s, err := reading{}.sumOf(ctx, conn, t)
		if err != nil {
			return err
		}
		made[t.qualified()] = s
	}
	return nil
}

// firstDifferences names up to five things that are there only once, or defined otherwise; empty: all is the same.
func firstDifferences(old, made map[string]string) string {
	var found []string
	for _, name := range slices.Sorted(maps.Keys(old)) {
		text, there := made[name]
		switch {
		case !there:
			found = append(found, "the "+name+" is not there")
		case text != old[name]:
			found = append(found, fmt.Sprintf("the %s is (%s) instead of (%s)", name, text, old[name]))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(made)) {
		if _, there := old[name]; !there {
			found = append(found, "the "+name+" is new")
		}
	}
	if len(found) > 5 {
		found = append(found[:5], fmt.Sprintf("and %d more", len(found)-5))
	}
	return strings.Join(found, "; ")
}

// stillSame reports whether the old database still holds what the complete new one was filled from. The database is shut
// meanwhile, but not to superusers.
func (k *task) stillSame(ctx context.Context) (bool, error) {
	k.say(doctor.Progress{Text: "see that the old database has not changed"})
	source, err := readFacts(ctx, k.main, k.p.database)
	if err != nil {
		return false, err
	}
	fresh, err := k.session(ctx, k.p.fresh)
	if err != nil {
		return false, err
	}
	defer closeConn(fresh)
	ours, err := k.hasMarker(ctx, fresh)
	if err != nil || !ours {
		return false, err
	}
	m, err := readMarker(ctx, fresh)
	if err != nil {
		return false, err
	}
	old, err := k.session(ctx, k.p.database)
	if err != nil {
		return false, err
	}
	defer closeConn(old)
	read, _ := k.p.readings(source)
	read.without = k.left
	tables, err := listTables(ctx, old)
	if err != nil {
		return false, err
	}
	if !source.sameCtype() {
		read.skip = map[string]string{}
		for name := range vectorsOf(tables) {
			read.skip[name] = "vector"
		}
	}
	now, err := k.addUp(ctx, k.p.database, read, tables)
	if err != nil {
		return false, err
	}
	if len(now) != len(m.source) {
		return false, nil
	}
	for name, s := range now {
		if m.source[name] != s.String() {
			return false, nil
		}
	}
	stand, err := sequences(ctx, old)
	if err != nil {
		return false, err
	}
	for name, s := range stand {
		if m.made["sequence "+name] != s.String() {
			return false, nil
		}
	}
	return true, nil
}

// addUp adds up all tables of a database.
func (k *task) addUp(ctx context.Context, database string, read reading, tables []table) (map[string]sum, error) {
	next := queue(tables)
	results := make(chan map[string]sum, workers)
	err := inParallel(ctx, workers, func(ctx context.Context, _ int) error {
		conn, err := k.session(ctx, database)
		if err != nil {
			return err
		}
		defer closeConn(conn)
		sums := map[string]sum{}
		for t, ok := next(); ok; t, ok = next() {
			if sums[t.qualified()], err = read.sumOf(ctx, conn, t); err != nil {
				return err
			}
		}
		results <- sums
		return nil
	})
	if err != nil {
		return nil, err
	}
	all := map[string]sum{}
	for range workers {
		maps.Copy(all, <-results)
	}
	return all, nil
}

// final reports whether an error will be there again: the server refused the data or the statement, a program did, or the
// two databases differ.
func final(err error) bool {
	if _, ok := errors.AsType[*programError](err); ok {
		return true
	}
	if _, ok := errors.AsType[*mismatchError](err); ok {
		return true
	}
	if _, ok := errors.AsType[*doctor.UnchangedError](err); ok {
		return true
	}
	state := sqlState(err)
	if len(state) != 5 {
		return false
	}
	return !slices.Contains([]string{"08", "40", "55", "57", "58"}, state[:2])
}
