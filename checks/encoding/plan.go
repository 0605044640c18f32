package encoding

import (
	"context"
	"strings"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/rebuild"
)

func plan(ctx context.Context, t *doctor.Target, findings []doctor.Finding) ([]doctor.Plan, error) {
	var plans []doctor.Plan
	for _, db := range t.Meeting(doctor.NeedsPostgres) {
		asked := map[doctor.FindingKey]bool{}
		for _, f := range findings {
			if f.Database == db.Label {
				asked[f.Key()] = true
			}
		}
		if len(asked) == 0 {
			continue
		}
		s, err := look(ctx, db)
		if err != nil {
			return nil, err
		}
		if key := (doctor.FindingKey{Code: NotUTF8, Database: db.Label, Object: doctor.Object{Kind: "database", Name: s.Name}}); asked[key] && s.Encoding != "UTF8" {
			p, err := rebuild.Plan(ctx, t, db, "encoding", []doctor.FindingKey{key})
			if err != nil {
				return nil, err
			}
			plans = append(plans, p, manual(planID("rebuild-by-hand", db.Label), "Fill a new database that has the encoding UTF8, by hand", db.Label, s.rebuild(), key))
		}
		plans = append(plans, s.resets(db.Label, asked)...)
	}
	return plans, nil
}

// resets are the plans that take away settings of client_encoding: those that Synapse's role may take away in one, those
// that somebody else must in another. No finding is in both: settings of one object are of the same hands.
func (s *seen) resets(label string, asked map[doctor.FindingKey]bool) []doctor.Plan {
	own := doctor.Plan{
		ID: planID("reset-client-encoding", label), Title: "Take away the setting of client_encoding, so that sessions speak UTF-8",
		Risk: doctor.Safe, Expects: doctor.ExpectSynapse, Database: label, Reversible: true, UndoOnFailure: true,
	}
	var others []string
	var othersCover []doctor.FindingKey
	for _, x := range s.settings {
		key := doctor.FindingKey{Code: ClientEncodingSet, Database: label, Object: s.object(x)}
		switch {
		case !asked[key]:
		case s.mayReset(x):
			own.Steps = append(own.Steps, s.resetStep(label, x))
			own.Covers = addKey(own.Covers, key)
		default:
			others = append(others, s.whoMayReset(x)+"\n\n    "+s.reset(x)+";")
			othersCover = addKey(othersCover, key)
		}
	}
	var plans []doctor.Plan
	if len(own.Steps) > 0 {
		own.Steps = append(own.Steps, doctor.Step{Title: "Restart Synapse and its workers: sessions that are open keep their encoding",
			Manual: &doctor.ManualStep{Text: "Restart Synapse and all its workers. Sessions that are open keep the encoding with which they began."}})
		plans = append(plans, own)
	}
	if len(others) > 0 {
		plans = append(plans, manual(planID("reset-by-owner", label), "Have the setting of client_encoding taken away", label, strings.Join(others, "\n\n"), othersCover...))
	}
	return plans
}

func addKey(keys []doctor.FindingKey, key doctor.FindingKey) []doctor.FindingKey {
	if len(keys) > 0 && keys[len(keys)-1] == key {
		return keys
	}
	return append(keys, key)
}

// stillSet is true while the setting has this very value; $1 and $2 say whether it is the role's and the database's.
const stillSet = `SELECT EXISTS (SELECT FROM pg_db_role_setting s, unnest(s.setconfig) c(entry)
  WHERE s.setrole = CASE WHEN $1::boolean THEN (SELECT oid FROM pg_roles WHERE rolname = current_user) ELSE 0 END
    AND s.setdatabase = CASE WHEN $2::boolean THEN (SELECT oid FROM pg_database WHERE datname = current_database()) ELSE 0 END
    AND lower(c.entry) LIKE 'client\_encoding=%' AND ($3::text IS NULL OR substr(c.entry, strpos(c.entry, '=') + 1) = $3))`

func (s *seen) resetStep(label string, x setting) doctor.Step {
	place := []doctor.Value{{V: x.OfRole}, {V: x.OfDatabase}}
	return doctor.Step{Title: "Take away client_encoding " + x.Value, SQL: &doctor.SQLStep{
		Database: label, Mode: doctor.ModeGroup, Group: "reset",
		Statement: s.reset(x),
		Guard: &doctor.Guard{Query: stillSet, Args: append(place[:2:2], doctor.Value{V: x.Value}),
			Else: "The setting of client_encoding has changed since the plan was made: run the fix again."},
		Undo: []doctor.UndoSQL{{
			Statement: s.alter(x) + " SET client_encoding = '" + strings.ReplaceAll(x.Value, "'", "''") + "'",
			Guard: &doctor.Guard{Query: "SELECT NOT (" + stillSet + ")", Args: append(place[:2:2], doctor.Value{}),
				Else: "client_encoding was set anew since: putting the old value back would undo that."},
		}},
	}}
}

// planID is the same for the same database in every run.
func planID(what, label string) string {
	if label == "main" {
		return "encoding/" + what
	}
	return "encoding/" + what + "-" + label
}

func manual(id, title, label, text string, covers ...doctor.FindingKey) doctor.Plan {
	return doctor.Plan{ID: id, Covers: covers, Title: title, Risk: doctor.Careful, Expects: doctor.ExpectSynapse, Database: label,
		Irreversible: "it is done by hand", Steps: []doctor.Step{{Title: title, Manual: &doctor.ManualStep{Text: text}}}}
}
