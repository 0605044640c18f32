package port

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/synapse"
)

// stillOnSQLite is the finding of a configuration that was left behind by the port.
func stillOnSQLite(t *doctor.Target, entry *synapse.Entry, users string) doctor.Finding {
	f := doctor.Finding{
		Code: StillOnSQLite, Severity: doctor.Warning, Object: doctor.Object{Kind: "file", Name: fmt.Sprintf("%s:%d", entry.File, entry.Line)},
		Summary:  fmt.Sprintf("The port is complete, and %s still names the SQLite file.", entry.File),
		Observed: "name: sqlite3", Expected: "the database section of " + t.PostgresConfig,
		Remedy: "Put the new database section in, and start Synapse:\n\n" + install(t, entry.SQLitePath()).port(" --plan port/switch") +
			"\n\nIf Synapse is started before that, it goes on with the SQLite file, and the port has to be run again.",
		Fixable: true,
	}
	if users != "" {
		f.Fixable = false
		f.Remedy = "Synapse, or something else, has the SQLite file open: " + users + ". Stop Synapse and all its workers, run the port once more, and then put the new database section in:\n\n" +
			install(t, entry.SQLitePath()).port("")
	}
	return f
}

// switchOver edits the configuration; where it is not written as the doctor can edit it, the plan says what to write.
func (w *work) switchOver(f doctor.Finding) (doctor.Plan, error) {
	entry := sqliteEntry(w.t)
	if entry == nil {
		return doctor.Plan{}, errors.New("the configuration is no longer on SQLite")
	}
	p := doctor.Plan{
		ID: "port/switch", Covers: []doctor.FindingKey{f.Key()}, Title: fmt.Sprintf("Put the database section for PostgreSQL into %s", entry.File),
		Risk: doctor.Careful, Expects: doctor.ExpectNone, Reversible: true, UndoOnFailure: true, Requires: []doctor.Requirement{doctor.RequireStopped},
	}
	start := doctor.Step{Title: "Start Synapse", Manual: &doctor.ManualStep{Text: strings.TrimSpace(w.after()[1].text)}}
	section, err := synapse.ReadSection(w.t.PostgresConfig, doctor.Masked)
	if err == nil {
		var content []byte
		if content, err = os.ReadFile(entry.File); err == nil {
			var splices []synapse.Splice
			if splices, err = synapse.EditDatabase(content, section); err == nil {
				sum := sha256.Sum256(content)
				edit := &doctor.EditFileStep{Path: entry.File, Before: hex.EncodeToString(sum[:]), Splices: splices, Format: "yaml"}
				if section.Password {
					edit.Configured = w.db.Label
				}
				p.Steps = []doctor.Step{{Title: "Put the new section in the place of the old one", EditFile: edit}, start}
				return p, nil
			}
		}
	}
	reason := err.Error()
	if e, ok := errors.AsType[*synapse.EditError](err); ok {
		reason = e.Reason
	}
	p.Title = "Put the database section for PostgreSQL into " + entry.File + " by hand"
	p.Reversible, p.UndoOnFailure, p.Irreversible, p.Requires = false, false, "it is done by hand", nil
	p.Steps = []doctor.Step{{Title: "Exchange the section database", Manual: &doctor.ManualStep{
		Text: fmt.Sprintf("The doctor does not edit %s itself: %s. Take the section database out of it, and put that of %s in its place.", entry.File, reason, w.t.PostgresConfig)}}, start}
	return p, nil
}
