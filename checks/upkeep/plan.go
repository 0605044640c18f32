package upkeep

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
)

// plan answers what can be mended without any risk: options of tables, statistics, dead rows.
func plan(ctx context.Context, t *doctor.Target, findings []doctor.Finding) ([]doctor.Plan, error) {
	var plans []doctor.Plan
	for _, db := range t.Meeting(doctor.NeedsSynapse) {
		of := map[string][]doctor.Finding{}
		for _, f := range findings {
			if f.Database == db.Label && f.Fixable {
				of[f.Code] = append(of[f.Code], f)
			}
		}
		if len(of) == 0 {
			continue
		}
		p := &planner{target: t, db: db}
		if err := p.look(ctx); err != nil {
			return nil, fmt.Errorf("database %s: %w", db.Label, err)
		}
		if list := of[AutovacuumOffTable]; len(list) > 0 {
			plans = append(plans, p.reset(list))
		}
		if list := of[DeadRows]; len(list) > 0 {
			plans = append(plans, p.vacuum(modeVacuum, "Vacuum", list, p.named(list)))
		}
		if list := slices.Concat(of[NeverAnalyzed], of[StatisticsOld]); len(list) > 0 {
			plans = append(plans, p.vacuum(modeAnalyze, "Analyze", list, p.toAnalyze(of[NeverAnalyzed], of[StatisticsOld])))
		}
		if list := of[WraparoundNear]; len(list) > 0 {
			plans = append(plans, p.vacuum(modeFreeze, "Freeze the oldest rows of", list, p.oldest))
		}
	}
	return slices.DeleteFunc(plans, func(p doctor.Plan) bool { return len(p.Steps) == 0 }), nil
}

// planner is what the plans of one database rest on.
type planner struct {
	target *doctor.Target
	db     *doctor.Database
	server server
	tables []table
	oldest []table // that keep the database's age where it is, the system's own too
}

func (p *planner) look(ctx context.Context) error {
	e := &examination{target: p.target, db: p.db}
	err := p.db.Read(ctx, func(tx pgx.Tx) error {
		if err := e.lookAtServer(ctx, tx); err != nil {
			return err
		}
		if err := e.lookAtTables(ctx, tx); err != nil {
			return err
		}
		all, err := readTables(ctx, tx, true)
		for _, t := range all {
			if t.XID > min(e.server.FreezeMaxAge, e.limit(e.server.FreezeMaxAge)) || t.Multixact > min(e.server.MultixactMaxAge, e.limit(e.server.MultixactMaxAge)) {
				p.oldest = append(p.oldest, t)
			}
		}
		return err
	})
	p.server, p.tables = e.server, e.tables
	return err
}

func (p *planner) id(what string) string {
	if p.db.Label == "main" {
		return "upkeep/" + what
	}
	return "upkeep/" + what + "-" + p.db.Label
}

func covers(findings []doctor.Finding) (keys []doctor.FindingKey) {
	for _, f := range findings {
		keys = append(keys, f.Key())
	}
	return keys
}

// named are the tables of the findings that are still there.
func (p *planner) named(findings []doctor.Finding) (tables []table) {
	for _, t := range p.tables {
		if slices.ContainsFunc(findings, func(f doctor.Finding) bool { return f.Object == t.object() }) {
			tables = append(tables, t)
		}
	}
	return tables
}

// toAnalyze are all tables that have rows and no statistics, when one of them is large enough to matter, and those named.
func (p *planner) toAnalyze(never, old []doctor.Finding) (tables []table) {
	for _, t := range p.tables {
		bare := len(never) > 0 && !t.HasStatistics && t.Heap > 0 && t.Rows != 0
		if bare || slices.ContainsFunc(old, func(f doctor.Finding) bool { return f.Object == t.object() }) {
			tables = append(tables, t)
		}
	}
	return tables
}

// A lock on the table is not waited for longer than the session's lock_timeout, five seconds. It holds up neither reading nor
// writing: SHARE UPDATE EXCLUSIVE.
func (p *planner) reset(findings []doctor.Finding) doctor.Plan {
	tables := p.named(findings)
	if slices.ContainsFunc(findings, func(f doctor.Finding) bool { return f.Object.Kind == "database" }) {
		tables = slices.DeleteFunc(slices.Clone(p.tables), func(t table) bool { return !t.Off && !t.ToastOff })
	}
	plan := doctor.Plan{
		ID: p.id("autovacuum-reset"), Covers: covers(findings), Title: "Let autovacuum look after " + p.namesOf(tables),
		Risk: doctor.Safe, Expects: doctor.ExpectSynapse, Database: p.db.Label, Reversible: true, UndoOnFailure: true,
	}
	var foreign []string
	for _, t := range tables {
		for _, o := range []struct {
			name string
			off  bool
		}{{"autovacuum_enabled", t.Off}, {"toast.autovacuum_enabled", t.ToastOff}} {
			switch {
			case !o.off:
			case t.MayAlter:
				plan.Steps = append(plan.Steps, p.resetStep(t, o.name))
			default:
				foreign = append(foreign, fmt.Sprintf("    ALTER TABLE %s RESET (%s);", t.name(), o.name))
			}
		}
	}
	if len(foreign) > 0 {
		plan.Steps = append(plan.Steps, doctor.Step{Title: "As the owner of the tables, or as an administrator", Manual: &doctor.ManualStep{
			Text: "Synapse's role does not own them. Run this as their owner:\n\n" + strings.Join(foreign, "\n"),
		}})
	}
	return plan
}

