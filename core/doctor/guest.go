package doctor

import (
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"sync"

	"github.com/synapse-doctor/synapse-doctor/core/pgdb"
)

// Guest is a [Source] that may be a third party's. What it is handed, and what its plans may do, is bounded.
type Guest interface {
	Source
	// Terms are nil for one of our own.
	Terms() *Terms
}

// TermsOf are the terms of a source; nil for one of our own.
func TermsOf(s Source) *Terms {
	if g, ok := s.(Guest); ok {
		return g.Terms()
	}
	return nil
}

// Terms are what the administrator allows a plugin of a third party. The zero value allows it to look, without a database.
type Terms struct {
	Entry    string   // where they are written, for people: plugins.acme in FILE; empty for one that is being developed
	Checks   []string // the ids of its checks as they were recorded; nil: whatever it says
	Changes  *Effects // all that its plans may change, as it was recorded; nil: whatever it says
	Update   string   // the command that records it anew
	AllowFix bool     // its plans may be applied
	// TrustDatabase: it is handed Synapse's login, in sessions that default to read only.
	TrustDatabase bool
	// Reader is what it connects with otherwise, as it is written; nil: it is handed no connection to PostgreSQL. It must be
	// proved, and handed over by Admit, for each database.
	Reader pgdb.Settings

	mu       sync.Mutex
	admitted map[string]pgdb.Settings
}

// Admit lets the plugin connect to the database of this label with settings that were proved to read only; nil takes
// that back.
func (t *Terms) Admit(label string, settings pgdb.Settings) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.admitted == nil {
		t.admitted = map[string]pgdb.Settings{}
	}
	t.admitted[label] = settings
}

// Admitted reports whether the plugin is handed a connection to the database of this label.
func (t *Terms) Admitted(label string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.TrustDatabase || t.admitted[label] != nil
}

// HowToAllow says where the administrator allows the plugin's plans to be applied.
func (t *Terms) HowToAllow() string {
	return fmt.Sprintf("allow_fix: true under %s allows that", t.Entry)
}

// HowToConnect says where the administrator gives the plugin a connection to the database.
func (t *Terms) HowToConnect() string {
	return fmt.Sprintf("read_dsn (a role that has only pg_read_all_data), or trust_database: true, under %s gives it one", t.Entry)
}

// Handed is the target as the plugin's checks and plans get to see it: never with the administrator's connection, and with
// Synapse's login only where the administrator trusts the plugin with the database.
func (t *Terms) Handed(target *Target) *Target {
	out := target.ReadOnly()
	if t.TrustDatabase {
		return out
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	out.Replicas = nil
	for _, d := range out.Databases {
		if d.Engine != Postgres {
			continue
		}
		d.OSUser = ""
		d.Settings = maps.Clone(t.admitted[d.Label])
		if d.Settings == nil {
			d.Meets &^= NeedsPostgres | NeedsSynapse
			continue
		}
		d.Settings["options"] = strings.TrimSpace(d.Settings["options"] + " -c default_transaction_read_only=on")
	}
	return out
}

// Operating is the target of one approved operation of the plugin: with Synapse's login to the database of this label, which
// is the one that it says it changes, and otherwise as its checks see it. An empty label stands for none.
//
// What the operation does with that login is not watched: it can change whatever Synapse's role can, in as many transactions
// as it likes, whatever it has declared. Nor is what its process does with files. An operation is a matter of trust.
func (t *Terms) Operating(target *Target, label string) *Target {
	out, handed := t.ForOperation(target), t.Handed(target)
	out.Replicas = handed.Replicas
	for i, d := range out.Databases {
		if d.Label != label || label == "" {
			out.Databases[i] = handed.Databases[i]
		}
	}
	return out
}

// ForOperation is the target that the engine passes for an approved operation, as the plugin gets it: with the logins in it,
// and never the administrator's.
func (t *Terms) ForOperation(target *Target) *Target {
	out := target.copied()
	out.Replicas, out.Writable = target.Replicas, true
	for _, d := range target.Databases {
		out.Databases = append(out.Databases, &Database{Label: d.Label, Engine: d.Engine, DataStores: d.DataStores, Meets: d.Meets &^ NeedsAdmin,
			Settings: maps.Clone(d.Settings), Path: d.Path, NoAdmin: "a plugin of a third party is handed none",
			OSUser: d.OSUser, SystemID: d.SystemID, DataDir: d.DataDir, runID: d.runID})
	}
	return out
}

// Bounds is all that the plan may change, where it is a third party's; nil for one of our own. The engine sets it, and it is
// kept with the plan.
func (p Plan) Bounds() *Effects { return p.bounds }

// Bound sets what [Plan.Bounds] returns.
func (p *Plan) Bound(e *Effects) { p.bounds = e }

// planFields is a plan without its methods.
type planFields Plan

type boundPlan struct {
	*planFields
	Bounds *Effects `json:",omitempty"`
}

// MarshalJSON keeps the bounds with the plan.
func (p Plan) MarshalJSON() ([]byte, error) {
	return json.Marshal(boundPlan{(*planFields)(&p), p.bounds})
}

// UnmarshalJSON is the inverse of MarshalJSON.
func (p *Plan) UnmarshalJSON(data []byte) error {
	b := boundPlan{planFields: (*planFields)(p)}
	if err := json.Unmarshal(data, &b); err != nil {
		return err
	}
	p.bounds = b.Bounds
	return nil
}
