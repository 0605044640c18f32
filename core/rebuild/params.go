package rebuild

import (
	"fmt"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
)

// params are what the plan has decided, and what tells a server's databases apart in every later call.
type params struct {
	label    string
	database string // its name before and after
	oid      uint32 // of the old database, whatever it is called
	fresh    string // the new one's name while it is filled
	before   string // the old one's after the exchange
	rebuilt  string // the new one's after an undo
	// sourceEncoding is what the bytes of a SQL_ASCII database are taken to be; empty: UTF8.
	sourceEncoding string
}

// longestName is the most bytes that a name has (NAMEDATALEN-1).
const longestName = 63

func newParams(label, database string, oid uint32, sourceEncoding string, now time.Time) params {
	at := now.UTC().Format("20060102_150405")
	named := func(what string) string {
		suffix := "_" + what + "_" + at
		head := database[:min(len(database), longestName-len(suffix))]
		for !utf8.ValidString(head) {
			head = head[:len(head)-1]
		}
		return head + suffix
	}
	return params{label, database, oid, named("rebuild"), named("before"), named("rebuilt"), sourceEncoding}
}

func (p params) toMap() map[string]string {
	m := map[string]string{"label": p.label, "database": p.database, "oid": strconv.FormatUint(uint64(p.oid), 10),
		"new": p.fresh, "before": p.before, "rebuilt": p.rebuilt}
	if p.sourceEncoding != "" {
		m["source-encoding"] = p.sourceEncoding
	}
	return m
}

func readParams(step doctor.OperationStep) (params, error) {
	m := step.Params
	p := params{label: m["label"], database: m["database"], fresh: m["new"], before: m["before"], rebuilt: m["rebuilt"], sourceEncoding: m["source-encoding"]}
	oid, err := strconv.ParseUint(m["oid"], 10, 32)
	if err != nil {
		return p, fmt.Errorf("operation %s: the OID %q of the database is not a number", step.Name, m["oid"])
	}
	p.oid = uint32(oid)
	for name, value := range map[string]string{"database": p.database, "new": p.fresh, "before": p.before, "rebuilt": p.rebuilt} {
		if value == "" || len(value) > longestName {
			return p, fmt.Errorf("operation %s: the parameter %s=%q is not the name of a database", step.Name, name, value)
		}
	}
	return p, nil
}
