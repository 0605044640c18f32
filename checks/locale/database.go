package locale

import (
	"fmt"
	"strings"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
)

const wanted = "COLLATE C, CTYPE C, provider libc"

// judgeOwn judges how the database itself compares text.
func (c *catalog) judgeOwn() []doctor.Finding {
	var found []doctor.Finding
	if !c.own.passes() {
		found = append(found, c.notC())
	}
	if c.own.passes() && c.own.Provider != "c" {
		found = append(found, c.otherProvider())
	}
	if c.own.edited() {
		found = append(found, c.catalogEdited())
	}
	if c.allowed != nil {
		found = append(found, c.unsafeAllowed())
	}
	return found
}

func (c *catalog) object() doctor.Object { return doctor.Object{Kind: "database", Name: c.own.Name} }

func (c *catalog) notC() doctor.Finding {
	f := doctor.Finding{
		Code: NotC, Severity: doctor.Error, Object: c.object(), Fixable: c.UTF8,
		Observed: c.own.String(), Expected: wanted, Evidence: c.evidence(),
	}
	f.Summary = fmt.Sprintf("The database %s has COLLATE %s and CTYPE %s: Synapse refuses to start on it", c.own.Name, c.own.Collate, c.own.Ctype)
	if c.allowed != nil {
		f.Severity = doctor.Warning
		f.Summary = fmt.Sprintf("The database %s has COLLATE %s and CTYPE %s: Synapse starts on it only because allow_unsafe_locale is set", c.own.Name, c.own.Collate, c.own.Ctype)
	}
	switch {
	case c.own.bytewise():
		f.Summary += "."
	case c.own.Provider == "i":
		f.Summary += ", and an update of the library ICU can put its text indexes out of order."
	default:
		f.Summary += ", and an update of the system's C library can put its text indexes out of order."
	}
	f.Remedy = c.moveToC()
	return f
}

// otherProvider is a database that Synapse takes for one in C. The builtin provider compares bytes as C does, whatever its
// locale; only what is a letter, and its upper and lower case, then come from the Unicode tables of the server's version.
// So it is advice and ICU, whose order changes with the library, is not.
func (c *catalog) otherProvider() doctor.Finding {
	f := doctor.Finding{
		Code: ProviderNotLibcC, Object: c.object(),
		Observed: c.own.String(), Expected: wanted, Evidence: c.evidence(),
	}
	if c.own.Provider == "b" {
		f.Severity = doctor.Info
		f.Summary = fmt.Sprintf("The database %s compares text by PostgreSQL's builtin provider (locale %s): in the same order as C, so that Synapse works with it.", c.own.Name, c.own.Locale)
		f.Remedy = "Nothing has to be done. The order of text is that of its bytes and never changes."
		if c.own.Locale != "C" {
			f.Remedy += " What counts as a letter, and its upper and lower case, comes from the Unicode tables of PostgreSQL's version: after an upgrade to a new major version the search index may miss some rare letters."
		}
		f.Remedy += " When a database is made anew, make it with libc, as Synapse's documentation does:\n\n    " + c.createdb(c.own.Name)
		return f
	}
	f.Severity, f.Fixable = doctor.Warning, c.UTF8
	f.Summary = fmt.Sprintf("The database %s is C by name only: the library ICU compares its text (locale %s), and an update of it can put the text indexes out of order.", c.own.Name, c.own.Locale)
	f.Remedy = "Synapse looks at COLLATE and CTYPE and sees C, but with the provider icu they decide nothing.\n\n" + c.moveToC()
	return f
}

func (c *catalog) catalogEdited() doctor.Finding {
	f := doctor.Finding{
		Code: CatalogEdited, Severity: doctor.Error, Object: c.object(), Fixable: c.UTF8,
		Summary: fmt.Sprintf("The database %s was made in another locale and became %s by editing the catalog: its text indexes are still in the old order, so that keys which exist are not found and are stored again.",
			c.own.Name, c.own.Collate),
		Observed: fmt.Sprintf("COLLATE %s with the recorded collation version %s", c.own.Collate, *c.own.Recorded),
		Expected: fmt.Sprintf("no recorded version: the locale %s has none", c.own.Collate),
		Evidence: c.evidence(),
	}
	f.Remedy = c.mendEdited()
	return f
}

func (c *catalog) unsafeAllowed() doctor.Finding {
	f := doctor.Finding{
		Code: UnsafeAllowed, Severity: doctor.Info, Object: doctor.Object{Kind: "setting", Name: "allow_unsafe_locale"},
		Summary:  "allow_unsafe_locale is set, although the database is in C: should it ever be restored in another locale, Synapse would start on it without a word.",
		Observed: "allow_unsafe_locale: true (" + c.allowed.String() + ")", Expected: "no such setting",
		Evidence: map[string]string{"file": c.allowed.String(), "database": c.own.String()},
	}
	f.Remedy = fmt.Sprintf("Take line %d (allow_unsafe_locale) out of %s, and restart Synapse and its workers.", c.allowed.Line, c.allowed.File)
	if !c.own.sound() {
		f.Severity = doctor.Warning
		f.Summary = "allow_unsafe_locale is set, and the database is not in C: the setting silences Synapse and makes the locale no safer."
		f.Remedy = "First move the database to C: see what else is found here. " + f.Remedy
	}
	return f
}

// evidence says what compares text, and which indexes depend on it.
func (c *catalog) evidence() map[string]string {
	e := map[string]string{
		"provider":                   providerName(c.own.Provider),
		"recorded collation version": versionText(c.own.Recorded),
		"actual collation version":   versionText(c.own.Actual),
		"size of the database":       sizeText(c.Bytes),
	}
	if c.Version < 150000 {
		e["recorded collation version"] = "none: PostgreSQL records it since version 15"
	}
	if c.own.bytewise() && !c.own.edited() {
		e["text indexes"] = fmt.Sprintf("%d; none depends on a library, since text is compared byte by byte", len(c.byDefault()))
		return e
	}
	affectedEvidence(e, c.byDefault())
	return e
}

// shownIndexes is how many indexes are named in evidence and remedies.
const shownIndexes = 10

// affectedEvidence adds which indexes are affected, and what it takes to rebuild them.
func affectedEvidence(e map[string]string, affected []index) {
	unique, bytes := 0, int64(0)
	var largest []string
	for _, x := range affected {
		if x.Unique {
			unique++
		}
		bytes += x.Bytes
		if len(largest) < shownIndexes {
			largest = append(largest, x.text())
		}
	}
	e["text indexes"] = fmt.Sprintf("%d, of which %d unique, %s in all", len(affected), unique, sizeText(bytes))
	if len(affected) == 0 {
		return
	}
	e["largest indexes"] = strings.Join(largest, ", ")
	e["time to rebuild them"], e["disk to rebuild them"] = rebuildText(affected)
}

// text is the index in evidence: name (OID, size, unique).
func (x index) text() string {
	s := fmt.Sprintf("%s (OID %d, %s", x.shown(), x.OID, sizeText(x.Bytes))
	if x.Unique {
		s += ", unique"
	}
	return s + ")"
}

// shown is the name for people: with its schema where that is not the usual one.
func (x index) shown() string {
	if x.Schema == "public" {
		return x.Name
	}
	return x.Schema + "." + x.Name
}
