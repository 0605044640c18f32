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

// mark is the greatest number in use at one place, counted upwards even where a column holds it negated.
type mark struct {
	where string // events.stream_ordering, or stream_positions (master)
	n     int64
	from  string // the expression that reads it
	table columnInfo
}

func greatest(marks []mark) int64 {
	n := int64(0)
	for _, m := range marks {
		n = max(n, m.n)
	}
	return n
}

// state is where one sequence, and everything that uses its numbers, stands.
type state struct {
	known
	at     sequenceInfo
	read   bool  // of a stray: value and tables were asked for
	value  int64 // last_value, as it stands
	called bool  // is_called

	tables    []mark
	positions []mark // of each writer in stream_positions
	readers   []mark
	outsized  int64 // users whose names are numbers of 19 digits or more, which no sequence ever reaches
}

// last is the last number that the sequence gave out; 0 when it gave none.
func (s *state) last() int64 {
	if s.called {
		return s.value
	}
	return s.value - 1
}

// needed is the number at which nothing in use is ahead of the sequence. It is at least 1: no sequence can be set to 0,
// and several writers sharing a stream take 1 for used.
func (s *state) needed() int64 {
	return max(s.last(), greatest(s.tables), greatest(s.positions), greatest(s.readers), 1)
}

// limit is the greatest number that the sequence and the columns that it feeds can hold.
func (s *state) limit() int64 {
	limit := s.at.Max
	for _, m := range s.tables {
		if m.table.Int4 {
			limit = min(limit, 1<<31-1)
		}
	}
	return limit
}

// examined is what was seen of one database.
type examined struct {
	sequences []*state // those that Synapse makes
	strays    []*state // the others in its schema
	// unread says what could not be looked at, and why. A check that saw this has not seen everything.
	unread []error
}

// examine reads where every sequence of the database stands, in two round trips and without reading a large table.
//
// A sequence does not keep to the transaction's snapshot as rows do. With Synapse at work it is read as it is now, later
// than the rows: it may be further ahead of them, and never seems to be behind.
func examine(ctx context.Context, tx pgx.Tx, db *doctor.Database, deep bool) (*examined, error) {
	c, err := readCatalog(ctx, tx, wanted())
	if err != nil {
		return nil, err
	}
	e, q := compose(c, db, deep)
	if err := q.ask(ctx, tx); err != nil {
		return nil, err
	}
	e.unread = q.unread
	return e, nil
}

// wanted are the columns that say how far sequences must have come.
func wanted() []column {
	list := []column{userNames, writerPositions}
	for _, k := range all {
		list = append(append(list, k.feeds...), k.readers...)
	}
	return list
}

// compose lays out what is to be examined, and the questions that fill it in.
func compose(c *catalog, db *doctor.Database, deep bool) (*examined, *questions) {
	e, q := &examined{}, &questions{catalog: c, deep: deep, refused: map[string]bool{}}
	streams := map[string]*state{}
	for _, k := range all {
		at, ok := c.sequences[k.name]
		if !ok || !db.Holds(k.store) || !q.mayRead(at) {
			continue
		}
		s := &state{known: k, at: at}
		e.sequences = append(e.sequences, s)
		q.value(s)
		for _, col := range k.feeds {
			q.greatest(col, k.down, &s.tables)
		}
		for _, col := range k.readers {
			q.greatest(col, false, &s.readers)
		}
		if k.localparts {
			q.localparts(s)
		}
		if k.stream != "" {
			streams[k.stream] = s
		}
	}
	q.positions(streams)
	for _, name := range slices.Sorted(maps.Keys(c.sequences)) {
		if slices.ContainsFunc(all, func(k known) bool { return k.name == name }) {
			continue
		}
		s := &state{known: known{name: name}, at: c.sequences[name]}
		e.strays = append(e.strays, s)
		if s.read = s.at.MayRead && len(e.strays) <= maxStraysRead; s.read {
			q.stray(s)
		}
	}
	return e, q
}

