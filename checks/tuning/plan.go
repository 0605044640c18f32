package tuning

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/pgdb"
)

// plan answers the findings of each server with plans that can be chosen one by one: what makes a crash harmless, what a
// reload applies, what a restart does, and what only a person can change. Advice has plans of its own, which a fix of
// everything leaves alone.
func plan(ctx context.Context, t *doctor.Target, findings []doctor.Finding) ([]doctor.Plan, error) {
	return planOn(ctx, t, findings, hostMachine)
}

func planOn(ctx context.Context, t *doctor.Target, findings []doctor.Finding, k kernel) ([]doctor.Plan, error) {
	servers, err := look(ctx, t, k)
	if len(servers) == 0 {
		return nil, err
	}
	asked := map[doctor.FindingKey]bool{}
	for _, f := range findings {
		asked[f.Key()] = true
	}
	var plans []doctor.Plan
	for _, s := range servers {
		var durable, reload, restart, advised, advisedRestart, byHand []advice
		for _, a := range s.judge() {
			if a.set == "" || !asked[s.key(a)] {
				continue
			}
			x := s.settings[a.name]
			switch {
			case !s.mayAlter || !x.fromFile() || s.guessed(a):
				byHand = append(byHand, a)
			case a.code == NotCrashSafe || a.code == HiddenCorruption:
				durable = append(durable, a)
			case x.restarts() && a.severity == doctor.Info:
				advisedRestart = append(advisedRestart, a)
			case x.restarts():
				restart = append(restart, a)
			case a.severity == doctor.Info:
				advised = append(advised, a)
			default:
				reload = append(reload, a)
			}
		}
		plans = append(plans, s.alter("durable", "Let a crash do no harm", durable)...)
		plans = append(plans, s.alter("reload", "Take a danger away, without a restart", reload)...)
		plans = append(plans, s.alter("restart", "Take a danger away, with a restart", restart)...)
		plans = append(plans, s.alter("advice", "Follow the advice, without a restart", advised)...)
		plans = append(plans, s.alter("advice-restart", "Follow the advice, with a restart", advisedRestart)...)
		plans = append(plans, s.byPerson(byHand)...)
	}
	return plans, nil
}

// guessed: the value rests on a memory that is only inferred, with which nothing is changed.
func (s *server) guessed(a advice) bool {
	return s.machine.inferred && slices.Contains([]string{SharedBuffers, EffectiveCacheSize, WorkMem, MaintenanceWorkMem, AutovacuumWorkMem, WorstCase}, a.code)
}

func (s *server) key(a advice) doctor.FindingKey {
	return doctor.FindingKey{Code: a.code, Database: s.db.Label, Object: a.object()}
}

func (s *server) planID(what string) string {
	if s.db.Label == "main" {
		return "tuning/" + what
	}
	return "tuning/" + what + "-" + s.db.Label
}

func (s *server) covers(advices []advice) (keys []doctor.FindingKey) {
	for _, a := range advices {
		keys = append(keys, s.key(a))
	}
	return keys
}

func settingNames(advices []advice) string {
	var all []string
	for _, a := range advices {
		all = append(all, a.name)
	}
	return strings.Join(all, ", ")
}

// alter is the plan that writes settings with ALTER SYSTEM and has the server load them.
func (s *server) alter(what, title string, advices []advice) []doctor.Plan {
	if len(advices) == 0 {
		return nil
	}
	p := doctor.Plan{
		ID: s.planID(what), Title: title + ": " + settingNames(advices), Risk: doctor.Safe, Expects: doctor.ExpectNone, Covers: s.covers(advices),
		Requires: []doctor.Requirement{doctor.RequireAdmin}, Reversible: true, UndoOnFailure: true, WhenAsked: advices[0].severity == doctor.Info,
	}
	restarts := s.get(advices[0].name).restarts()
	if restarts {
		p.Risk = doctor.Careful
	}
	if restarts && s.provable() {
		p.Steps = append(p.Steps, s.try(advices))
	} else {
		p.Steps = append(p.Steps, s.faultless("See that the server's files have no error", nil))
	}
	for _, a := range advices {
		p.Steps = append(p.Steps, s.set(a))
	}
	p.Steps = append(p.Steps,
		s.faultless("See that the server takes the new values, and that nothing overrides them", advices),
		doctor.Step{Title: "Have the server read its files: what else was changed in them since the last time counts then, too", SQL: &doctor.SQLStep{Admin: true, Mode: doctor.ModeNone, Statement: doctor.ReloadStatement, Reload: true, MaxRows: 1}})
	if restarts {
		p.Steps = append(p.Steps, s.restartByHand(advices))
	}
	return []doctor.Plan{p}
}

// inAuto and inFiles are the last line of a setting: in postgresql.auto.conf, and in all the files, which auto.conf is the
// last of.
const (
	inAuto  = `(SELECT setting FROM pg_file_settings WHERE lower(name) = $1 AND sourcefile ~ '(^|/)postgresql\.auto\.conf$' ORDER BY seqno DESC LIMIT 1)`
	inFiles = `(SELECT setting FROM pg_file_settings WHERE lower(name) = $1 ORDER BY seqno DESC LIMIT 1)`
)

// fileValue is what the plan has seen in the files: nil where there is no such line.
func (s *server) fileValue(name string, auto bool) any {
	var value any
	for _, f := range s.files {
		if f.Name == name && (f.Auto || !auto) {
			value = f.Value
		}
	}
	return value
}

