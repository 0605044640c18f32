package version

import (
	"fmt"
	"slices"
	"strings"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
)

// maxNamed bounds how many names one evidence holds.
const maxNamed = 60

// judgeUpdates tells queued updates from stuck ones, as far as a single look can: Synapse works them off one at a time,
// so a long queue is no fault, and whether the one at work moves can't be seen at once. A fresh schema has 54 of them.
func judgeUpdates(f facts) []doctor.Finding {
	if len(f.updates) == 0 {
		return nil
	}
	evidence := updatesEvidence(f.updates)
	object := doctor.Object{Kind: "table", Name: "background_updates"}
	if loop := waitingForEachOther(f.updates); len(loop) > 0 {
		return []doctor.Finding{{
			Code: UpdatesStuck, Severity: doctor.Warning, Object: object,
			Summary:  fmt.Sprintf("Background updates wait for each other (%s), so none of these is ever done.", strings.Join(loop, ", ")),
			Observed: fmt.Sprintf("%d queued, %d of them in a circle of depends_on", len(f.updates), len(loop)),
			Expected: "every queued update can be reached",
			Remedy: "Synapse does not queue updates like this; somebody changed the table. See what is there, and ask Synapse's developers before changing it:\n" +
				"    SELECT update_name, depends_on, progress_json FROM background_updates ORDER BY ordering, update_name;",
			Evidence: evidence,
		}}
	}
	if len(f.invalid) > 0 {
		evidence["invalid indexes"] = named(f.invalid)
		return []doctor.Finding{{
			Code: UpdatesStuck, Severity: doctor.Warning, Object: object,
			Summary: fmt.Sprintf("Background updates are queued and a build of the index %s has failed: most likely one of them fails whenever it is tried.",
				strings.Join(f.invalid[:min(3, len(f.invalid))], ", ")),
			Observed: fmt.Sprintf("%d queued; not valid, and not being built: %s", len(f.updates), named(f.invalid)),
			Expected: "an index that is valid, or that is being built",
			Remedy: "Look for \"Error doing background update\" in Synapse's log: it names the update and why it fails; for a unique index that is mostly rows " +
				"that are there twice. Synapse gives up after five failures until it is started again. Never delete the row from background_updates: " +
				"the index would be missing for ever. See what is queued:\n" +
				"    SELECT update_name, depends_on, progress_json FROM background_updates ORDER BY ordering, update_name;",
			Evidence: evidence,
		}}
	}
	return []doctor.Finding{{
		Code: UpdatesPending, Severity: doctor.Info, Object: object,
		Summary:  fmt.Sprintf("%s, which Synapse works off while it runs; whether it gets on can't be told from one look.", count(len(f.updates))),
		Observed: fmt.Sprintf("%d queued", len(f.updates)),
		Expected: "none, some hours after an upgrade or an import",
		Remedy: "Nothing needs to be done while the list gets shorter. Look again later; if it does not change, look for \"background update\" in Synapse's log:\n" +
			"    SELECT update_name, depends_on, progress_json FROM background_updates ORDER BY ordering, update_name;",
		Evidence: evidence,
	}}
}

func count(n int) string {
	if n == 1 {
		return "One background update is queued"
	}
	return fmt.Sprintf("%d background updates are queued", n)
}

func updatesEvidence(updates []update) map[string]string {
	queued := map[string]bool{}
	for _, u := range updates {
		queued[u.name] = true
	}
	var ready, waiting, begun []string
	for _, u := range updates {
		// What an update depends on counts as done when it is not queued.
		if u.dependsOn != "" && queued[u.dependsOn] {
			waiting = append(waiting, fmt.Sprintf("%s after %s", u.name, u.dependsOn))
		} else {
			ready = append(ready, u.name)
		}
		if u.begun {
			begun = append(begun, u.name)
		}
	}
	e := map[string]string{}
	for name, list := range map[string][]string{"can run": ready, "waiting": waiting, "has begun": begun} {
		if len(list) > 0 {
			e[name] = named(list)
		}
	}
	return e
}

func named(list []string) string {
	if len(list) > maxNamed {
		return fmt.Sprintf("%s and %d more", strings.Join(list[:maxNamed], ", "), len(list)-maxNamed)
	}
	return strings.Join(list, ", ")
}

// waitingForEachOther returns the updates that lie on a circle of depends_on, sorted.
func waitingForEachOther(updates []update) []string {
	next := map[string]string{}
	for _, u := range updates {
		next[u.name] = u.dependsOn
	}
	var loop []string
	for _, u := range updates {
		at := u.dependsOn
		for range updates {
			if at == u.name {
				loop = append(loop, u.name)
				break
			}
			if at = next[at]; at == "" {
				break
			}
		}
	}
	slices.Sort(loop)
	return loop
}
