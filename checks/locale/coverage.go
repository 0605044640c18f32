package locale

import (
	"fmt"
	"slices"
	"strings"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
)

// maxDamage is the most findings that are reported one by one: the engine gives up on a check with 1000.
const maxDamage = 900

// namesShown is how many of the indexes that were left out the coverage names; the error names fewer.
const (
	namesShown        = 20
	namesShownInError = 3
)

// leftOut is an index that was not examined, or not wholly.
type leftOut struct{ name, reason string }

// twin reports whether only amcheck could examine it.
func (l leftOut) twin() bool {
	before, _, _ := strings.Cut(twinReason, "%s")
	return strings.HasPrefix(l.reason, before)
}

// twins is the finding of the indexes that only amcheck could examine. That they are left out is no failure of this
// examination: without the extension there is no way to read them, and the server itself prefers their twins.
func (e *examination) twins() (f doctor.Finding, any bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	f = doctor.Finding{
		Code: IndexNotExamined, Severity: doctor.Info, Database: e.label, Object: doctor.Object{Kind: "database", Name: e.source.Settings["dbname"]},
		Expected: "the extension amcheck, and a login that may use it", Evidence: map[string]string{},
		Remedy: "Have an administrator make the extension in this database, then look again:\n\n    CREATE EXTENSION amcheck;\n\n    synapse-doctor check locale --deep\n\n" +
			"It can be dropped afterwards. Rebuilding the indexes is as good: what is new is in order.",
	}
	n := 0
	for _, l := range e.left {
		if !l.twin() {
			continue
		}
		if n++; n < doctor.MaxEvidence {
			f.Evidence[l.name] = l.reason
		}
	}
	f.Summary = fmt.Sprintf("The order of %d indexes could not be examined: each begins with the keys of another one, which PostgreSQL reads in its place.", n)
	if n == 1 {
		f.Summary = "The order of one index could not be examined: it begins with the keys of another one, which PostgreSQL reads in its place."
	}
	f.Observed = names(e.left, leftOut.twin, namesShown)
	return f, n > 0
}

func (e *examination) note(fn func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	fn()
}

func (e *examination) leave(x index, reason string) {
	e.note(func() { e.left = append(e.left, leftOut{x.Name, doctor.Clean(reason)}) })
}

// forget takes back an index that is no longer there.
func (e *examination) forget(x index) {
	e.note(func() {
		e.all--
		if x.Unique {
			e.unique--
		}
	})
}

func (e *examination) find(f doctor.Finding) {
	e.mu.Lock()
	e.findings++
	folded := e.findings > maxDamage
	if folded {
		e.folded++
	}
	e.mu.Unlock()
	if !folded {
		e.reporter.Find(f)
	}
}

// coverage is the line that says how much was examined.
func (e *examination) coverage() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	var ways []string
	if e.byAmcheck > 0 {
		ways = append(ways, fmt.Sprintf("%d with amcheck", e.byAmcheck))
	}
	if e.bySQL > 0 {
		ways = append(ways, fmt.Sprintf("%d by SQL", e.bySQL))
	}
	text := fmt.Sprintf("order examined of %d of %d indexes over text", e.byAmcheck+e.bySQL, e.all)
	if len(ways) > 0 {
		text += " (" + strings.Join(ways, ", ") + ")"
	}
	text += fmt.Sprintf(", duplicates looked for in %d of %d unique ones", e.apart, e.unique)
	if e.invalid > 0 {
		text += fmt.Sprintf("; %d invalid, which the server does not use", e.invalid)
	}
	if e.folded > 0 {
		text += fmt.Sprintf("; %d more findings than are listed", e.folded)
	}
	if len(e.left) > 0 {
		text += "; not wholly examined: " + names(e.left, func(leftOut) bool { return true }, namesShown)
	}
	return text
}

// shortfall is the error of an examination that was not complete.
func (e *examination) shortfall() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case slices.ContainsFunc(e.left, notTwin):
		n := 0
		for _, l := range e.left {
			if !l.twin() {
				n++
			}
		}
		return fmt.Errorf("%d of %d indexes were not wholly examined: %s", n, e.all, names(e.left, notTwin, namesShownInError))
	case e.folded > 0:
		return fmt.Errorf("there are %d more damaged indexes than are listed", e.folded)
	}
	return nil
}

func notTwin(l leftOut) bool { return !l.twin() }

// names lists the first of those that were left out.
func names(left []leftOut, of func(leftOut) bool, limit int) string {
	var list []string
	more := 0
	for _, l := range left {
		switch {
		case !of(l):
		case len(list) == limit:
			more++
		default:
			list = append(list, fmt.Sprintf("%s (%s)", l.name, l.reason))
		}
	}
	if more > 0 {
		list = append(list, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(list, ", ")
}