var (
	userNames       = column{table: "users", column: "name"}
	writerPositions = column{table: "stream_positions", column: "stream_id"}
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

func (q *questions) mayRead(s sequenceInfo) bool {
	if !s.MayRead {
		q.refuse(s.Ident, "sequence %s may not be read: GRANT SELECT ON SEQUENCE %s TO the role that the doctor logs in with", s.Name, s.Ident)
	}
	return s.MayRead
}

// column finds a column that exists and may be read.
func (q *questions) column(c column) (columnInfo, bool) {
	info, ok := q.columns[c.String()]
	if ok && !info.MayRead {
		q.refuse(info.Ident, "table %s may not be read: GRANT SELECT ON %s TO the role that the doctor logs in with", info.Table, info.Ident)
		return info, false
	}
	return info, ok
}

// mayScan says whether a table may be read whole.
func (q *questions) mayScan(info columnInfo) bool {
	if q.deep || info.Bytes <= scanLimit {
		return true
	}
	q.refuse(info.Ident, "table %s holds %d MB and has no index on %s: it is only read with --deep", info.Table, info.Bytes>>20, info.Column)
	return false
}

func (q *questions) value(s *state) {
	q.put("SELECT last_value, is_called FROM "+s.at.Ident, 2, func(a answer) { s.value, s.called = *a.Number, *a.Called })
}

// greatest reads the greatest number of a column, or of the negated numbers the one furthest down.
func (q *questions) greatest(c column, down bool, marks *[]mark) {
	info, ok := q.column(c)
	if !ok {
		return
	}
	// Locked against writers, a plan can afford the plain expression, which people can read.
	m := mark{where: c.String(), from: extreme(info, c.where, down), table: info}
	sql := "SELECT " + m.from
	switch {
	case info.Indexed || c.where != "":
	case info.GroupedBy != "" && !down:
		sql = byGroups(info)
	case !q.mayScan(info):
		return
	}
	*marks = append(*marks, m)
	at := len(*marks) - 1
	q.put(sql, 1, func(a answer) {
		if a.Number != nil {
			(*marks)[at].n = max(*a.Number, 0)
		}
	})
}

func extreme(c columnInfo, where string, down bool) string {
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
func byGroups(c columnInfo) string {
	last := func(where string) string {
		return fmt.Sprintf("(SELECT %[1]s AS k, %[2]s AS v FROM %[3]s%[4]s ORDER BY %[1]s DESC, %[2]s DESC LIMIT 1)",
			c.GroupedBy, c.ColumnIdent, c.Ident, where)
	}
	return fmt.Sprintf("WITH RECURSIVE g AS (%s UNION ALL SELECT n.k, n.v FROM g, LATERAL %s n) SELECT max(v) FROM g",
		last(""), last(" WHERE "+c.GroupedBy+" < g.k"))
}

// localparts reads the greatest number among user names such as @123:server. 18 digits always fit; longer numbers are
// counted: Synapse gives none, and one of them would not fit any sequence.
func (q *questions) localparts(s *state) {
	info, ok := q.column(userNames)
	if !ok {
		return
	}
	m := mark{where: "users.name", table: info, from: fmt.Sprintf(
		"(SELECT max(substring(name FROM '^@([0-9]{1,18}):')::bigint) FROM %s WHERE name ~ '^@[0-9]{1,18}:')", info.Ident)}
	// In the order of bytes all numbers stand together, from '@0' to before '@:', and the index finds them.
	between := " WHERE name >= '@0' AND name < '@:'"
	if !info.ByteOrder || !info.Indexed {
		between = ""
		if !q.mayScan(info) {
			return
		}
	}
	s.tables = append(s.tables, m)
	at := len(s.tables) - 1
	q.put(fmt.Sprintf("SELECT max(substring(name FROM '^@([0-9]{1,18}):')::bigint), NULL::boolean, "+
		"(count(*) FILTER (WHERE name ~ '^@[0-9]{19,}:'))::text FROM %s%s", info.Ident, between), 3, func(a answer) {
		if a.Number != nil {
			s.tables[at].n = *a.Number
		}
		_, _ = fmt.Sscan(*a.Name, &s.outsized) // a count
	})
}

// positions reads how far each writer of a stream has come. It is a small table: a row for each writer and stream.
func (q *questions) positions(streams map[string]*state) {
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
		if s.down {
			n = -n
		}
		s.positions = append(s.positions, mark{where: fmt.Sprintf("stream_positions (%s)", *a.Detail), n: max(n, 0), table: info,
			from: extreme(info, "stream_name = '"+s.stream+"'", s.down)})
	})
}

// stray reads a sequence that Synapse does not make, and the column that owns it. What it can't read it leaves out:
// whose it is, Synapse's role need not be able to read it.
func (q *questions) stray(s *state) {
	q.value(s)
	info, ok := q.columns[s.at.OwnerTable+"."+s.at.OwnerColumn]
	if ok && info.MayRead && (info.Indexed || info.Bytes <= scanLimit) {
		q.greatest(column{table: info.Table, column: info.Column}, false, &s.tables)
	}
}
