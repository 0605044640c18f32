package locale

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/rebuild"
	"github.com/synapse-doctor/synapse-doctor/core/synapse"
)

// plan answers the findings of each database with the ways to mend them. One that is not in C is rebuilt, or mended in place
// where there is no disk for a second one. One that became C by an edited catalog is mended in place. Where the locale stays,
// indexes are rebuilt.
func plan(ctx context.Context, t *doctor.Target, findings []doctor.Finding) ([]doctor.Plan, error) {
	var plans []doctor.Plan
	for _, db := range t.Meeting(doctor.NeedsPostgres) {
		var fixable []doctor.Finding
		for _, f := range findings {
			if f.Database == db.Label && f.Fixable {
				fixable = append(fixable, f)
			}
		}
		if len(fixable) == 0 {
			continue
		}
		w, err := newWork(ctx, db, fixable)
		if err != nil {
			return nil, fmt.Errorf("database %s: %w", db.Label, err)
		}
		if w.Standby {
			continue
		}
		if !w.moves() {
			if p, err := w.reindex(); err != nil {
				return nil, err
			} else if p != nil {
				plans = append(plans, *p)
			}
			continue
		}
		if w.encoding != "UTF8" {
			continue // encoding/not-utf8 is mended by a rebuild that mends this too
		}
		if !w.found(CatalogEdited) { // a rebuild can't tell what CTYPE the search vectors are from
			r, err := rebuild.Plan(ctx, t, db, "locale", w.covers(NotC, ProviderNotLibcC))
			if err != nil {
				return nil, err
			}
			plans = append(plans, r)
		}
		p, err := w.inPlace()
		if err != nil {
			return nil, err
		}
		if p != nil {
			plans = append(plans, *p)
		}
	}
	return plans, nil
}

// work is what the plans for one database are made from.
type work struct {
	*catalog
	findings []doctor.Finding // that something can be done about
	was      localeRow
	encoding string
	schema   string // of Synapse's tables
}

const workQuery = `SELECT pg_encoding_to_char(d.encoding),
  coalesce((SELECT n.nspname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = to_regclass('schema_version')), current_schema()::text, 'public')
FROM pg_database d WHERE d.datname = current_database()`

func newWork(ctx context.Context, db *doctor.Database, findings []doctor.Finding) (*work, error) {
	c, err := lookInto(ctx, db)
	if err != nil {
		return nil, err
	}
	w := &work{catalog: c, findings: findings}
	err = db.Read(ctx, func(tx pgx.Tx) (err error) {
		if w.was, _, err = readLocale(ctx, tx); err != nil {
			return err
		}
		if err := tx.QueryRow(ctx, workQuery).Scan(&w.encoding, &w.schema); err != nil {
			return fmt.Errorf("look for Synapse's tables: %w", err)
		}
		return nil
	})
	return w, err
}

// found reports whether the database itself has one of the faults.
func (w *work) found(codes ...string) bool {
	return slices.ContainsFunc(w.findings, func(f doctor.Finding) bool {
		return slices.Contains(codes, f.Code) && f.Object == w.object()
	})
}

// moves reports whether the database is to become one in C, or to become what the catalog says that it is.
func (w *work) moves() bool { return w.found(NotC, ProviderNotLibcC, CatalogEdited) }

// covers are the findings that rebuilding indexes mends, and those of the database itself with the other codes.
func (w *work) covers(codes ...string) []doctor.FindingKey {
	var keys []doctor.FindingKey
	for _, f := range w.findings {
		of := f.Object == w.object() || f.Object.Kind == "index" || f.Object.Kind == "collation"
		if of && slices.Contains(append(codes, VersionChanged, IndexCorrupt, DuplicateKeys, IndexInvalid), f.Code) {
			keys = append(keys, f.Key())
		}
	}
	return keys
}

// planID is the same for the same database in every run.
func (w *work) planID(what string) string {
	if w.db.Label == "main" {
		return "locale/" + what
	}
	return "locale/" + what + "-" + w.db.Label
}

// params are what the operations of either plan are told.
func (w *work) params() params {
	p := params{Database: w.db.Label, Key: rand.Text(), Schema: w.schema, Was: w.was, Collations: map[string]string{}}
	for _, l := range w.drifted {
		if len(l.Indexes) > 0 {
			p.Collations[identifier(l.Schema, l.Name)] = l.Recorded
		}
	}
	return p
}

