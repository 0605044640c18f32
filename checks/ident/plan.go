package ident

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/synapse"
)

// plan makes one plan for each database that takes Synapse from outside to inside: password, records, reload, proof.
func plan(ctx context.Context, t *doctor.Target, findings []doctor.Finding) ([]doctor.Plan, error) {
	var plans []doctor.Plan
	for _, d := range t.Meeting(doctor.NeedsPostgresEntry | doctor.NeedsAdmin) {
		if !slices.ContainsFunc(findings, func(f doctor.Finding) bool { return f.Database == d.Label && f.Fixable }) {
			continue
		}
		s, err := look(ctx, t, d)
		if err != nil {
			return nil, err
		}
		v := judge(s)
		if v.unknown != nil {
			return nil, v.unknown
		}
		p := v.prescribe()
		var covers []doctor.FindingKey
		for _, f := range v.faults {
			key := v.finding(f).Key()
			if p.offered(f) && slices.ContainsFunc(findings, func(g doctor.Finding) bool { return g.Key() == key }) {
				covers = append(covers, key)
			}
		}
		if len(covers) == 0 {
			continue
		}
		made, err := p.plan(ctx, v)
		if err != nil {
			return nil, err
		}
		made.Covers = covers
		plans = append(plans, made)
	}
	return plans, nil
}

func (p prescription) plan(ctx context.Context, v *verdict) (doctor.Plan, error) {
	s := p.seen
	name := "let-in"
	out := doctor.Plan{
		Title: "Let Synapse in with its password", Risk: doctor.Careful, Expects: doctor.ExpectNone,
		Requires: []doctor.Requirement{doctor.RequireAdmin}, Reversible: true, UndoOnFailure: true,
	}
	if !p.rehash && !p.lasting && len(p.additions) == 0 {
		name = "reload"
		out.Title = "Have the server load pg_hba.conf as it is now"
		out.Reversible, out.Irreversible, out.UndoOnFailure = false, "what the server had loaded before stands nowhere any more", false
	}
	out.ID = "ident/" + name
	if s.database.Label != synapse.MainLabel {
		out.ID += "-" + s.database.Label
	}
	out.Steps = append(out.Steps, p.roleIsThere())
	if p.make {
		step, err := p.writePassword()
		if err != nil {
			return out, err
		}
		out.Steps = append(out.Steps, step)
	}
	if p.rehash {
		out.Steps = append(out.Steps, p.setPassword())
	}
	if p.lasting {
		out.Steps = append(out.Steps, p.takeExpiryAway())
	}
	edits, err := p.edits(ctx)
	if err != nil {
		return out, err
	}
	out.Steps = append(out.Steps, edits...)
	if p.reload {
		out.Steps = append(out.Steps, noErrors(),
			doctor.Step{Title: "Have the server load its files, with all that was changed in them since " + stamp(s.server.loaded), SQL: &doctor.SQLStep{Admin: true, Mode: doctor.ModeNone, Statement: doctor.ReloadStatement, Reload: true}})
	}
	out.Steps = append(out.Steps, p.proofs()...)
	if p.make {
		out.Steps = append(out.Steps, doctor.Step{Title: "Restart Synapse", Manual: &doctor.ManualStep{
			Text: "Synapse reads its configuration only when it starts. Restart the main process and every worker; with Debian's package:\n    systemctl restart matrix-synapse"}})
	}
	return out, nil
}

func (p prescription) role() string { return p.seen.database.Settings["user"] }

// roleIsThere makes a plan that was made together with the role's wait for it.
func (p prescription) roleIsThere() doctor.Step {
	return doctor.Step{Title: "See that the role " + p.role() + " is there", Probe: &doctor.ProbeStep{Admin: true, Holds: &doctor.Guard{
		Query: `SELECT count(*) = 1 FROM pg_roles WHERE rolname = $1 AND rolcanlogin`, Args: []doctor.Value{{V: p.role()}},
		Else: fmt.Sprintf("the role %s does not exist or may not log in: synapse-doctor fix database sees to that", p.role())}}}
}

