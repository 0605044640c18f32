package sequence

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
)

// scanLimit is the size up to which a table is read whole where no index leads to the greatest value: Synapse reads the
// same tables whole each time one of its processes starts. Beyond it, --deep is needed.
const scanLimit = 64 << 20

// maxStraysRead bounds the sequences of others that are read. Each takes a lock on itself, its table and the table's
// indexes; the server has room for some 6400 in all (max_locks_per_transaction), and needs it for Synapse.
const maxStraysRead = 500

// Mark is the greatest number in use at one place, counted upwards even where a column holds it negated.
type Mark struct {
	Where string // events.stream_ordering, or stream_positions (master)
	N     int64
	From  string // the expression that reads it
	Table ColumnInfo
}

// Greatest is the greatest of the numbers; 0 without any.
func Greatest(marks []Mark) int64 {
	n := int64(0)
	for _, m := range marks {
		n = max(n, m.N)
	}
	return n
}

// State is where one sequence, and everything that uses its numbers, stands.
type State struct {
	Known
	At     Info
	Read   bool  // of a stray: Value and Tables were asked for
	Value  int64 // last_value, as it stands
	Called bool  // is_called

	Tables    []Mark
	Positions []Mark // of each writer in stream_positions
	ReadersAt []Mark
	Outsized  int64 // users whose names are numbers of 19 digits or more, which no sequence ever reaches
}

// Last is the last number that the sequence gave out; 0 when it gave none.
func (s *State) Last() int64 {
	if s.Called {
		return s.Value
	}
	return s.Value - 1
}

// Needed is the number at which nothing in use is ahead of the sequence. It is at least 1: no sequence can be set to 0,
// and several writers sharing a stream take 1 for used.
func (s *State) Needed() int64 {
	return max(s.Last(), Greatest(s.Tables), Greatest(s.Positions), Greatest(s.ReadersAt), 1)
}

// Limit is the greatest number that the sequence and the columns that it feeds can hold.
func (s *State) Limit() int64 {
	limit := s.At.Max
	for _, m := range s.Tables {
		if m.Table.Int4 {
			limit = min(limit, 1<<31-1)
		}
	}
	return limit
}

// Examined is what was seen of one database.
type Examined struct {
	Sequences []*State // those that Synapse makes
	Strays    []*State // the others in its schema
	// Unread says what could not be looked at, and why. A check that saw this has not seen everything.
	Unread []error
}

// Examine reads where every sequence of the database stands, in two round trips and without reading a large table.
//
// A sequence does not keep to the transaction's snapshot as rows do. With Synapse at work it is read as it is now, later
// than the rows: it may be further ahead of them, and never seems to be behind.
func Examine(ctx context.Context, tx pgx.Tx, db *doctor.Database, deep bool) (*Examined, error) {
	c, err := readCatalog(ctx, tx, wanted())
	if err != nil {
		return nil, err
	}
	e, q := compose(c, db, deep)
	if err := q.ask(ctx, tx); err != nil {
		return nil, err
	}
	e.Unread = q.unread
	return e, nil
}

// wanted are the columns that say how far sequences must have come.
func wanted() []Column {
	list := []Column{userNames, writerPositions}
	for _, k := range All {
		list = append(append(list, k.Feeds...), k.Readers...)
	}
	return list
}

// compose lays out what is to be examined, and the questions that fill it in.
func compose(c *catalog, db *doctor.Database, deep bool) (*Examined, *questions) {
	e, q := &Examined{}, &questions{catalog: c, deep: deep, refused: map[string]bool{}}
	streams := map[string]*State{}
	for _, k := range All {
		at, ok := c.sequences[k.Name]
		if !ok || !db.Holds(k.Store) || !q.mayRead(at) {
			continue
		}
		s := &State{Known: k, At: at}
		e.Sequences = append(e.Sequences, s)
		q.value(s)
		for _, col := range k.Feeds {
			q.greatest(col, k.Down, &s.Tables)
		}
		for _, col := range k.Readers {
			q.greatest(col, false, &s.ReadersAt)
		}
		if k.Localparts {
			q.localparts(s)
		}
		if k.Stream != "" {
			streams[k.Stream] = s
		}
	}
	q.positions(streams)
	for _, name := range slices.Sorted(maps.Keys(c.sequences)) {
		if slices.ContainsFunc(All, func(k Known) bool { return k.Name == name }) {
			continue
		}
		s := &State{Known: Known{Name: name}, At: c.sequences[name]}
		e.Strays = append(e.Strays, s)
		if s.Read = s.At.MayRead && len(e.Strays) <= maxStraysRead; s.Read {
			q.stray(s)
		}
	}
	return e, q
}