func (s *server) set(a advice) doctor.Step {
	before := s.fileValue(a.name, true)
	undo := "ALTER SYSTEM RESET " + a.name
	if text, was := before.(string); was {
		undo = alter(a.name, text)
	}
	return doctor.Step{Title: fmt.Sprintf("Set %s to %s, which is %s now", a.name, a.set, s.get(a.name).text()), SQL: &doctor.SQLStep{
		Admin: true, Mode: doctor.ModeNone, Statement: alter(a.name, a.set),
		Guard: &doctor.Guard{
			Query: "SELECT " + inAuto + " IS NOT DISTINCT FROM $2::text\n  AND " + inFiles + " IS NOT DISTINCT FROM $3::text",
			Args:  []doctor.Value{{V: a.name}, {V: before}, {V: s.fileValue(a.name, false)}},
			Else:  a.name + " has been changed since the plan was made: run the fix again.",
		},
		Undo: []doctor.UndoSQL{{Statement: undo, Guard: &doctor.Guard{
			Query: "SELECT " + inAuto + " IS NOT DISTINCT FROM $2::text", Args: []doctor.Value{{V: a.name}, {V: a.set}},
			Else: a.name + " has been set to something else since.",
		}}},
	}}
}

const (
	noFaults = `SELECT NOT EXISTS (SELECT FROM pg_file_settings f WHERE ` + pgdb.FileSettingFault + `)`
	faults   = "The server's configuration files have an error, with which it would not load them, or not start again: synapse-doctor check tuning, or SELECT sourcefile, sourceline, name, error FROM pg_file_settings WHERE error IS NOT NULL, shows which. Correct it first."
)

// faultless asks the server, which reads the files as they are now without loading them.
func (s *server) faultless(title string, set []advice) doctor.Step {
	query := noFaults
	var args []doctor.Value
	for _, a := range set {
		n := len(args)
		args = append(args, doctor.Value{V: a.name}, doctor.Value{V: a.set})
		query += "\n  AND " + strings.ReplaceAll(inFiles, "$1", fmt.Sprintf("$%d", n+1)) + fmt.Sprintf(" = $%d", n+2)
	}
	otherwise := faults
	if len(set) > 0 {
		otherwise = "The server does not take the new values, or another line of its files wins over them."
	}
	return doctor.Step{Title: title, Probe: &doctor.ProbeStep{Database: s.db.Label, Admin: true, Holds: &doctor.Guard{Query: query, Args: args, Else: otherwise}}}
}

// restartByHand says how the server is started anew, and how it comes up again should it not start.
func (s *server) restartByHand(advices []advice) doctor.Step {
	dir := s.db.DataDir
	if dir == "" {
		dir = "the server's data directory"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "Until then %s stays as it is. At a quiet time:\n%s\nSynapse loses its connections for a moment, and makes new ones.\n\n", settingNames(advices), s.howToRestart())
	for _, a := range advices {
		switch more, _ := parse(a.set, ""); {
		case a.name == "max_connections" && more > s.get(a.name).value():
			b.WriteString(standbysFirst + "\n\n")
		case a.name == "max_connections":
			b.WriteString(standbysLast + "\n\n")
		}
	}
	if !s.provable() {
		b.WriteString("The doctor can't try the new configuration beforehand, since the server's program or its files are out of its reach. ")
	}
	fmt.Fprintf(&b, "Should the server not start: remove the line of %s from postgresql.auto.conf in %s, start it, and look at its log.", settingNames(advices), dir)
	return doctor.Step{Title: "Restart the server", Manual: &doctor.ManualStep{Text: b.String()}}
}

// byPerson is the plan for what the doctor may not change, or what something stronger than the server's files sets.
func (s *server) byPerson(advices []advice) []doctor.Plan {
	if len(advices) == 0 {
		return nil
	}
	p := doctor.Plan{
		ID: s.planID("by-hand"), Title: "Have " + settingNames(advices) + " changed by hand", Risk: doctor.Careful, Expects: doctor.ExpectNone,
		Covers: s.covers(advices), Irreversible: "it is done by hand",
		WhenAsked: !slices.ContainsFunc(advices, func(a advice) bool { return a.severity > doctor.Info }),
	}
	why := ""
	switch {
	case !s.admin:
		why = "The doctor has no administrator's connection: " + s.db.NoAdmin + ".\n"
	case !s.mayAlter:
		why = "The administrator's connection is not a superuser's, or the server does not allow ALTER SYSTEM (allow_alter_system): what manages the server has to set this.\n"
	}
	if s.mayAlter && slices.ContainsFunc(advices, s.guessed) {
		why = "The machine's memory is only inferred, and the doctor changes nothing on that ground: with --db-memory it does.\n"
	}
	var plain, rest []advice
	for _, a := range advices {
		if s.get(a.name).fromFile() {
			plain = append(plain, a)
		} else {
			rest = append(rest, a)
		}
	}
	if len(plain) > 0 {
		var b strings.Builder
		b.WriteString(why + s.asAdmin(plain...) + "    SELECT name, error FROM pg_file_settings WHERE error IS NOT NULL;\n    " + doctor.ReloadStatement + ";")
		if slices.ContainsFunc(plain, func(a advice) bool { return s.get(a.name).restarts() }) {
			b.WriteString("\nPart of it counts after a restart of the server (\"setting could not be applied\" says so):\n" + s.howToRestart())
		}
		p.Steps = append(p.Steps, doctor.Step{Title: "Set " + settingNames(plain), Manual: &doctor.ManualStep{Text: b.String()}})
	}
	for _, a := range rest {
		p.Steps = append(p.Steps, doctor.Step{Title: fmt.Sprintf("Set %s to %s where it is set", a.name, a.set),
			Manual: &doctor.ManualStep{Text: s.get(a.name).elsewhere(s.Name, s.Role, a.set)}})
	}
	return []doctor.Plan{p}
}
