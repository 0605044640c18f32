package database

import (
	"fmt"
	"net"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
)

// judge fills in the faults of every entry. What belongs to a role or to the server is said once, however many entries
// share it.
func judge(entries []*entry) {
	said := map[string]bool{}
	for _, e := range entries {
		e.existence(said)
		if e.database != nil {
			e.access()
		}
		if e.inside != nil {
			e.schema()
			e.owners()
			e.searchPath(said)
		}
		e.clientEncoding(said)
		e.limits(entries, said)
	}
}

// once reports whether this has not been said of the entry's server before.
func (e *entry) once(said map[string]bool, words ...string) bool {
	key := fmt.Sprint(e.serverKey(), words)
	was := said[key]
	said[key] = true
	return !was
}

// serverKey is the same for entries that are on the same server.
func (e *entry) serverKey() string {
	if e.db.SystemID != "" {
		return e.db.SystemID
	}
	host := e.db.Settings["host"]
	if host == "" {
		host = e.db.Settings["hostaddr"]
	}
	return net.JoinHostPort(host, e.db.Settings["port"])
}

// find adds a fault. One that is Fixable is so only where the doctor may change the database at all.
func (e *entry) find(f doctor.Finding, advice, byHand string) {
	f.Database = e.db.Label
	f.Remedy = e.remedy(f.Fixable, advice, byHand)
	f.Fixable = f.Fixable && e.fixable() == ""
	if f.Evidence == nil {
		f.Evidence = map[string]string{}
	}
	f.Evidence["seen by"] = "Synapse's login"
	if e.admin {
		f.Evidence["seen by"] = "the administrator"
	}
	e.faults = append(e.faults, fault{Finding: f})
}

// findUnlessMissing adds a fault that is latent while the role is missing.
func (e *entry) findUnlessMissing(f doctor.Finding, advice, byHand string) {
	e.find(f, advice, byHand)
	e.faults[len(e.faults)-1].latent = e.login.OID == 0
}

func roleObject(name string) doctor.Object     { return doctor.Object{Kind: "role", Name: name} }
func databaseObject(name string) doctor.Object { return doctor.Object{Kind: "database", Name: name} }
