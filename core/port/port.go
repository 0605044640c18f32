// Package port copies a homeserver's SQLite database into PostgreSQL, and proves that the copy is equal.
//
// It may be interrupted at any instant and run again with a newer file: what it has stored it knows by hashes, in tables of
// its own in the target that are written in the transactions of the data. It is used by the checks port and vacuum.
package port

import (
	"strings"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/pghash"
)

// Pair returns the file and the database of a target that has both: the one that is moved, and where it is moved to. Nil
// where there is none.
func Pair(t *doctor.Target) (file, database *doctor.Database) {
	for _, d := range t.Databases {
		switch {
		case d.Engine == doctor.SQLite && file == nil:
			file = d
		case d.Engine == doctor.Postgres && d.Holds("main") && database == nil:
			database = d
		}
	}
	return file, database
}

// Table is a table that both sides have.
type Table struct {
	Name    string   // as the target has it: the relation's bare name
	Ident   string   // quoted, with its schema, as a statement names it
	Source  string   // as the file has it; event_search_content for event_search
	Columns []Column // that are copied, in the order of their lower-case names
	Key     []string // the columns of its primary key, else of its first unique index; empty without
	Rows    int64    // the server's estimate; for the order of work only
	OID     uint32

	rowid     string // what its rowid is called in the file; empty in a table WITHOUT ROWID
	order     string // by which such a table is read
	triggered bool   // the target has triggers that fire for new rows
}

// Column is a column that is copied.
type Column struct {
	Name     string // as the target has it
	Source   string // as the file has it; matched without regard to case
	Type     uint32 // OID of the target's type
	TypeName string // format_type, with its modifier
	NotNull  bool
	MaxChars int // of varchar(n); 0: no limit
	// Hashed is the expression whose hash stands for the column's: the column itself, or, where its type has no hash
	// (tsvector, json, arrays), what tells the same.
	Hashed string

	cast string // the type without its modifier, to which a text is cast
}

// hash is the expression that gives a row's hash, of the columns in their order. The table is not to have an alias.
func (t Table) hash() string {
	parts := make([]string, len(t.Columns))
	for i, c := range t.Columns {
		parts[i] = c.Hashed
	}
	return pghash.RowSQL(strings.Join(parts, ", "))
}

// Match is what the two sides have in common, and what they have not.
type Match struct {
	Tables []Table
	// Left are tables of both sides that are not copied, with the reason.
	Left map[string]string
	// OnlySource are tables of the file, with rows, that the target has not: those of modules, mostly.
	OnlySource []string
	// OnlyTarget are tables of the target that the file has not.
	OnlyTarget []string
	// Unequal are sentences about columns that one side lacks.
	Unequal []string

	keys []foreignKey
}

// Oddity is a cell that can't be stored as it is, or a row that can't be stored at all.
type Oddity struct {
	Table  string
	Rowid  int64
	Key    string // what tells the row from others, for people
	Column string
	Reason string // a sentence
	Lost   bool   // the row can't be stored, and goes into quarantine
}

// Difference is how a table's content differs between the file and the target.
type Difference struct {
	Table       string
	Source      int64    // rows of the file that ought to be there
	Target      int64    // rows that are there
	Content     bool     // the same number of rows, and not the same content
	MissingKeys []string // some of the rows that only the file has, by key; bounded
	SurplusKeys []string // some of the rows that only the target has
	ChangedKeys []string // some of the rows that both have, with other values
}
