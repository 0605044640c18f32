package version

import (
	"context"
	"fmt"
	"strings"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/synapse"
)

// SCRAM came with PostgreSQL 10, to the library libpq as well.
const firstWithSCRAM = 100000

// examineClient looks at the Python that runs Synapse. Where Synapse runs on another machine there is none to be found,
// which is no fault, and nothing that ought to have been examined here.
func examineClient(ctx context.Context, t *doctor.Target, places synapse.PythonPlaces, needsSCRAM bool) ([]doctor.Finding, error) {
	places.Named, places.ConfigFiles = t.SynapsePython, t.ConfigFiles
	python, err := places.FindPython(ctx)
	if err != nil {
		return nil, fmt.Errorf("ask Synapse's Python for its PostgreSQL client: %w", err)
	}
	if python == nil {
		return nil, nil
	}
	return judgeClient(python, needsSCRAM), nil
}

func judgeClient(p *synapse.Python, needsSCRAM bool) []doctor.Finding {
	f := doctor.Finding{Severity: doctor.Error, Object: doctor.Object{Kind: "python", Name: p.Path}, Evidence: clientEvidence(p)}
	switch {
	case p.Client == synapse.ClientAbsent:
		f.Code = NoPsycopg2
		f.Summary = "The Python that runs Synapse has no psycopg2, without which Synapse can't use PostgreSQL and does not start."
		f.Observed = "no module psycopg2"
		f.Expected = "psycopg2 2.8 or newer"
		f.Remedy = installClient(p)
	case p.Client == synapse.ClientBroken && lacksLibPQ(p):
		f.Code = BrokenPsycopg2
		f.Summary = "The psycopg2 of the Python that runs Synapse does not find the library libpq it needs, so Synapse does not start."
		f.Observed = p.ClientError
		f.Expected = "psycopg2 can be loaded"
		f.Remedy = installLibPQ(p)
	case p.Client == synapse.ClientBroken:
		f.Code = BrokenPsycopg2
		f.Summary = "The psycopg2 of the Python that runs Synapse is there but can't be loaded, so Synapse does not start."
		f.Observed = p.ClientError
		f.Expected = "psycopg2 can be loaded"
		f.Remedy = reinstallClient(p)
	case p.LibPQ > 0 && p.LibPQ < firstWithSCRAM:
		f.Code = OldLibPQ
		f.Summary = fmt.Sprintf("Synapse's psycopg2 uses libpq %s, which can't log in with a password where the server asks for SCRAM.", libpqVersion(p.LibPQ))
		f.Observed = "libpq " + libpqVersion(p.LibPQ)
		f.Expected = "libpq 10 or newer"
		f.Remedy = upgradeLibPQ(p)
		if !needsSCRAM {
			f.Severity = doctor.Warning
			f.Summary = fmt.Sprintf("Synapse's psycopg2 uses libpq %s, which can't log in with a password once the server asks for SCRAM.", libpqVersion(p.LibPQ))
		}
	default:
		return nil
	}
	f.Remedy += "\nIf Synapse runs with another Python than " + p.Path + ", name that one with --synapse-python."
	return []doctor.Finding{f}
}

func clientEvidence(p *synapse.Python) map[string]string {
	e := map[string]string{"found": p.Found, "python": p.Version}
	if p.PyPy {
		e["python"] = "PyPy, Python " + p.Version
	}
	for name, value := range map[string]string{"synapse": p.Synapse, "psycopg2": p.ClientVersion, "installed from": p.ClientDist, "owner": p.Owner} {
		if value != "" {
			e[name] = value
		}
	}
	if p.LibPQ > 0 {
		e["libpq"] = libpqVersion(p.LibPQ)
	}
	return e
}

// lacksLibPQ tells the system's library, libpq.so.5, from one that a wheel brings along, such as libpq-4fa63d26.so.5.9.
// A symbol of libpq that is missing is an older library than psycopg2 was built with.
func lacksLibPQ(p *synapse.Python) bool {
	return strings.Contains(p.ClientError, "libpq.so") || strings.Contains(p.ClientError, "undefined symbol: PQ")
}

// libpqVersion writes 90623 as 9.6.23 and 150018 as 15.18.
func libpqVersion(n int) string {
	if n < firstWithSCRAM {
		return fmt.Sprintf("%d.%d.%d", n/10000, n/100%100, n%100)
	}
	return fmt.Sprintf("%d.%d", n/10000, n%10000)
}