var (
	userNames       = Column{Table: "users", Column: "name"}
	writerPositions = Column{Table: "stream_positions", Column: "stream_id"}
)

// questions collects what is to be read and asks it all in one statement.
type questions struct {
	*catalog
	deep    bool
	selects []string
	takers  []func(answer)
	unread  []error
	refused map[string]bool
}

// answer is one row: the number of the question, and what it asked for.
type answer struct {
	Question int
	Number   *int64
	Called   *bool
	Name     *string
	Detail   *string
}

// put adds a question. Its SELECT gives a number, a boolean and two names, or a prefix of these.
func (q *questions) put(sql string, columns int, take func(answer)) {
	rest := []string{"NULL::bigint", "NULL::boolean", "NULL::text", "NULL::text"}[columns:]
	names := []string{"n", "called", "name", "detail"}[:columns]
	list := strings.Join(append(names, rest...), ", ")
	q.selects = append(q.selects, fmt.Sprintf("SELECT %d, %s FROM (%s) q(%s)", len(q.takers), list, sql, strings.Join(names, ", ")))
	q.takers = append(q.takers, take)
}

func (q *questions) statement() string { return strings.Join(q.selects, "\nUNION ALL ") }

func (q *questions) ask(ctx context.Context, tx pgx.Tx) error {
	if len(q.selects) == 0 {
		return nil
	}
	rows, err := tx.Query(ctx, q.statement())
	if err != nil {
		return fmt.Errorf("read the sequences and their tables: %w", err)
	}
	answers, err := pgx.CollectRows(rows, pgx.RowToStructByPos[answer])
	if err != nil {
		return fmt.Errorf("read the sequences and their tables: %w", err)
	}
	for _, a := range answers {
		q.takers[a.Question](a)
	}
	return nil
}

// refuse notes, once, that something could not be read.
func (q *questions) refuse(what string, format string, args ...any) {
	if !q.refused[what] {
		q.refused[what] = true
		q.unread = append(q.unread, fmt.Errorf(format, args...))
	}
}

func (q *questions) mayRead(s Info) bool {
	if !s.MayRead {
		q.refuse(s.Ident, "sequence %s may not be read: GRANT SELECT ON SEQUENCE %s TO the role that the doctor logs in with", s.Name, s.Ident)
	}
	return s.MayRead
}

// column finds a column that exists and may be read.
func (q *questions) column(c Column) (ColumnInfo, bool) {
	info, ok := q.columns[c.String()]
	if ok && !info.MayRead {
		q.refuse(info.Ident, "table %s may not be read: GRANT SELECT ON %s TO the role that the doctor logs in with", info.Table, info.Ident)
		return info, false
	}
	return info, ok
}

// mayScan says whether a table may be read whole.
func (q *questions) mayScan(info ColumnInfo) bool {
	if q.deep || info.Bytes <= scanLimit {
		return true
	}
	q.refuse(info.Ident, "table %s holds %d MB and has no index on %s: it is only read with --deep", info.Table, info.Bytes>>20, info.Column)
	return false
}

func (q *questions) value(s *State) {
	q.put("SELECT last_value, is_called FROM "+s.At.Ident, 2, func(a answer) { s.Value, s.Called = *a.Number, *a.Called })
}

// greatest reads the greatest number of a column, or of the negated numbers the one furthest down.
func (q *questions) greatest(c Column, down bool, marks *[]Mark) {
	info, ok := q.column(c)
	if !ok {
		return
	}
	// Locked against writers, a plan can afford the plain expression, which people can read.
	m := Mark{Where: c.String(), From: extreme(info, c.Where, down), Table: info}
	sql := "SELECT " + m.From
	switch {
	case info.Indexed || c.Where != "":
	case info.GroupedBy != "" && !down:
		sql = byGroups(info)
	case !q.mayScan(info):
		return
	}
	*marks = append(*marks, m)
	at := len(*marks) - 1
	q.put(sql, 1, func(a answer) {
		if a.Number != nil {
			(*marks)[at].N = max(*a.Number, 0)
		}
	})
}

