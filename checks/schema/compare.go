package schema

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
)

// comparison finds what a database lacks. What goes with something else that is missing (the indexes of a column, the foreign
// keys that lead to a table) is named there, and no loss of its own.
type comparison struct {
	have   *live
	want   wanted
	losses []loss
}

// loss is a difference that matters to Synapse.
type loss struct {
	code     string
	severity doctor.Severity
	object   doctor.Object
	table    string // that it belongs to
	summary  string
	observed string
	expected string
	remedy   string
	evidence map[string]string
	mend     *mend // what the doctor can do; nil: nothing
	waits    bool  // for a background update
}

// compare lists what have lacks of want, by table.
func compare(have *live, want wanted) []loss {
	c := &comparison{have: have, want: want}
	for _, name := range slices.Sorted(maps.Keys(want.Tables)) {
		c.table(name, want.Tables[name], have.Tables[name])
	}
	c.functions()
	c.sequences()
	return c.losses
}

func (c *comparison) add(l loss) {
	if l.evidence == nil {
		l.evidence = map[string]string{}
	}
	if l.table != "" {
		l.evidence["table"] = l.table
	}
	c.losses = append(c.losses, l)
}

func (c *comparison) table(name string, want, have *Table) {
	if have == nil {
		c.missingTable(name)
		return
	}
	at := place{name, have}
	if have.Unlogged && !want.Unlogged {
		c.unlogged(at)
	}
	lost := c.columns(at, want)
	c.indexes(at, want, lost)
	c.constraints(at, want, lost)
	c.triggers(at, want)
	if have.Unpublished {
		c.unpublished(at)
	}
}

// place is a table of the database.
type place struct {
	Name string
	*Table
}

// sql is the table as it is written in statements.
func (p place) sql() string { return ident(p.Schema, p.Name) }

func (t *Table) column(name string) *Column {
	if t == nil {
		return nil
	}
	if i := slices.IndexFunc(t.Columns, func(c Column) bool { return c.Name == name }); i >= 0 {
		return &t.Columns[i]
	}
	return nil
}

// columns compares them by name, not by order, and returns those that are missing.
func (c *comparison) columns(at place, want *Table) (lost []string) {
	for _, w := range want.Columns {
		h := at.column(w.Name)
		if h == nil {
			lost = append(lost, w.Name)
			c.missingColumn(at, w, want)
			continue
		}
		if w.Type != "" && h.Type != w.Type && buildsOf(c.have.Queue, at.Name, w.Name) == "" {
			c.columnType(at, w, *h)
		}
		switch {
		case w.NotNull && !h.NotNull:
			c.nullability(at, w, false)
		case !w.NotNull && h.NotNull && c.want.Exact && h.fills() == "":
			c.nullability(at, w, true)
		}
		switch {
		case w.Identity != "" && h.Identity == "":
			c.identityLost(at, w, *h)
		case w.Default != "" && !sameDefault(w.Default, *h) && !c.sequenceLost(w.Default):
			c.defaultLost(at, w, *h)
		}
		if w.NDistinct != "" && h.NDistinct == "" {
			c.optionLost(at, w)
		}
	}
	if c.want.Exact {
		for _, h := range at.Columns {
			if want.column(h.Name) == nil && h.NotNull && h.fills() == "" {
				c.columnInTheWay(at, h)
			}
		}
	}
	return lost
}

// fills is what gives the column a value where an INSERT gives none.
func (c Column) fills() string {
	if c.Generated {
		return "generated"
	}
	return c.Default + c.Identity
}

var cast = regexp.MustCompile(`::[a-z ]+(\([0-9]+\))?$`)

// sameDefault reports whether a column has the default that is wanted. Constants are compared; an expression is written by
// each major version of PostgreSQL in its own way, and keeps the form of the one that the table was made on.
func sameDefault(want string, have Column) bool {
	if have.Default == "" {
		return have.fills() != ""
	}
	if strings.Contains(want, "(") || strings.Contains(have.Default, "(") {
		return true
	}
	bare := func(s string) string { return strings.Trim(cast.ReplaceAllString(s, ""), "'") }
	return bare(want) == bare(have.Default)
}

// sequenceLost reports whether a default draws from a sequence that is missing, which is told instead.
func (c *comparison) sequenceLost(def string) bool {
	for name := range c.want.Sequences {
		if _, there := c.have.Sequences[name]; !there && mentions(def, name) {
			return true
		}
	}
	return false
}

// indexes compares by definition: what an index, or the constraint that it belongs to, is called differs between databases of
// different ages. Of two over the same keys one is enough, and one that keeps them unique does what a plain one does.
func (c *comparison) indexes(at place, want *Table, lost []string) {
	for _, w := range want.Indexes {
		if containsAny(w.Def, lost) {
			continue
		}
		var broken *Index
		found, busy := false, false
		for i, h := range at.Indexes {
			if h.Def != w.Def || w.Unique && !h.Unique {
				continue
			}
			switch {
			case !h.Invalid && !h.NotReady:
				found = true
			case h.Busy:
				busy = true
			case h.Name == w.Name: // another name is mostly that of a REINDEX that failed, of which the check locale tells
				broken = &at.Indexes[i]
			}
		}
		if found {
			continue
		}
		update := buildsOf(c.have.Queue, at.Name, w.Name)
		switch {
		case broken == nil && busy:
			c.beingBuilt(at, w, update, true)
		case broken != nil:
			c.invalidIndex(at, w, *broken, update)
		case update != "":
			c.beingBuilt(at, w, update, false)
		default:
			c.missingIndex(at, w)
		}
	}
}

