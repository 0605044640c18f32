// Package sdk turns a list of checks into a plugin of synapse-doctor. It imports core/doctor and the wire.
//
// A plugin is a program that serves checks. This is a whole one:
//
//	package main
//
//	import (
//		"context"
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
//			// look, with t.Main().Read; say what is wrong, with r.Find
//			return nil
//		},
//	}
//
// Build it, and try it:
//
//	synapse-doctor check --dev-plugin ./synapse-doctor-plugin-acme
//
// What the author may rely on:
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
// What the author must keep to: Run and Plan only read; a plan is data (see core/doctor); ids of checks are unique
// among all plugins, so begin them with the plugin's name; no secret in any text.
package sdk
