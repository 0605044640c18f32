//go:build synapse

package main_test

import (
	"slices"
	"strings"
	"testing"
)

// tended takes from a running Synapse what it can work without for a while: indexes, the planner's hint, autovacuum. The
// doctor names each, and gives it back while Synapse goes on working. It returns what alice has written by then.
func tended(t *testing.T, h *homeserver, p patient, room string, texts []string) []string {
	for _, sql := range []string{
		"DROP INDEX events_room_stream",
		"DROP INDEX receipts_linearized_unique_index",
		"ALTER TABLE state_groups_state ALTER COLUMN state_group RESET (n_distinct)",
		"ALTER TABLE event_json SET (autovacuum_enabled = off)",
	} {
		h.db.Exec(t, sql)
	}
	r := p.check(t, 2, "schema", "upkeep")
	want := []string{
		"schema/missing-index of events_room_stream", "schema/missing-index of receipts_linearized_unique_index",
		"schema/option-lost of state_groups_state.state_group",
	}
	got := slices.DeleteFunc(r.found("schema"), func(f string) bool { return strings.HasPrefix(f, "schema/index-being-built ") }) // Synapse is new
	if !slices.Equal(got, want) {
		t.Errorf("found %q, want %q", got, want)
	}
	if got := r.found("upkeep"); !slices.Contains(got, "upkeep/autovacuum-off-on-table of event_json") {
		t.Errorf("found %q", got)
	}
	alice := h.login(t, "alice")
	for _, check := range []string{"schema", "upkeep"} {
		r := p.fix(t, 0, check)
		if !r.Applied {
			t.Errorf("the fix says %+v", r)
		}
		for _, plan := range r.Plans {
			if plan.Status != "applied" {
				t.Errorf("%s is %s: %s", plan.ID, plan.Status, plan.Reason)
			}
		}
	}
	alice.send(t, room, "sent beside a repair")
	texts = append(texts, "sent beside a repair")
	alice.reads(t, room, texts)
	p.sound(t)
	return texts
}
