package schema

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
)

// mend is what the doctor can do about a loss: an index is built, or a column's n_distinct is set.
type mend struct {
	Kind   mendKind
	Place  place
	Index  Index
	Drop   bool   // one of this name that is not valid goes first
	Column string // and its n_distinct
	Value  string
}

type mendKind int

const (
	mendIndex mendKind = iota
	mendOption
)

func (m *mend) setOption() string {
	return fmt.Sprintf("ALTER TABLE %s ALTER COLUMN %s SET (n_distinct = %s)", m.Place.sql(), ident(m.Column), m.Value)
}

func (m *mend) resetOption() string {
	return fmt.Sprintf("ALTER TABLE %s ALTER COLUMN %s RESET (n_distinct)", m.Place.sql(), ident(m.Column))
}

func (m *mend) analyze() string {
	return fmt.Sprintf("ANALYZE %s (%s)", m.Place.sql(), ident(m.Column))
}

// statements are what makes the index, in order.
func (m *mend) statements() []string {
	var out []string
	if q := duplicates(m.Place.sql(), m.Index); q != "" {
		out = append(out, q)
	}
	if m.Drop {
		out = append(out, "DROP INDEX CONCURRENTLY "+ident(m.Place.Schema, m.Index.Name))
	}
	return append(out, createIndex(m.Place, m.Index))
}

// byHand says how a person makes the index.
func (m *mend) byHand() string {
	var b strings.Builder
	b.WriteString("By hand, as the table's owner, outside a transaction; Synapse may stay up. Nobody waits for it, and it reads the table twice")
	if m.Index.Unique {
		b.WriteString(", and once more to see whether a key is there twice; the first statement has to say 0")
	}
	b.WriteString(". Begin when nobody builds an index of the table, since a build fails when another statement queues behind it (SELECT " +
		"* FROM pg_stat_progress_create_index):\n")
	for _, s := range m.statements() {
		b.WriteString("\n    " + s + ";")
	}
	b.WriteString("\n\nWhen the last statement fails it leaves an index that is not valid; drop that before you try again:\n\n   " +
		" DROP INDEX CONCURRENTLY " +
		ident(m.Place.Schema, m.Index.Name) + ";")
	if m.Index.Unique {
		b.WriteString("\n\nWhere a key is there twice, decide about the rows first. synapse-doctor check locale --deep shows them " +
			"when an index in a wrong order was the cause.")
	}
	if m.Index.Constraint == "p" {
		b.WriteString("\n\n" + m.primaryKey())
	}
	return b.String()
}

// primaryKey says how the unique index becomes the primary key again.
func (m *mend) primaryKey() string {
	text := "For Synapse a unique index does what the primary key did. To have that back, under a lock that everybody waits for; it is " +
		"short, since no row is read. "
	var empty []string
	for _, c := range m.Place.Columns {
		if !c.NotNull && mentions(keys(m.Index.Def), c.Name) {
			empty = append(empty, c.Name)
		}
	}
	if len(empty) > 0 {
		text = fmt.Sprintf("For Synapse a unique index does what the primary key did. To have that back takes a lock that everybody waits "+
			"for, and reads the whole table under it, since NOT NULL is lost: %s. It fails where a row has no value. On a large table, "+
			"stop Synapse first. ", strings.Join(empty, ", "))
	}
	return text + byHand(fmt.Sprintf("ALTER TABLE %s ADD CONSTRAINT %s PRIMARY KEY USING INDEX %[2]s", m.Place.sql(), ident(m.Index.Name)))
}

func (m *mend) evidence() map[string]string {
	rows := "not known: the table was never analyzed"
	if m.Place.Rows >= 0 {
		rows = fmt.Sprint(m.Place.Rows)
	}
	disk := "not known; half of the table is made sure of"
	if m.disk() > 0 {
		disk = size(m.disk())
	}
	return map[string]string{"rows of the table, estimated": rows, "disk for it, estimated": disk}
}

// disk is a guess: an entry has 16 bytes and its keys, and what is sorted takes the same once more while it is built.
func (m *mend) disk() int64 {
	return 2 * max(m.Place.Rows, 0) * int64(16+24*(1+strings.Count(keys(m.Index.Def), ",")))
}

// duration is a guess too: a million entries in three seconds.
func (m *mend) duration() time.Duration {
	return time.Duration(max(m.Place.Rows, 0)) * 3 * time.Microsecond
}

