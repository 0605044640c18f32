package schema

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
)

// wanted is what a database is compared with.
type wanted struct {
	*Catalog
	Exact bool   // it is what this very release makes; else what the releases before and after it have in common
	Label string // Synapse 1.160
	// Newer says why nothing is told of what is missing: the database is newer than every known release, and may have dropped it.
	Newer string
	// Unnoted are deltas that every database of this version went through and that are not in applied_schema_deltas.
	Unnoted []string
}

// release finds out which catalogs a database is to be compared with, by the deltas that it went through: schema_version
// alone does not tell, since 1.157 and 1.160 both say 94.
//
// Synapse adds a delta in the directory of its newest version or above, never below, so that a database at version 94 went
// through every delta of 73 to 93, noted or not, and one more that is unknown there is of a release candidate, or was
// removed later: nothing that the comparison needs. A delta that is unknown at the newest version, or above it, is
// another matter: it may have changed anything.
//
// Between two known releases a database has at least what both of them have. Below the oldest of them is the full schema.
func release(l *live, known []*Catalog) (wanted, error) {
	newest := known[len(known)-1]
	if l.Schema < Base {
		return wanted{}, doctor.Skip("the schema is at version %d, from before Synapse 1.62: what it ought to hold is known from "+
			"version %d on", l.Schema, Base)
	}
	if missing := unfinished(l); len(missing) > 0 {
		return wanted{}, doctor.Skip("the schema is on its way to version %d, as releases of Synapse from 1.62 on left it: it has not gone "+
			"through %s yet, and what it ought to hold is known from then on", Base, few(missing, 5))
	}
	var unknown []string
	for _, d := range l.Deltas {
		// A database of state groups that was made as a copy of the whole one has the notes of both.
		if !slices.Contains(newest.both().Deltas, d) && versionOf(d) >= newest.Schema {
			unknown = append(unknown, d)
		}
	}
	if l.Schema > newest.Schema || len(unknown) > 0 {
		return wanted{Catalog: newest, Label: name(newest), Newer: newer(l, known, unknown)}, nil
	}
	has := map[string]bool{}
	for _, d := range l.Deltas {
		has[d] = true
	}
	var unnoted []string
	for _, d := range newest.Deltas {
		if versionOf(d) < l.Schema && !has[d] {
			unnoted = append(unnoted, d)
			has[d] = true
		}
	}
	if len(l.Deltas) == 0 && len(unnoted) > 0 {
		return wanted{}, doctor.Skip("applied_schema_deltas has no note of what the schema at version %d went through, so that it "+
			"can't be told which Synapse made it", l.Schema)
	}
	w := wanted{Unnoted: unnoted}
	var below, above *Catalog
	for _, c := range known {
		switch missing := without(c.Deltas, has); {
		case len(missing) > 0 && above == nil:
			above = c
		case len(missing) == 0:
			below, above = c, nil
		}
	}
	if below == nil {
		return wanted{}, fmt.Errorf("the schema is at version %d, and none of the known ones is as old", l.Schema)
	}
	beyond := 0
	for _, d := range newest.Deltas {
		if has[d] && !slices.Contains(below.Deltas, d) {
			beyond++
		}
	}
	if beyond == 0 {
		w.Catalog, w.Exact, w.Label = below, true, name(below)
		return w, nil
	}
	w.Catalog = common(below, above)
	w.Label = fmt.Sprintf("what %s and %s have in common", name(below), name(above))
	return w, nil
}

// lastSteps are the last deltas of the version [Base], some of which releases from 1.62 on did not have yet. A database that
// the full schema made has a note of none (seen in Synapse 1.157.1).
var lastSteps = []string{
	"72/07force_update_current_state_events_membership.py", "72/07thread_receipts.sql.postgres",
	"72/08begin_cache_invalidation_seq_at_2.sql.postgres", "72/08thread_receipts.sql",
}

// unfinished are the deltas that a database of the version [Base] has not gone through, though it has through others of it. They
// add columns that the full schema has: to add these by hand would be in the way of the deltas.
func unfinished(l *live) []string {
	if l.Schema != Base || len(l.Steps) == 0 {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(lastSteps), func(d string) bool { return slices.Contains(l.Steps, d) })
}

