package schema

import (
	"bytes"
	"embed"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
)

// Catalog is what the schema of one release of Synapse holds, once its background updates are done. A file below catalog/
// holds one; cmd/catalog makes it from a live schema. The same type carries what a database has: the fields that say so are
// never set in a file.
type Catalog struct {
	Synapse   string              `json:"synapse"` // 1.160
	Schema    int                 `json:"schema"`  // schema_version
	Source    string              `json:"source"`  // where the facts were seen
	Deltas    []string            `json:"deltas"`  // of applied_schema_deltas, above [Base]; sorted
	Tables    map[string]*Table   `json:"tables"`
	Sequences map[string]Sequence `json:"sequences"`
	Functions map[string]string   `json:"functions"` // of triggers: MD5 of the body with each run of white space as one blank

	whole *Catalog // of both stores, where this is the part of one
}

// both is the catalog of both stores.
func (c *Catalog) both() *Catalog {
	if c.whole != nil {
		return c.whole
	}
	return c
}

// Base is the version of the full schema that new databases begin with: since Synapse 1.98 there is no other. What older
// databases went through before it is in no catalog.
const Base = 72

// Table is a table with all that belongs to it.
type Table struct {
	Unlogged    bool         `json:"unlogged,omitempty"`
	Columns     []Column     `json:"columns"`
	Indexes     []Index      `json:"indexes,omitempty"`
	Constraints []Constraint `json:"constraints,omitempty"` // foreign keys and CHECKs
	Triggers    []Trigger    `json:"triggers,omitempty"`

	Schema      string `json:"schema,omitempty"`      // live: where it is
	Mine        bool   `json:"mine,omitempty"`        // live: this role may change it
	Rows        int64  `json:"rows,omitempty"`        // live: the server's estimate; -1: never counted
	Building    bool   `json:"building,omitempty"`    // live: an index of it is being built at this moment
	Unpublished bool   `json:"no_identity,omitempty"` // live: published for updates or deletes, and no row of it can be identified
	Publication string `json:"publication,omitempty"` // live: a publication with its updates or deletes
}

// Column is one column of a table.
type Column struct {
	Name      string `json:"name"`
	Type      string `json:"type"` // as format_type writes it
	NotNull   bool   `json:"not_null,omitempty"`
	Default   string `json:"default,omitempty"`
	Identity  string `json:"identity,omitempty"` // a: ALWAYS, d: BY DEFAULT
	NDistinct string `json:"n_distinct,omitempty"`
	Generated bool   `json:"generated,omitempty"` // live
}

// Index is an index of a table.
type Index struct {
	Name       string `json:"name"`
	Unique     bool   `json:"unique,omitempty"`
	Constraint string `json:"constraint,omitempty"` // p, u or x, where a constraint owns it
	Def        string `json:"def"`                  // as pg_get_indexdef writes it, from the method on, without storage parameters

	Invalid  bool `json:"invalid,omitempty"`   // live: indisvalid is false
	NotReady bool `json:"not_ready,omitempty"` // live: indisready is false
	Busy     bool `json:"busy,omitempty"`      // live: somebody is building, rebuilding or dropping it
}

// Constraint is a foreign key or a CHECK.
type Constraint struct {
	Name     string `json:"name"`
	Def      string `json:"def"`                 // as pg_get_constraintdef writes it, without NOT VALID
	NotValid bool   `json:"not_valid,omitempty"` // rows from before it were not compared with it
}

// Trigger is a trigger of a table.
type Trigger struct {
	Name     string `json:"name"`
	Def      string `json:"def"`                // BEFORE INSERT OR UPDATE FOR EACH ROW
	Function string `json:"function"`           // without arguments
	Disabled bool   `json:"disabled,omitempty"` // live: ALTER TABLE … DISABLE TRIGGER, or ENABLE REPLICA TRIGGER
}

// Sequence is a sequence, and the column that it goes with, if any: table.column.
type Sequence struct {
	OwnedBy string `json:"owned_by,omitempty"`
}

//go:embed catalog/*.json
var files embed.FS

// Catalogs are the known ones, the oldest first. They are read once, and nobody may change them.
var Catalogs = sync.OnceValues(readCatalogs)

func readCatalogs() ([]*Catalog, error) {
	entries, err := files.ReadDir("catalog")
	if err != nil {
		return nil, err
	}
	var all []*Catalog
	for _, e := range entries {
		text, err := files.ReadFile("catalog/" + e.Name())
		if err != nil {
			return nil, err
		}
		c := &Catalog{}
		if err := json.Unmarshal(text, c); err != nil {
			return nil, fmt.Errorf("read the catalog %s: %w", e.Name(), err)
		}
		all = append(all, c)
	}
	// Deltas are only ever added.
	slices.SortFunc(all, func(a, b *Catalog) int { return len(a.Deltas) - len(b.Deltas) })
	return all, nil
}

// Encode writes the catalog as a file: a line for each column, index and so on, in a fixed order, so that two releases can
// be compared line by line.
func (c *Catalog) Encode() ([]byte, error) {
	var b bytes.Buffer
	head := []struct {
		key   string
		value any
	}{{"synapse", c.Synapse}, {"schema", c.Schema}, {"source", c.Source}}
	b.WriteString("{\n")
	for _, h := range head {
		fmt.Fprintf(&b, " %s: %s,\n", line(h.key), line(h.value))
	}
	b.WriteString(" \"deltas\": [\n")
	list(&b, "  ", c.Deltas)
	b.WriteString(" ],\n \"tables\": {\n")
	names := slices.Sorted(maps.Keys(c.Tables))
	for i, name := range names {
		t := c.Tables[name]
		fmt.Fprintf(&b, "  %s: {", line(name))
		if t.Unlogged {
			b.WriteString(`"unlogged": true, `)
		}
		b.WriteString("\"columns\": [\n")
		list(&b, "   ", t.Columns)
		b.WriteString("  ]")
		part(&b, "indexes", t.Indexes)
		part(&b, "constraints", t.Constraints)
		part(&b, "triggers", t.Triggers)
		b.WriteString("}" + comma(i, len(names)) + "\n")
	}
	b.WriteString(" },\n \"sequences\": {\n")
	pairs(&b, c.Sequences)
	b.WriteString(" },\n \"functions\": {\n")
	pairs(&b, c.Functions)
	b.WriteString(" }\n}\n")
	if !json.Valid(b.Bytes()) {
		return nil, fmt.Errorf("the catalog of %s was not written as JSON", c.Synapse)
	}
	return b.Bytes(), nil
}

func part[T any](b *bytes.Buffer, key string, items []T) {
	if len(items) > 0 {
		fmt.Fprintf(b, ", %s: [\n", line(key))
		list(b, "   ", items)
		b.WriteString("  ]")
	}
}

func list[T any](b *bytes.Buffer, indent string, items []T) {
	for i, item := range items {
		b.WriteString(indent + line(item) + comma(i, len(items)) + "\n")
	}
}

func pairs[T any](b *bytes.Buffer, items map[string]T) {
	names := slices.Sorted(maps.Keys(items))
	for i, name := range names {
		b.WriteString("  " + line(name) + ": " + line(items[name]) + comma(i, len(names)) + "\n")
	}
}

// line is a value as JSON on one line, with < and > as they are.
func line(v any) string {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return "null"
	}
	return strings.TrimSuffix(b.String(), "\n")
}

func comma(i, n int) string {
	if i < n-1 {
		return ","
	}
	return ""
}