func size(n int64) string {
	switch {
	case n >= 1<<30:
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	case n >= 1<<20:
		return fmt.Sprintf("%d MiB", n>>20)
	}
	return "less than 1 MiB"
}

// duplicates is the query that counts keys which are there twice; empty for an index that allows it, or whose keys are not
// mere columns. NULL is never the same as another NULL.
func duplicates(table string, w Index) string {
	if !w.Unique {
		return ""
	}
	inner := strings.TrimSuffix(strings.TrimPrefix(keys(w.Def), "("), ")")
	var there []string
	for _, column := range strings.Split(inner, ", ") {
		if !plain.MatchString(strings.Trim(column, `"`)) {
			return ""
		}
		there = append(there, column+" IS NOT NULL")
	}
	if _, where, found := strings.Cut(w.Def, " WHERE "); found {
		there = append(there, where)
	}
	return fmt.Sprintf("SELECT count(*) FROM (SELECT FROM %s WHERE %s GROUP BY %s HAVING count(*) > 1 LIMIT 1000) "+
		"twice", table, strings.Join(there, " AND "), inner)
}

// maxUnique bounds the plans for unique indexes, of which each has one of its own: where a key is there twice, that one is
// refused, and the others are built.
const maxUnique = 40

func (e examiner) plan(ctx context.Context, t *doctor.Target, findings []doctor.Finding) ([]doctor.Plan, error) {
	var plans []doctor.Plan
	for _, db := range t.Meeting(doctor.NeedsSynapse) {
		asked := map[doctor.Object]doctor.FindingKey{}
		for _, f := range findings {
			if f.Database == db.Label && f.Fixable {
				asked[f.Object] = f.Key()
			}
		}
		if len(asked) == 0 {
			continue
		}
		have, want, err := e.look(ctx, db)
		if err != nil {
			return nil, fmt.Errorf("database %s: %w", db.Label, err)
		}
		if want.Newer != "" {
			continue
		}
		w := work{t: t, db: db, have: have}
		for _, l := range compare(have, want) {
			if key, is := asked[l.object]; is && l.mend != nil && key.Code == l.code {
				w.take(l, key)
			}
		}
		plans = append(plans, w.plans()...)
	}
	return plans, nil
}

// work is what is to be done in one database, by the login that can.
type work struct {
	t                        *doctor.Target
	db                       *doctor.Database
	have                     *live
	options, indexes, unique []task
	byHand                   []task // of tables that belong to another role, without an administrator's connection
}

type task struct {
	*mend
	covers doctor.FindingKey
	admin  bool
}

func (w *work) take(l loss, key doctor.FindingKey) {
	k := task{l.mend, key, false}
	if !k.Place.Mine {
		k.admin = w.t.AdminIn(w.db) != nil
	}
	switch {
	case !k.Place.Mine && !k.admin:
		w.byHand = append(w.byHand, k)
	case k.Kind == mendOption:
		w.options = append(w.options, k)
	case k.Index.Unique:
		w.unique = append(w.unique, k)
	default:
		w.indexes = append(w.indexes, k)
	}
}

func (w *work) plans() []doctor.Plan {
	var plans []doctor.Plan
	if len(w.options) > 0 {
		plans = append(plans, w.setOptions())
	}
	if len(w.indexes) > 0 {
		title := fmt.Sprintf("Build %s", count(len(w.indexes), "index"))
		if len(w.indexes) == 1 {
			title = fmt.Sprintf("Build the index %s of %s", w.indexes[0].Index.Name, w.indexes[0].Place.Name)
		}
		plans = append(plans, w.build("build-indexes", title, w.indexes))
	}
	for _, k := range w.unique[:min(len(w.unique), maxUnique)] {
		plans = append(plans, w.build("build-"+k.Index.Name, fmt.Sprintf("Build the unique index %s of %s, if no key is there "+
			"twice", k.Index.Name, k.Place.Name), []task{k}))
	}
	if len(w.byHand) > 0 {
		plans = append(plans, w.byOwner())
	}
	return plans
}

func (w *work) base(what, title string, tasks []task) doctor.Plan {
	id := "schema/" + what
	if w.db.Label != "main" {
		id += "-" + w.db.Label
	}
	p := doctor.Plan{ID: id, Title: title, Risk: doctor.Safe, Expects: doctor.ExpectSynapse, Database: w.db.Label, Reversible: true}
	for _, k := range tasks {
		p.Covers = append(p.Covers, k.covers)
	}
	if slices.ContainsFunc(tasks, func(k task) bool { return k.admin }) {
		p.Requires = []doctor.Requirement{doctor.RequireAdmin}
	}
	return p
}