// writePassword puts a password that the host makes into homeserver.yaml.
func (p prescription) writePassword() (doctor.Step, error) {
	config, err := synapse.Load(p.seen.target.ConfigFiles...)
	if err != nil {
		return doctor.Step{}, err
	}
	entry := config.Entry(p.seen.database.Label)
	if entry == nil {
		return doctor.Step{}, fmt.Errorf("the configuration has no database %s", p.seen.database.Label)
	}
	content, err := os.ReadFile(entry.File)
	if err != nil {
		return doctor.Step{}, err
	}
	splices, err := synapse.EditArgs(content, entry.Label, []synapse.Setting{{Keyword: "password", Value: doctor.Masked}})
	if err != nil {
		return doctor.Step{}, fmt.Errorf("%s: %w", entry.File, err)
	}
	return doctor.Step{Title: "Write a new password into " + entry.File, EditFile: &doctor.EditFileStep{
		Path: entry.File, Before: hash(content), Splices: splices, Format: "yaml", Password: entry.Label}}, nil
}

// keptAs tells whether the role's password is still the one that was set with this salt.
const keptAs = `SELECT split_part(split_part(rolpassword, '$', 2), ':', 2) = $2 FROM pg_authid WHERE rolname = $1`

// setPassword gives the role the password by its verifier. What was kept before is saved, and put back by an undo unless
// the password was set again since.
func (p prescription) setPassword() doctor.Step {
	salt := make([]byte, 16)
	rand.Read(salt)
	role := p.role()
	return doctor.Step{Title: "Set the password of " + role + " (its SCRAM verifier, made here)", SQL: &doctor.SQLStep{
		Admin: true, Mode: doctor.ModeAlone, MaxRows: 1,
		Statement: "ALTER ROLE " + identifier(role) + " PASSWORD '" + doctor.Masked + "'",
		Verifier:  &doctor.Verifier{Password: p.seen.database.Label, Salt: salt},
		Save: &doctor.Save{Table: "pg_authid", Args: []doctor.Value{{V: role}},
			Query: `SELECT json_build_object('rolpassword', rolpassword)::text FROM pg_authid WHERE rolname = $1`},
		Undo: []doctor.UndoSQL{
			{Statement: `SELECT set_config('synapse_doctor.saved', $1, true)`, ForEachSaved: true, Guard: &doctor.Guard{
				Query: keptAs, Args: []doctor.Value{{V: role}, {V: base64.StdEncoding.EncodeToString(salt)}}, Else: fmt.Sprintf("the password of %s was set again since", role)}},
			{Statement: fmt.Sprintf(`DO $undo$ BEGIN EXECUTE format('ALTER ROLE %%I PASSWORD %%s', %s, coalesce(quote_literal(current_setting('synapse_doctor.saved')::json ->> 'rolpassword'), 'NULL')); END $undo$`, literal(role))},
		},
	}}
}

func (p prescription) takeExpiryAway() doctor.Step {
	role := p.role()
	const is = `SELECT rolvaliduntil IS NOT DISTINCT FROM $2::timestamptz FROM pg_roles WHERE rolname = $1`
	return doctor.Step{Title: "Let the password of " + role + " not expire", SQL: &doctor.SQLStep{
		Admin: true, Mode: doctor.ModeAlone,
		Statement: "ALTER ROLE " + identifier(role) + " VALID UNTIL 'infinity'",
		Guard:     &doctor.Guard{Query: is, Args: []doctor.Value{{V: role}, {V: p.seen.role.validUntil}}, Else: "when the password expires was changed meanwhile: run the fix again"},
		Undo: []doctor.UndoSQL{{Statement: "ALTER ROLE " + identifier(role) + " VALID UNTIL " + literal(p.seen.role.validUntil),
			Guard: &doctor.Guard{Query: is, Args: []doctor.Value{{V: role}, {V: "infinity"}}, Else: "when the password expires was set again since"}}},
	}}
}

// comment stands above the records that are added.
const comment = "synapse-doctor: Synapse's own login, with its password.\nThe first record that matches decides: keep it before those below."