// inPlace is nil where it can't be done: an encoding can't be changed in place.
func (w *work) inPlace() (*doctor.Plan, error) {
	if w.encoding != "UTF8" {
		return nil, nil
	}
	params := w.params()
	params.Edit, params.Shut, params.All = !w.was.same(w.was.inC()), true, true
	// After an edit by hand it can't be told any more what CTYPE was.
	params.Vectors = !params.Edit || w.own.Ctype != "C" || w.own.Provider != "c"
	affected := slices.DeleteFunc(slices.Clone(w.indexes), func(x index) bool { return !x.ByDefault && len(x.Locales) == 0 })
	title := fmt.Sprintf("Make the database %s one in C where it is, and rebuild its %d text indexes", w.own.Name, len(affected))
	if !params.Edit {
		title = fmt.Sprintf("Put the %d text indexes of the database %s into the order that its catalog claims", len(affected), w.own.Name)
	}
	texts, err := params.texts()
	if err != nil {
		return nil, err
	}
	p := w.base("in-place", title, affected)
	p.Covers = w.covers(NotC, ProviderNotLibcC, CatalogEdited)
	p.Risk = doctor.Dangerous
	p.Requires = append(p.Requires, doctor.RequireShut)
	p.Steps = []doctor.Step{
		w.examine(texts),
		doctor.Shut(w.own.Name, int(w.Limit)),
		{Title: title + surplusText, Operation: &doctor.OperationStep{
			Name: opInPlace, Undo: opUndoInPlace, Params: texts, Effects: w.effects(affected, params),
			Statements: w.statements(params, affected),
			Resumes: "Interrupted at any moment, by the next run: the database stays shut, and no table is done twice. " + putBackText +
				" The indexes are then in the order of the old locale again.",
		}},
		doctor.Open(w.own.Name, int(w.Limit)),
	}
	return p, nil
}

const surplusText = "; where a key is there more than once, the rows too many are kept and deleted"

const putBackText = "To undo it puts back every row that was removed. A unique index that can't hold them is then left invalid: PostgreSQL does not use it, and Synapse must not be started before the rows are settled and it is rebuilt."

// reindex is nil where nothing is left for it.
func (w *work) reindex() (*doctor.Plan, error) {
	covers := w.covers()
	if len(covers) == 0 {
		return nil, nil
	}
	params := w.params()
	params.All = w.found(VersionChanged)
	named := map[string]bool{}
	for _, f := range w.findings {
		switch f.Object.Kind {
		case "index":
			named[f.Object.Name] = true
		case "collation":
			for _, l := range w.drifted {
				for _, x := range w.byOID(l.Indexes) {
					named[x.Name] = named[x.Name] || l.Name == f.Object.Name
				}
			}
		}
	}
	if !params.All {
		for key := range params.Collations {
			if !slices.ContainsFunc(w.drifted, func(l collation) bool {
				return identifier(l.Schema, l.Name) == key && slices.ContainsFunc(w.findings, func(f doctor.Finding) bool {
					return f.Object == doctor.Object{Kind: "collation", Name: l.Name}
				})
			}) {
				delete(params.Collations, key)
			}
		}
	}
	var affected []index
	for _, x := range w.indexes {
		if params.All && (x.ByDefault || len(x.Locales) > 0) || named[x.Name] {
			affected = append(affected, x)
			params.Indexes = append(params.Indexes, x.qualified())
		}
	}
	dropped := 0
	for _, x := range w.invalid {
		if x.leftover() && (params.All || named[x.Name]) {
			dropped++
			if !slices.Contains(params.Indexes, x.qualified()) {
				params.Indexes = append(params.Indexes, x.qualified())
			}
		}
		affected = slices.DeleteFunc(affected, func(y index) bool { return x.leftover() && y.OID == x.OID })
	}
	if len(affected) == 0 && dropped == 0 {
		return nil, nil
	}
	title := fmt.Sprintf("Rebuild %d text indexes of the database %s", len(affected), w.own.Name)
	if len(affected) == 1 {
		title = fmt.Sprintf("Rebuild the index %s of the database %s", affected[0].Name, w.own.Name)
	}
	if len(affected) == 0 {
		title = fmt.Sprintf("Drop the invalid indexes that failed builds have left in the database %s", w.own.Name)
	}
	texts, err := params.texts()
	if err != nil {
		return nil, err
	}
	p := w.base("reindex", title, affected)
	p.Covers, p.Risk = covers, doctor.Careful
	p.Steps = []doctor.Step{
		w.examine(texts),
		{Title: title + surplusText, Operation: &doctor.OperationStep{
			Name: opReindex, Undo: opUndoReindex, Params: texts, Effects: w.effects(affected, params),
			Statements: w.statements(params, affected),
			Resumes:    "Interrupted at any moment, by the next run: no table is done twice. " + putBackText,
		}},
	}
	return p, nil
}