func (w *work) build(what, title string, tasks []task) doctor.Plan {
	p := w.base(what, title, tasks)
	p.Resumes = true
	for _, k := range tasks {
		p.Duration += k.duration()
		p.DiskBytes = max(p.DiskBytes, k.disk()) // what is sorted goes before the next begins
		p.Steps = append(p.Steps, doctor.Step{
			Title: fmt.Sprintf("Build %s on %s; Synapse may stay up, and nobody waits for it", k.Index.Name, k.Place.Name),
			Operation: &doctor.OperationStep{
				Name: opBuild, Undo: opDrop, Params: params(w.db.Label, k), Statements: k.statements(),
				Effects: doctor.Effects{Databases: []string{w.db.Settings["dbname"]}, Tables: []string{k.Place.Name}},
				Resumes: "Interrupted at any moment, by the next run: what was built in part is dropped, and built anew. If it fails, " +
					"what it leaves is dropped at once.",
			},
		})
	}
	return p
}

// setOptions changes what the next ANALYZE notes; nobody waits for the lock but another ANALYZE, a VACUUM or a change of the
// table.
func (w *work) setOptions() doctor.Plan {
	what := w.options[0].Place.Name + "." + w.options[0].Column
	if len(w.options) > 1 {
		what = fmt.Sprintf("%d columns", len(w.options))
	}
	p := w.base("set-n-distinct", "Tell PostgreSQL again how many values there are in "+what, w.options)
	const group = "n-distinct" // one transaction, and so one login
	admin := slices.ContainsFunc(w.options, func(k task) bool { return k.admin })
	for _, k := range w.options {
		column := k.Place.Name + "." + k.Column
		value := []doctor.Value{{V: k.Place.sql()}, {V: k.Column}}
		// A statement that queues behind the build of an index can end that.
		free := strings.Replace(takenQuery, "SELECT EXISTS", "SELECT NOT EXISTS", 1)
		is := free + " AND coalesce((SELECT substr(o, 12) FROM pg_attribute, unnest(attoptions) o WHERE attrelid = $1::text::regclass " +
			"AND attname = $2 AND NOT attisdropped AND o LIKE 'n_distinct=%'), '')"
		p.Steps = append(p.Steps,
			doctor.Step{Title: "Set n_distinct of " + column, SQL: &doctor.SQLStep{
				Database: w.db.Label, Admin: admin, Statement: k.setOption(), Mode: doctor.ModeGroup, Group: group,
				Guard: &doctor.Guard{Query: is + " = ''", Args: value, Else: "n_distinct of " + column +
					" was set meanwhile, or an index of the table is being built. Run the check again."},
				Undo: []doctor.UndoSQL{{Statement: k.resetOption(), Guard: &doctor.Guard{
					Query: is + " = $3", Args: append(slices.Clone(value), doctor.Value{V: k.Value}), Else: "n_distinct " +
						"of " + column + " was set to something else since, or an index of the table is being built."}}},
			}},
			doctor.Step{Title: "Have it take effect; it reads a sample of the table", SQL: &doctor.SQLStep{
				Database: w.db.Label, Admin: admin, Statement: k.analyze(), Mode: doctor.ModeGroup, Group: group,
			}})
	}
	return p
}

func (w *work) byOwner() doctor.Plan {
	p := w.base("by-owner", "Have the owner of the tables do it", w.byHand)
	p.Reversible, p.Irreversible = false, "the statements are run by hand"
	var b strings.Builder
	if slices.ContainsFunc(w.byHand, func(k task) bool { return k.Kind == mendIndex }) {
		b.WriteString(w.have.concurrently())
	}
	b.WriteString("Synapse's role does not own these tables. Give the doctor an administrator's connection (--admin-dsn), or run " +
		"this as their owner, outside a transaction; Synapse may stay up:\n")
	for _, k := range w.byHand {
		b.WriteString("\n")
		if k.Kind == mendOption {
			fmt.Fprintf(&b, "    %s;\n    %s;\n", k.setOption(), k.analyze())
			continue
		}
		for _, s := range k.statements() {
			fmt.Fprintf(&b, "    %s;\n", s)
		}
	}
	p.Steps = []doctor.Step{{Title: "Run the statements as the tables' owner", Manual: &doctor.ManualStep{Text: b.String()}}}
	return p
}