func name(c *Catalog) string {
	if strings.HasPrefix(c.Synapse, "full") {
		return "Synapse's " + c.Synapse
	}
	return "Synapse " + c.Synapse + "'s schema" // later releases may have the same
}

// newer says why a database can't be compared.
func newer(l *live, known []*Catalog, unknown []string) string {
	var names []string
	for _, c := range known {
		names = append(names, c.Synapse)
	}
	text := fmt.Sprintf("the schema is at version %d and newer than any that this doctor knows (%s)", l.Schema, strings.Join(names, ", "))
	if len(unknown) > 0 {
		text += ": it went through " + few(unknown, 5)
	}
	return text + ". Get a newer synapse-doctor"
}

// lacking adds what a newer database lacks of the newest known release: no more than a hint.
func (w wanted) lacking(losses []loss) string {
	if len(losses) == 0 {
		return w.Newer + fmt.Sprintf(". Of what %s has, nothing is missing", w.Label)
	}
	var names []string
	for _, l := range losses {
		names = append(names, l.object.Kind+" "+l.object.Name)
	}
	return w.Newer + fmt.Sprintf(". It differs from %s in %s; the newer release may have changed that", w.Label, few(names, 8))
}

func versionOf(delta string) int {
	dir, _, _ := strings.Cut(delta, "/")
	n, err := strconv.Atoi(dir)
	if err != nil {
		return 0
	}
	return n
}

func without(deltas []string, has map[string]bool) []string {
	return slices.DeleteFunc(slices.Clone(deltas), func(d string) bool { return has[d] })
}

// few names the first of a list, and how many more there are.
func few(list []string, most int) string {
	if len(list) <= most {
		return strings.Join(list, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(list[:most], ", "), len(list)-most)
}

// common is what two catalogs agree on.
func common(a, b *Catalog) *Catalog {
	out := &Catalog{Schema: a.Schema, Tables: map[string]*Table{}, Sequences: map[string]Sequence{}, Functions: map[string]string{}}
	for name, t := range a.Tables {
		if u := b.Tables[name]; u != nil {
			out.Tables[name] = commonTable(t, u)
		}
	}
	for name, s := range a.Sequences {
		if other, ok := b.Sequences[name]; ok {
			if other != s {
				s = Sequence{}
			}
			out.Sequences[name] = s
		}
	}
	for name, hash := range a.Functions {
		if b.Functions[name] == hash {
			out.Functions[name] = hash
		}
	}
	return out
}

func commonTable(a, b *Table) *Table {
	// A table that one of them has unlogged may be so here.
	out := &Table{Unlogged: a.Unlogged || b.Unlogged}
	for _, c := range a.Columns {
		i := slices.IndexFunc(b.Columns, func(d Column) bool { return d.Name == c.Name })
		if i < 0 {
			continue
		}
		d := b.Columns[i]
		c.NotNull = c.NotNull && d.NotNull
		if c.Type != d.Type {
			c.Type = ""
		}
		if c.Default != d.Default {
			c.Default = ""
		}
		if c.Identity != d.Identity {
			c.Identity = ""
		}
		if c.NDistinct != d.NDistinct {
			c.NDistinct = ""
		}
		out.Columns = append(out.Columns, c)
	}
	for _, i := range a.Indexes {
		if slices.ContainsFunc(b.Indexes, func(j Index) bool { return j.Def == i.Def && j.Unique == i.Unique }) {
			out.Indexes = append(out.Indexes, i)
		}
	}
	for _, k := range a.Constraints {
		j := slices.IndexFunc(b.Constraints, func(o Constraint) bool { return o.Def == k.Def })
		if j >= 0 {
			k.NotValid = k.NotValid || b.Constraints[j].NotValid
			out.Constraints = append(out.Constraints, k)
		}
	}
	for _, g := range a.Triggers {
		if slices.ContainsFunc(b.Triggers, func(h Trigger) bool { return h.Def == g.Def && h.Function == g.Function }) {
			out.Triggers = append(out.Triggers, g)
		}
	}
	return out
}