func (w *work) base(what, title string, affected []index) *doctor.Plan {
	duration, disk := w.cost(affected)
	return &doctor.Plan{
		ID: w.planID(what), Title: title, Expects: doctor.ExpectSynapse, Database: w.db.Label,
		Requires: []doctor.Requirement{doctor.RequireStopped, doctor.RequireAdmin}, Reversible: true, Resumes: true,
		Duration: duration, DiskBytes: disk,
	}
}

func (w *work) examine(texts map[string]string) doctor.Step {
	return doctor.Step{Title: "Look for rows with the same key between which only you can choose", Operation: &doctor.OperationStep{
		Name: opExamine, Params: texts, Resumes: "It changes nothing, and is done again.",
	}}
}

func (w *work) effects(affected []index, p params) doctor.Effects {
	e := doctor.Effects{Databases: []string{w.own.Name}}
	for _, x := range affected {
		e.Tables = append(e.Tables, x.Table)
	}
	if p.Vectors {
		for _, v := range synapse.SearchVectors(w.schema) {
			e.Tables = append(e.Tables, v.Table)
		}
	}
	slices.Sort(e.Tables)
	e.Tables = slices.Compact(e.Tables)
	return e
}

// cost is how long it takes with two sessions, and the disk that it takes: all new indexes of a table stand beside the old
// ones until its transaction commits, and the keys of the largest are sorted in temporary files.
func (w *work) cost(affected []index) (time.Duration, int64) {
	duration, _ := rebuildEstimate(affected)
	tables := map[uint32]int64{}
	largest := int64(0)
	for _, x := range affected {
		tables[x.TableOID] += x.Bytes
		largest = max(largest, x.Bytes)
	}
	var sizes []int64
	for _, n := range tables {
		sizes = append(sizes, n)
	}
	slices.Sort(sizes)
	slices.Reverse(sizes)
	disk := largest
	for _, n := range sizes[:min(len(sizes), atOnce)] {
		disk += n
	}
	return duration, disk
}

// statements are what the operation runs, in order, as they are printed.
func (w *work) statements(p params, affected []index) []string {
	var out []string
	database := textLiteral(w.own.Name)
	if p.Edit {
		sets := []string{"datcollate = 'C'", "datctype = 'C'"}
		if p.Was.Provider != nil && *p.Was.Provider != "c" {
			sets = append(sets, "datlocprovider = 'c'")
			for _, c := range []struct {
				name string
				is   *string
			}{{"daticulocale", p.Was.ICU}, {"datlocale", p.Was.Locale}, {"daticurules", p.Was.Rules}} {
				if c.is != nil {
					sets = append(sets, c.name+" = NULL")
				}
			}
		}
		out = append(out, "UPDATE pg_database SET "+strings.Join(sets, ", ")+" WHERE datname = "+database)
	}
	for _, x := range w.invalid {
		if x.leftover() && (p.All || p.names(x.qualified())) {
			out = append(out, "DROP INDEX "+x.qualified())
		}
	}
	var tables []string
	of := map[string][]string{}
	for _, x := range affected {
		if of[x.table()] == nil {
			tables = append(tables, x.table())
		}
		of[x.table()] = append(of[x.table()], reindexStatement(x))
	}
	for _, table := range tables {
		out = append(out, "LOCK TABLE ONLY "+table+" IN ACCESS EXCLUSIVE MODE")
		out = append(out, of[table]...)
		if slices.ContainsFunc(affected, func(x index) bool { return x.Unique && x.table() == table }) {
			out = append(out, "DELETE FROM ONLY "+table+" WHERE ctid = ANY ($1)")
		}
		if p.Edit {
			out = append(out, "ANALYZE "+table)
		}
	}
	if p.Vectors {
		for _, v := range synapse.SearchVectors(w.schema) {
			out = append(out, v.Update)
		}
	}
	switch {
	case p.Was.Version == nil, !p.All:
	case p.Shut, w.own.Actual == nil:
		out = append(out, "UPDATE pg_database SET datcollversion = NULL WHERE datname = "+database)
	default:
		out = append(out, refreshDatabase(w.own.Name))
	}
	for _, l := range w.drifted {
		if _, is := p.Collations[identifier(l.Schema, l.Name)]; is {
			out = append(out, refreshCollation(identifier(l.Schema, l.Name)))
		}
	}
	return out
}