func (p *planner) resetStep(t table, option string) doctor.Step {
	ident := identifier(t.Schema, t.Name)
	return doctor.Step{Title: fmt.Sprintf("Take the option %s away from %s", option, t.Name), SQL: &doctor.SQLStep{
		Database: p.db.Label, Mode: doctor.ModeAlone, Statement: fmt.Sprintf("ALTER TABLE %s RESET (%s)", ident, option),
		Guard: &doctor.Guard{Query: "SELECT " + isOff(ident, option), Else: "The option is no longer set: run the fix again."},
		Undo: []doctor.UndoSQL{{Statement: fmt.Sprintf("ALTER TABLE %s SET (%s = off)", ident, option),
			Guard: &doctor.Guard{Query: "SELECT NOT " + isOff(ident, option), Else: "The option has been set again meanwhile."}}},
	}}
}

// isOff is the condition that the option of the table, or of its toast table, says so.
func isOff(ident, option string) string {
	of := literal(ident) + "::regclass"
	if strings.HasPrefix(option, "toast.") {
		of = "(SELECT reltoastrelid FROM pg_class WHERE oid = " + of + ")"
	}
	return "EXISTS (SELECT FROM pg_class c, pg_options_to_table(c.reloptions) WHERE c.oid = " + of + "\n  AND option_name = 'autovacuum_enabled' AND NOT option_value::bool)"
}

// bytesPerSecond is what vacuum and analyze read, at the least, on a disk that does other things too.
const bytesPerSecond = 50 * mib

func (p *planner) vacuum(mode, verb string, findings []doctor.Finding, tables []table) doctor.Plan {
	plan := doctor.Plan{
		ID: p.id(mode), Covers: covers(findings), Title: verb + " " + p.namesOf(tables),
		Risk: doctor.Safe, Expects: doctor.ExpectSynapse, Database: p.db.Label,
		Irreversible: "there is nothing to put back: it changes no row, and what it removes nobody could see any more",
	}
	mine := slices.Clone(tables)
	admin := p.target.AdminIn(p.db) != nil
	if !admin {
		mine = slices.DeleteFunc(mine, func(t table) bool { return !t.MayVacuum })
	}
	admin = admin && slices.ContainsFunc(mine, func(t table) bool { return !t.MayVacuum })
	var bytes int64
	var statements []string
	for _, t := range mine {
		bytes += t.Total
		statements = append(statements, statement(mode, identifier(t.Schema, t.Name)))
	}
	if mode == modeAnalyze {
		bytes = min(bytes, int64(len(mine))*300*mib) // it reads a sample
	}
	plan.Duration = time.Duration(bytes/bytesPerSecond) * time.Second
	if len(mine) > 0 {
		if admin {
			plan.Requires = append(plan.Requires, doctor.RequireAdmin)
		}
		plan.Steps = append(plan.Steps, doctor.Step{Title: plan.Title, Operation: &doctor.OperationStep{
			// No row is changed: it has no effects that would have to be settled before anything else may be done.
			Name: opVacuum, Params: params(p.db.Label, mode, admin, mine), Statements: statements, Stops: true,
			Resumes: "not after an interruption: run the fix again; where the doctor was killed, the next run goes on with the table at which it was",
		}})
	}
	var foreign []string
	for _, t := range tables {
		if !slices.ContainsFunc(mine, func(m table) bool { return m.OID == t.OID }) {
			foreign = append(foreign, "    "+statement(mode, t.name())+";")
		}
	}
	if len(foreign) > 0 {
		plan.Steps = append(plan.Steps, doctor.Step{Title: "As the owner of the tables, or as an administrator", Manual: &doctor.ManualStep{
			Text: "Synapse's role does not own them, and PostgreSQL passes them over without an error when it asks. Run this as their owner, or give the doctor --admin-dsn:\n\n" +
				strings.Join(foreign, "\n"),
		}})
	}
	return plan
}

// namesOf names a few of the tables.
func (p *planner) namesOf(tables []table) string {
	if len(tables) > 3 {
		return fmt.Sprintf("%d tables", len(tables))
	}
	names := make([]string, len(tables))
	for i, t := range tables {
		names[i] = t.Name
	}
	return strings.Join(names, ", ")
}
