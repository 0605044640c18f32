package schema

import "slices"

// Synapse can keep its state groups in a database of their own. These tables and deltas go there; what is in bookkeeping is in
// both databases, everything else in the main one (seen in Synapse 1.160).
var (
	stateTables = []string{"state_group_edges", "state_groups", "state_groups_pending_deletion", "state_groups_persisting", "state_groups_state"}
	stateDeltas = []string{
		"89/01_state_groups_deletion.sql", "90/02_delete_unreferenced_state_groups.sql", "90/03_remove_old_deletion_bg_update.sql",
	}
	stateSequences = []string{"state_group_id_seq", "state_groups_pending_deletion_sequence_number_seq"}
	bookkeeping    = []string{"applied_module_schemas", "applied_schema_deltas", "background_updates", "schema_compat_version", "schema_version"}
)

// of is the part of the catalog that a database with these stores has.
func (c *Catalog) of(main, state bool) *Catalog {
	if main && state {
		return c
	}
	has := func(name string, ofState []string) bool { return slices.Contains(ofState, name) == state }
	out := &Catalog{
		Synapse: c.Synapse, Schema: c.Schema, Source: c.Source, whole: c,
		Tables: map[string]*Table{}, Sequences: map[string]Sequence{}, Functions: map[string]string{},
	}
	for _, d := range c.Deltas {
		if has(d, stateDeltas) {
			out.Deltas = append(out.Deltas, d)
		}
	}
	for name, t := range c.Tables {
		if slices.Contains(bookkeeping, name) || has(name, stateTables) {
			out.Tables[name] = t
		}
	}
	for name, s := range c.Sequences {
		if has(name, stateSequences) {
			out.Sequences[name] = s
		}
	}
	if main { // no table of the state store has a trigger
		out.Functions = c.Functions
	}
	return out
}
