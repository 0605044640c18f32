package engine

import (
	"fmt"
	"slices"
	"strings"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
)

// Selection is which checks are wanted.
type Selection struct {
	Wanted []string // ids of checks, or codes; empty for every check
	Skip   []string // ids of checks
}

// SelectionError is a name that no loaded plugin knows.
type SelectionError struct {
	Name  string
	Known []string
	// Unasked says of each plugin that could not be asked for its checks, why.
	Unasked []string
}

func (e *SelectionError) Error() string {
	if len(e.Unasked) > 0 {
		return fmt.Sprintf("there is no check or code %q among the plugins that could be asked: %s", e.Name, strings.Join(e.Unasked, "; "))
	}
	return fmt.Sprintf("there is no check or code %q: the checks are %s; synapse-doctor list shows them with their codes", e.Name, strings.Join(e.Known, ", "))
}

// selected is one check to run.
type selected struct {
	source *described
	info   doctor.CheckInfo
	asked  bool     // by name
	codes  []string // only these are wanted; empty for all
}

// wants reports whether a finding with this code belongs in the report.
func (s selected) wants(code string) bool { return len(s.codes) == 0 || slices.Contains(s.codes, code) }

func (e *Engine) selectChecks(sel Selection) ([]selected, error) {
	var all []selected
	var ids, unasked []string
	for i := range e.described {
		d := &e.described[i]
		if d.err != nil {
			unasked = append(unasked, e.reason(d.err))
			for _, id := range e.recorded(d) {
				all = append(all, selected{source: d, info: doctor.CheckInfo{ID: id, Title: "a check of the plugin " + d.source.Name()}})
				ids = append(ids, id)
			}
			continue
		}
		for _, c := range d.Checks {
			all = append(all, selected{source: d, info: c})
			ids = append(ids, c.ID)
		}
	}
	for _, skip := range sel.Skip {
		if !slices.Contains(ids, skip) {
			return nil, &SelectionError{skip, ids, unasked}
		}
	}
	whole := map[string]bool{}
	codes := map[string][]string{}
	for _, name := range sel.Wanted {
		id := doctor.CheckID(name)
		i := slices.Index(ids, id)
		if i < 0 {
			return nil, &SelectionError{name, ids, unasked}
		}
		switch {
		case id == name:
			whole[id] = true
		case all[i].source.err != nil: // whether it has that code is not known
			whole[id] = true
		case !slices.ContainsFunc(all[i].info.Codes, func(c doctor.Code) bool { return c.ID == name }):
			return nil, &SelectionError{name, ids, unasked}
		default:
			codes[id] = append(codes[id], name)
		}
	}
	var picked []selected
	for _, s := range all {
		id := s.info.ID
		if slices.Contains(sel.Skip, id) {
			continue
		}
		if len(sel.Wanted) > 0 {
			if !whole[id] && codes[id] == nil {
				continue
			}
			s.asked = true
			if !whole[id] {
				s.codes = codes[id]
			}
		}
		picked = append(picked, s)
	}
	return picked, nil
}

// recorded are the ids of the checks of a plugin that could not be asked, as far as they are nobody else's.
func (e *Engine) recorded(d *described) []string {
	terms := doctor.TermsOf(d.source)
	if terms == nil {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(terms.Checks), func(id string) bool {
		for i := range e.described {
			other := &e.described[i]
			if other == d {
				continue
			}
			if other.err == nil && slices.ContainsFunc(other.Checks, func(c doctor.CheckInfo) bool { return c.ID == id }) {
				return true
			}
			if t := doctor.TermsOf(other.source); other.err != nil && i < e.at(d) && t != nil && slices.Contains(t.Checks, id) {
				return true
			}
		}
		return false
	})
}

func (e *Engine) at(d *described) int {
	return slices.IndexFunc(e.described, func(other described) bool { return other.source == d.source })
}