// containsAny reports whether a definition names one of the columns.
func containsAny(def string, names []string) bool {
	return slices.ContainsFunc(names, func(n string) bool { return mentions(def, n) })
}

var word = regexp.MustCompile(`[A-Za-z0-9_$]+`)

func mentions(text, name string) bool {
	return slices.Contains(word.FindAllString(text, -1), name)
}

func (c *comparison) constraints(at place, want *Table, lost []string) {
	for _, w := range want.Constraints {
		columns, refers, _ := strings.Cut(w.Def, " REFERENCES ")
		if containsAny(columns, lost) || refers != "" && c.gone(refers) {
			continue
		}
		i := slices.IndexFunc(at.Constraints, func(h Constraint) bool { return h.Def == w.Def })
		switch {
		case i < 0:
			c.missingConstraint(at, w)
		case at.Constraints[i].NotValid && !w.NotValid:
			c.notValid(at, w, at.Constraints[i])
		}
	}
}

// gone reports whether the table that a foreign key leads to, or one of its columns there, is missing.
func (c *comparison) gone(refers string) bool {
	target, rest, _ := strings.Cut(refers, "(")
	target = strings.Trim(target, `" `)
	want := c.want.Tables[target]
	if want == nil {
		return false
	}
	have := c.have.Tables[target]
	if have == nil {
		return true
	}
	columns, _, _ := strings.Cut(rest, ")")
	return slices.ContainsFunc(want.Columns, func(w Column) bool { return mentions(columns, w.Name) && have.column(w.Name) == nil })
}

func (c *comparison) triggers(at place, want *Table) {
	for _, w := range want.Triggers {
		_, known := c.want.Functions[w.Function]
		if _, there := c.have.Functions[w.Function]; known && !there {
			continue // it can't be there without its function, which is told instead
		}
		i := slices.IndexFunc(at.Triggers, func(h Trigger) bool { return h.Def == w.Def && h.Function == w.Function })
		switch {
		case i < 0:
			c.missingTrigger(at, w)
		case at.Triggers[i].Disabled:
			c.triggerDisabled(at, at.Triggers[i])
		}
	}
}

func (c *comparison) functions() {
	for _, name := range slices.Sorted(maps.Keys(c.want.Functions)) {
		have, there := c.have.Functions[name]
		if there && have == c.want.Functions[name] {
			continue
		}
		var of []string
		for _, table := range slices.Sorted(maps.Keys(c.want.Tables)) {
			for _, g := range c.want.Tables[table].Triggers {
				if g.Function == name && c.have.Tables[table] != nil {
					of = append(of, table)
				}
			}
		}
		if len(of) > 0 {
			c.triggerFunction(name, of, there)
		}
	}
}

func (c *comparison) sequences() {
	for _, name := range slices.Sorted(maps.Keys(c.want.Sequences)) {
		want := c.want.Sequences[name]
		table, column, owned := strings.Cut(want.OwnedBy, ".")
		if owned {
			t := c.have.Tables[table]
			if t == nil || t.column(column) == nil {
				continue // it went with them
			}
			if w := c.want.Tables[table].column(column); w != nil && w.Identity != "" {
				continue // a column that lost its identity lost its sequence, or took another
			}
		}
		have, there := c.have.Sequences[name]
		switch {
		case !there:
			c.missingSequence(name, want)
		case owned && have.OwnedBy != want.OwnedBy:
			c.sequenceOwner(name, want, have)
		}
	}
}

// plain are names that need no quotes.
var plain = regexp.MustCompile(`^[a-z_][a-z0-9_]*$`)

// reserved are the words of SQL among the names that Synapse might choose.
var reserved = map[string]bool{
	"user": true, "order": true, "group": true, "table": true, "column": true, "default": true, "check": true,
	"end": true, "limit": true, "offset": true, "to": true,
}

// ident writes a name for a statement.
func ident(parts ...string) string {
	var out []string
	for _, p := range parts {
		if p == "" {
			continue
		}
		if !plain.MatchString(p) || reserved[p] {
			p = `"` + strings.ReplaceAll(p, `"`, `""`) + `"`
		}
		out = append(out, p)
	}
	return strings.Join(out, ".")
}

// keys are the columns, or expressions, of an index, without the method and the predicate.
func keys(def string) string {
	i := strings.Index(def, "(")
	if i < 0 {
		return def
	}
	text, _, _ := strings.Cut(def[i:], " WHERE ")
	return text
}

// createIndex is the statement that makes an index.
func createIndex(at place, w Index) string {
	unique := ""
	if w.Unique {
		unique = "UNIQUE "
	}
	return fmt.Sprintf("CREATE %sINDEX CONCURRENTLY %s ON %s USING %s", unique, ident(w.Name), at.sql(), w.Def)
}