func extreme(c ColumnInfo, where string, down bool) string {
	value := "max(" + c.ColumnIdent + ")"
	if down {
		value = "-min(" + c.ColumnIdent + ")"
	}
	if where != "" {
		where = " WHERE " + where
	}
	return fmt.Sprintf("(SELECT %s FROM %s%s)", value, c.Ident, where)
}

// byGroups finds the greatest value with one look into an index (group, value) for each group: the last entry, then the
// last one before that group, and so on.
func byGroups(c ColumnInfo) string {
	last := func(where string) string {
		return fmt.Sprintf("(SELECT %[1]s AS k, %[2]s AS v FROM %[3]s%[4]s ORDER BY %[1]s DESC, %[2]s DESC LIMIT 1)",
			c.GroupedBy, c.ColumnIdent, c.Ident, where)
	}
	return fmt.Sprintf("WITH RECURSIVE g AS (%s UNION ALL SELECT n.k, n.v FROM g, LATERAL %s n) SELECT max(v) FROM g",
		last(""), last(" WHERE "+c.GroupedBy+" < g.k"))
}

// localparts reads the greatest number among user names such as @123:server. 18 digits always fit; longer numbers are
// counted: Synapse gives none, and one of them would not fit any sequence.
func (q *questions) localparts(s *State) {
	info, ok := q.column(userNames)
	if !ok {
		return
	}
	m := Mark{Where: "users.name", Table: info, From: fmt.Sprintf(
		"(SELECT max(substring(name FROM '^@([0-9]{1,18}):')::bigint) FROM %s WHERE name ~ '^@[0-9]{1,18}:')", info.Ident)}
	// In the order of bytes all numbers stand together, from '@0' to before '@:', and the index finds them.
	between := " WHERE name >= '@0' AND name < '@:'"
	if !info.ByteOrder || !info.Indexed {
		between = ""
		if !q.mayScan(info) {
			return
		}
	}
	s.Tables = append(s.Tables, m)
	at := len(s.Tables) - 1
	q.put(fmt.Sprintf("SELECT max(substring(name FROM '^@([0-9]{1,18}):')::bigint), NULL::boolean, "+
		"(count(*) FILTER (WHERE name ~ '^@[0-9]{19,}:'))::text FROM %s%s", info.Ident, between), 3, func(a answer) {
		if a.Number != nil {
			s.Tables[at].N = *a.Number
		}
		_, _ = fmt.Sscan(*a.Name, &s.Outsized) // a count
	})
}

// positions reads how far each writer of a stream has come. It is a small table: a row for each writer and stream.
func (q *questions) positions(streams map[string]*State) {
	info, ok := q.column(writerPositions)
	if !ok {
		return
	}
	q.put("SELECT stream_id, NULL::boolean, stream_name, instance_name FROM "+info.Ident+" ORDER BY stream_name, instance_name", 4, func(a answer) {
		s, ok := streams[*a.Name]
		if !ok {
			return
		}
		n := *a.Number
		if s.Down {
			n = -n
		}
		s.Positions = append(s.Positions, Mark{Where: fmt.Sprintf("stream_positions (%s)", *a.Detail), N: max(n, 0), Table: info,
			From: extreme(info, "stream_name = '"+s.Stream+"'", s.Down)})
	})
}

// stray reads a sequence that Synapse does not make, and the column that owns it. What it can't read it leaves out:
// whose it is, Synapse's role need not be able to read it.
func (q *questions) stray(s *State) {
	q.value(s)
	info, ok := q.columns[s.At.OwnerTable+"."+s.At.OwnerColumn]
	if ok && info.MayRead && (info.Indexed || info.Bytes <= scanLimit) {
		q.greatest(Column{Table: info.Table, Column: info.Column}, false, &s.Tables)
	}
}
