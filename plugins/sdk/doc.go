// Package sdk turns a list of checks into a plugin of synapse-doctor. It imports core/doctor and the wire.
//
// A plugin is a program that serves checks. This is a whole one:
//
//	package main
//
//	import (
//		"context"
//
//		"github.com/jackc/pgx/v5"
//
//		"github.com/synapse-doctor/synapse-doctor/core/doctor"
//		"github.com/synapse-doctor/synapse-doctor/plugins/sdk"
//	)
//
//	func main() {
//		sdk.Serve(sdk.Plugin{Name: "acme", Version: "1.2", Checks: []doctor.Check{bridges}})
//	}
//
//	var bridges = doctor.Check{
//		ID:    "acme-bridges",
//		Title: "Bridges have room for their messages",
//		Why:   "A bridge that falls behind loses messages without a word.",
//		Needs: doctor.NeedsSynapse,
//		Codes: []doctor.Code{{ID: "acme-bridges/behind", Title: "a bridge is behind", Severity: doctor.Warning}},
//		Run: func(ctx context.Context, t *doctor.Target, r doctor.Reporter) error {
//			return t.Main().Read(ctx, func(tx pgx.Tx) error {
//				// look, with tx.Query; say what is wrong, with r.Find
//				return nil
//			})
//		},
//	}
//
// Build it, and try it:
//
//	go build -o synapse-doctor-plugin-acme .
//	synapse-doctor check --dev-plugin ./synapse-doctor-plugin-acme
//
// synapse-doctor plugin new NAME writes such a project with its tests, and docs/plugins.md is the author's guide.
//
// # A fix
//
// Where something can be done, the check has a Plan. It changes nothing: it answers findings with steps, as data, which the
// host shows, asks for, carries out, records, and can put back. Say what the plans may change; what goes beyond it is refused:
//
//	Changes: doctor.Effects{Tables: []string{"application_services_state"}},
//	Plan: func(ctx context.Context, t *doctor.Target, findings []doctor.Finding) ([]doctor.Plan, error) {
//		plan := doctor.Plan{
//			ID: "acme-bridges/wake", Title: "Wake the bridges that are behind", Risk: doctor.Careful,
//			Expects: doctor.ExpectSynapse, Database: findings[0].Database, Reversible: true,
//		}
//		for _, f := range findings {
//			bridge := []doctor.Value{{V: f.Object.Name}}
//			plan.Covers = append(plan.Covers, f.Key())
//			plan.Steps = append(plan.Steps, doctor.Step{Title: "Wake " + f.Object.Name, SQL: &doctor.SQLStep{
//				Database: f.Database, Mode: doctor.ModeAlone, MaxRows: 1,
//				Statement: `UPDATE application_services_state SET state = 'up' WHERE as_id = $1 AND state = 'down'`, Args: bridge,
//				Guard:     &doctor.Guard{Query: `SELECT state = 'down' FROM application_services_state WHERE as_id = $1`, Args: bridge, Else: "It is up."},
//				Undo:      []doctor.UndoSQL{{Statement: `UPDATE application_services_state SET state = 'down' WHERE as_id = $1 AND state = 'up'`, Args: bridge}},
//			}})
//		}
//		return []doctor.Plan{plan}, nil
//	},
//
// plugins/sdk/sdktest takes the check through all of it on a real server. What a statement changes or deletes beyond such a
// flag is read before, with a doctor.Save, and put back row by row: docs/plugins.md shows it.
//
// # What the author may rely on
//
//   - Checks run at the same time, in one process that the host starts and ends. Nothing is kept from one run to the next.
//   - The target comes with each request. The environment holds PATH, HOME, the locale, TZ, TMPDIR and proxies: no PGPASSWORD, no
//     secret. Stdin belongs to the host; the end of it ends the process.
//   - Printing is harmless once Serve is called: stdout and stderr go to the host's debug log, and the end of them is shown
//     when the plugin crashes. Before Serve, nothing may be printed to stdout.
//   - A check that panics is reported as unknown, with the panic's value; the other checks go on. A panic in a goroutine
//     that the check has started ends the process: the host starts it once more and asks for each lost check alone.
//   - ctx ends when the administrator gives up or the check's time is over. A check that ignores it is left behind.
//   - An interrupt at the terminal is the host's business: the plugin ignores it, and sees ctx end.
//
// # What the author must keep to
//
// Run and Plan only read; a plan is data (see core/doctor); ids of checks are unique among all plugins, so begin them with
// the plugin's name; no secret in any text. What could not be looked at is an error from Run, never silence; what does not apply is
// doctor.Skip.
//
// # What the administrator trusts
//
// A plugin runs as the user who runs synapse-doctor, and can do what that user can. It is run only once that user has added it, by
// its SHA-256. It is handed a login that reads, or none, and its plans are applied only where the administrator allows that.
package sdk