// edits make one step for each file into which records go.
func (p prescription) edits(ctx context.Context) ([]doctor.Step, error) {
	s := p.seen
	var steps []doctor.Step
	var names []string
	edited := map[string][]byte{}
	for _, a := range p.additions {
		if name := s.fileOf(a.before); !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	for _, name := range names {
		path := s.localPath(name)
		content, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		var splices []doctor.Splice
		for _, a := range p.additions {
			if s.fileOf(a.before) != name {
				continue
			}
			note := comment
			if slices.ContainsFunc(splices, func(x doctor.Splice) bool { return a.before != nil && x.Offset == a.before.Offset }) {
				note = "" // one comment for the records that stand together
			}
			offset, text := s.rules.insertBefore(a.before, content, note, a.line)
			if i := slices.IndexFunc(splices, func(x doctor.Splice) bool { return x.Offset == offset }); i >= 0 {
				splices[i].New = append(splices[i].New, text...)
				continue
			}
			splices = append(splices, doctor.Splice{Offset: offset, New: text})
		}
		slices.SortFunc(splices, func(a, b doctor.Splice) int { return cmp.Compare(a.Offset, b.Offset) })
		if edited[name], err = synapse.Apply(content, splices); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		steps = append(steps, doctor.Step{Title: "Add to " + path + " what lets Synapse in", EditFile: &doctor.EditFileStep{
			Path: path, Before: hash(content), Splices: splices,
			Server: &doctor.ServerFile{DataDir: s.proven, SystemID: s.database.SystemID},
		}})
	}
	if len(steps) > 0 {
		if err := p.prove(ctx, edited); err != nil {
			return nil, err
		}
	}
	return steps, nil
}

// prove reads the edited files as the server will: every record that was there is still there, in its order, and each way
// is decided by a record that was added.
func (p prescription) prove(ctx context.Context, edited map[string][]byte) error {
	s := p.seen
	read := func(name string) ([]byte, error) {
		if content, ok := edited[name]; ok {
			return content, nil
		}
		path := s.localPath(name)
		if path == "" {
			return nil, fmt.Errorf("%s is not on this machine", name)
		}
		return os.ReadFile(path)
	}
	after, err := parse(s.rules.Path, s.rules.Major, files{Read: read, List: localFiles.List})
	if err != nil {
		return err
	}
	var kept, added []string
	for _, r := range after.Records {
		if slices.ContainsFunc(p.additions, func(a addition) bool { return a.line == r.Text }) {
			added = append(added, r.Text)
			continue
		}
		kept = append(kept, r.Text)
	}
	var before []string
	for _, r := range s.rules.Records {
		if !slices.ContainsFunc(p.additions, func(a addition) bool { return a.line == r.Text }) {
			before = append(before, r.Text)
		}
	}
	if !slices.Equal(kept, before) || len(added) < len(p.additions) || len(after.faulty()) > 0 {
		return errNotMeant
	}
	for _, w := range s.ways {
		if !slices.ContainsFunc(p.additions, func(a addition) bool { return slices.Contains(a.ways, w.where()) }) {
			continue
		}
		for _, tls := range w.tls {
			d := after.match(path{Database: s.database.Settings["dbname"], User: s.database.Settings["user"], Addr: w.client, TLS: tls}, s.world(ctx))
			if d.Undecided != "" || d.Record == nil || !slices.ContainsFunc(p.additions, func(a addition) bool { return a.line == d.Record.Text }) {
				return errNotMeant
			}
		}
	}
	return nil
}

var errNotMeant = errors.New("the records would not be read as they are meant, so that nothing is planned: this is a fault of the doctor's")

// noErrors asks the server, which reads the files as they are now and has not loaded them yet.
func noErrors() doctor.Step {
	return doctor.Step{Title: "See that the server finds no error in the file", Probe: &doctor.ProbeStep{Admin: true, Holds: &doctor.Guard{
		Query: `SELECT count(*) = 0 FROM pg_hba_file_rules WHERE error IS NOT NULL AND type IS NULL`,
		Else:  "the server finds an error in the edited file"}}}
}

// proofs are logins as Synapse makes them: with the right password in, with a wrong one out.
func (p prescription) proofs() []doctor.Step {
	s := p.seen
	var steps []doctor.Step
	for i, w := range s.ways {
		address := ""
		switch listed := strings.Contains(s.database.Settings["host"]+s.database.Settings["hostaddr"], ","); {
		case listed && i > 0:
			continue // of a list, libpq itself takes the one that it comes to first
		case !listed && len(s.ways) > 1:
			address = w.endpoint.Addr.String()
		}
		steps = append(steps, doctor.Step{Title: fmt.Sprintf("Log in as Synapse does, at %s", w.endpoint), Probe: &doctor.ProbeStep{
			Database: s.database.Label, Login: &doctor.Login{Address: address, Accepted: true}}})
		if len(p.additions) > 0 || p.rehash {
			steps = append(steps, doctor.Step{Title: fmt.Sprintf("Be refused with a wrong password, at %s", w.endpoint), Probe: &doctor.ProbeStep{
				Database: s.database.Label, Login: &doctor.Login{Address: address, WrongPassword: true, MustFail: true, Accepted: true}}})
		}
	}
	return steps
}

func hash(content []byte) string {
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:])
}
