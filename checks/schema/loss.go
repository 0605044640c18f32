package schema

import (
	"fmt"
	"strings"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
)

// What is told of each loss: the fault and what it costs, what is there, what Synapse's schema has, and the SQL.

// fresh is how the definition of something that the doctor does not carry is got.
func fresh(option string) string {
	return "Its definition is in a fresh schema of the same release of Synapse. Make an empty database in UTF8 and the locale C, " +
		"fill it with Synapse's own program, and look:\n\n" +
		"    update_synapse_database --database-config FRESH.yaml --run-background-updates\n    pg_dump --schema-only " + option + " FRESH"
}

// patience keeps a statement from queueing for a lock behind a long transaction, such as that of pg_dump, with all of Synapse
// queueing behind it.
const patience = "SET lock_timeout = '5s'"

func byHand(sql ...string) string {
	return "As the table's owner:\n\n    " + patience + ";\n    " + strings.Join(sql, ";\n    ") + ";\n\n" + timedOut
}

const timedOut = "While a statement waits for its lock, whatever else needs the table waits behind it, for five seconds at most. When " +
	"it times out it has changed nothing: try again later, when no long transaction (pg_dump) has the table."

func (c *comparison) missingTable(name string) {
	c.add(loss{
		code: MissingTable, severity: doctor.Error, object: doctor.Object{Kind: "table", Name: name},
		summary:  fmt.Sprintf("The table %s is missing: whatever of Synapse uses it fails.", name),
		observed: "no such table in the search_path of Synapse's role",
		expected: "a table of " + c.want.Label,
		remedy: "What was in it is lost with it, so restore a backup into an empty database if it held anything. See first whether " +
			"it is in another schema, or was renamed:\n\n" +
			fmt.Sprintf("    SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relname "+
				"LIKE '%%%s%%';\n\n", name) + fresh("--table="+name),
	})
}

func (c *comparison) unlogged(at place) {
	c.add(loss{
		code: Unlogged, severity: doctor.Error, table: at.Name, object: doctor.Object{Kind: "table", Name: at.Name},
		summary: fmt.Sprintf("The table %s is unlogged: a crash of the server empties it, and no replica or backup of its files "+
			"has its rows.", at.Name),
		observed: "relpersistence u", expected: "a logged table",
		remedy: "It is written anew, under a lock that everybody waits for, and all of it goes to the WAL. " + byHand("ALTER "+
			"TABLE "+at.sql()+" SET LOGGED"),
	})
}

// with lists what goes with a column.
func with(want *Table, column string) string {
	var names []string
	for _, i := range want.Indexes {
		if mentions(i.Def, column) {
			names = append(names, i.Name)
		}
	}
	for _, k := range want.Constraints {
		columns, _, _ := strings.Cut(k.Def, " REFERENCES ")
		if mentions(columns, column) {
			names = append(names, k.Name)
		}
	}
	return strings.Join(names, ", ")
}

func (c *comparison) missingColumn(at place, w Column, want *Table) {
	add := "ALTER TABLE " + at.sql() + " ADD COLUMN " + ident(w.Name) + " " + w.Type
	if w.Default != "" {
		add += " DEFAULT " + w.Default
	}
	if w.Identity != "" {
		add += " GENERATED ALWAYS AS IDENTITY"
	}
	if w.NotNull {
		add += " NOT NULL"
	}
	l := loss{
		code: MissingColumn, severity: doctor.Error, table: at.Name, object: doctor.Object{Kind: "column", Name: at.Name + "." + w.Name},
		summary:  fmt.Sprintf("The column %s of %s is missing: Synapse's statements that name it fail.", w.Name, at.Name),
		observed: "no such column", expected: w.Type + notNull(w.NotNull),
		remedy: "What was in it is lost with it: restore a backup if that mattered. If it may begin with its default, stop Synapse " +
			"first. " + byHand(add) +
			"\n\nThen run the check again: it names the indexes and constraints that went with the column.",
		evidence: map[string]string{},
	}
	if w.Type == "" { // it changed between the releases that this one is compared with
		l.expected, l.remedy = "a column", "What was in it is lost with it: restore a backup if that mattered. "+fresh("--table="+at.Name)
	}
	if names := with(want, w.Name); names != "" {
		l.evidence["went with it"] = names
	}
	c.add(l)
}

func notNull(is bool) string {
	if is {
		return " NOT NULL"
	}
	return ""
}

// widened reports whether every value of one type is one of the other.
func widened(from, to string) bool {
	rank := map[string]int{"smallint": 1, "integer": 2, "bigint": 3}
	if rank[from] > 0 && rank[to] > rank[from] {
		return true
	}
	return strings.HasPrefix(from, "character") && (to == "text" || to == "character varying")
}

func (c *comparison) columnType(at place, w, h Column) {
	l := loss{
		code: ColumnType, severity: doctor.Error, table: at.Name, object: doctor.Object{Kind: "column", Name: at.Name + "." + w.Name},
		summary: fmt.Sprintf("The column %s of %s is %s, and Synapse's is %s: statements can fail, or find "+
			"nothing.", w.Name, at.Name, h.Type, w.Type),
		observed: h.Type, expected: w.Type,
		remedy: "Find out who changed it, and whether values were lost. Stop Synapse; the table is written anew under a lock that " +
			"everybody waits for, and the statement fails where a value does not fit. " +
			byHand(fmt.Sprintf("ALTER TABLE %s ALTER COLUMN %s TYPE %s USING %[2]s::%[3]s", at.sql(), ident(w.Name), w.Type)),
	}
	if widened(w.Type, h.Type) {
		l.severity = doctor.Info
		l.summary = fmt.Sprintf("The column %s of %s is %s, wider than Synapse's %s: nothing is lost by that.", w.Name, at.Name, h.Type, w.Type)
		l.remedy = "Nothing needs to be done. A later release that changes this column may write the table anew for it."
	}
	c.add(l)
}

func (c *comparison) nullability(at place, w Column, forbids bool) {
	l := loss{
		code: Nullability, severity: doctor.Warning, table: at.Name, object: doctor.Object{Kind: "column", Name: at.Name + "." + w.Name},
		summary: fmt.Sprintf("The column %s of %s lost its NOT NULL: a row without a value can come in, and Synapse does not "+
			"expect one.", w.Name, at.Name),
		observed: w.Type, expected: w.Type + " NOT NULL",
		remedy: fmt.Sprintf("See whether there are such rows already; the count reads the table:\n\n    SELECT count(*) FROM %s "+
			"WHERE %s IS NULL;\n\nIf there are none; the statement reads the table under a lock that everybody waits "+
			"for. ", at.sql(), ident(w.Name)) +
			byHand(fmt.Sprintf("ALTER TABLE %s ALTER COLUMN %s SET NOT NULL", at.sql(), ident(w.Name))),
	}
	if forbids {
		l.severity = doctor.Error
		l.summary = fmt.Sprintf("The column %s of %s is NOT NULL, and Synapse's is not: rows that Synapse means to store without a "+
			"value are refused.", w.Name, at.Name)
		l.observed, l.expected = w.Type+" NOT NULL", w.Type
		l.remedy = byHand(fmt.Sprintf("ALTER TABLE %s ALTER COLUMN %s DROP NOT NULL", at.sql(), ident(w.Name)))
	}
	c.add(l)
}

func (c *comparison) columnInTheWay(at place, h Column) {
	c.add(loss{
		code: ColumnInTheWay, severity: doctor.Error, table: at.Name, object: doctor.Object{Kind: "column", Name: at.Name + "." + h.Name},
		summary: fmt.Sprintf("The column %s of %s is none of Synapse's and needs a value, which Synapse does not give: no row can "+
			"be stored.", h.Name, at.Name),
		observed: h.Type + " NOT NULL, without a default", expected: "no such column, or one that may be empty",
		remedy: "Find out whose it is. " + byHand(fmt.Sprintf("ALTER TABLE %s ALTER COLUMN %s DROP NOT NULL", at.sql(), ident(h.Name))),
	})
}

func (c *comparison) identityLost(at place, w, h Column) {
	sequence := ""
	for name, s := range c.want.Sequences {
		if s.OwnedBy == at.Name+"."+w.Name {
			sequence = name
		}
	}
	l := loss{
		code: IdentityLost, severity: doctor.Error, table: at.Name, object: doctor.Object{Kind: "column", Name: at.Name + "." + w.Name},
		summary: fmt.Sprintf("The column %s of %s no longer numbers its rows by itself: Synapse gives it no value, so that no row "+
			"can be stored.", w.Name, at.Name),
		observed: "no identity", expected: "GENERATED ALWAYS AS IDENTITY",
		remedy: "Stop Synapse. " + byHand(fmt.Sprintf("ALTER TABLE %s ALTER COLUMN %s ADD GENERATED ALWAYS AS IDENTITY (SEQUENCE "+
			"NAME %s)", at.sql(), ident(w.Name), ident(at.Schema, sequence))) +
			"\n\nThe new sequence begins at 1. Move it beyond the numbers in use:\n\n    synapse-doctor fix sequence --apply",
	}
	if h.Default != "" {
		l.severity, l.observed = doctor.Warning, "DEFAULT "+h.Default
		l.summary = fmt.Sprintf("The column %s of %s takes its numbers from a default in place of its identity.", w.Name, at.Name)
		l.remedy = "Rows are stored all the same, as long as the default draws from a sequence that is ahead of the numbers in use. " +
			"To have it as Synapse made it, with Synapse stopped, drop the default first. " + l.remedy
	}
	c.add(l)
}

func (c *comparison) defaultLost(at place, w, h Column) {
	l := loss{
		code: DefaultLost, severity: doctor.Warning, table: at.Name, object: doctor.Object{Kind: "column", Name: at.Name + "." + w.Name},
		summary:  fmt.Sprintf("The column %s of %s lost its default: rows that Synapse stores without naming it get no value.", w.Name, at.Name),
		observed: "no default", expected: "DEFAULT " + w.Default,
		remedy: byHand(fmt.Sprintf("ALTER TABLE %s ALTER COLUMN %s SET DEFAULT %s", at.sql(), ident(w.Name), w.Default)),
	}
	switch {
	case h.Default != "":
		l.observed = "DEFAULT " + h.Default
		l.summary = fmt.Sprintf("The column %s of %s has another default than Synapse's.", w.Name, at.Name)
	case w.NotNull:
		l.severity = doctor.Error
		l.summary = fmt.Sprintf("The column %s of %s lost its default: rows that Synapse stores without naming it are refused, "+
			"since it is NOT NULL.", w.Name, at.Name)
	}
	c.add(l)
}

func (c *comparison) optionLost(at place, w Column) {
	m := &mend{Kind: mendOption, Place: at, Column: w.Name, Value: w.NDistinct}
	c.add(loss{
		code: OptionLost, severity: doctor.Warning, table: at.Name, object: doctor.Object{Kind: "column", Name: at.Name + "." + w.Name},
		summary: fmt.Sprintf("The column %s of %s lost its n_distinct: PostgreSQL underestimates how many values there are by far, "+
			"once the table is large, and reads it from end to end in place of using an index.",
			w.Name, at.Name),
		observed: "no n_distinct", expected: "n_distinct = " + w.NDistinct,
		remedy: "As the table's owner; Synapse may stay up:\n\n    " + m.setOption() + ";\n    " + m.analyze() + ";",
		mend:   m,
	})
}

// costs says what the lack of an index costs.
func costs(w Index) string {
	if w.Unique {
		return "Synapse's upserts on " + keys(w.Def) + " fail, and what is to be there once can come to be there twice"
	}
	return "what Synapse looks up by " + keys(w.Def) + " is found by reading all of the table"
}

// over is a definition without the method.
func over(def string) string {
	method, rest, _ := strings.Cut(def, " ")
	if method != "btree" {
		return "by " + def
	}
	return rest
}

// titled is what an index is called in a sentence.
func titled(w Index) string {
	switch {
	case w.Constraint == "p":
		return "primary key " + w.Name
	case w.Constraint == "u":
		return "unique constraint " + w.Name
	case w.Unique:
		return "unique index " + w.Name
	}
	return "index " + w.Name
}

func (c *comparison) missingIndex(at place, w Index) {
	m := &mend{Kind: mendIndex, Place: at, Index: w}
	l := loss{
		code: MissingIndex, severity: doctor.Warning, table: at.Name, object: doctor.Object{Kind: "index", Name: w.Name},
		summary:  fmt.Sprintf("The %s of %s is missing: %s.", titled(w), at.Name, costs(w)),
		observed: "no index on " + at.Name + " " + over(w.Def), expected: strings.Replace(createIndex(at, w), " CONCURRENTLY", "", 1),
		evidence: m.evidence(), mend: m,
	}
	if at.Building {
		l.evidence["being built"] = "an index of the table is, at this moment; when it is this one, run the check again later"
	}
	if w.Unique {
		l.severity = doctor.Error
		l.observed = "no unique index on " + at.Name + " " + over(w.Def)
	}
	if w.Constraint != "" {
		l.code, l.object = MissingConstraint, doctor.Object{Kind: "constraint", Name: w.Name + " on " + at.Name}
	}
	l.remedy = c.have.concurrently() + m.byHand()
	c.add(l)
}

// concurrently says what has to come first on servers that build no index right that way.
func (have *live) concurrently() string {
	if !losesRows(have.Server) {
		return ""
	}
	return fmt.Sprintf("PostgreSQL 14.%d can leave rows out of an index that it builds concurrently, without a word: update it to 14.4 or "+
		"newer first. ", have.Server%10000)
}

func (c *comparison) invalidIndex(at place, w, h Index, update string) {
	m := &mend{Kind: mendIndex, Place: at, Index: w, Drop: true}
	l := loss{
		code: InvalidIndex, severity: doctor.Warning, table: at.Name, object: doctor.Object{Kind: "index", Name: h.Name},
		summary:  fmt.Sprintf("The %s of %s is not valid, so no query uses it: %s.", titled(w), at.Name, costs(w)),
		observed: "indisvalid is false, and nobody is building it", expected: "a valid index",
		evidence: m.evidence(), mend: m,
	}
	if h.NotReady {
		l.observed = "indisvalid and indisready are false, and nobody is building it"
	}
	if w.Unique {
		l.severity = doctor.Error
	}
	switch {
	case update != "":
		l.waits, l.mend = true, nil // it would get in the way of the update
		l.evidence["background update"] = update
		l.summary += fmt.Sprintf(" The background update %s, which is to make it, has failed at least once.", update)
		l.remedy = "Look for \"Error doing background update\" in Synapse's log. Synapse tries again when it is started, and begins " +
			"by dropping this index; when that fails again, there is mostly a key that is there twice. " +
			"If Synapse has given it up:\n\n"
	case h.Constraint != "":
		l.mend = nil
		l.remedy = c.have.concurrently() + "The constraint " + h.Name + " owns it. As the table's owner, outside a transaction; Synapse may stay up:\n\n    " +
			"REINDEX INDEX CONCURRENTLY " + ident(at.Schema, h.Name) + ";"
		c.add(l)
		return
	}
	l.remedy += c.have.concurrently() + m.byHand()
	c.add(l)
}

func (c *comparison) beingBuilt(at place, w Index, update string, now bool) {
	l := loss{
		code: BeingBuilt, severity: doctor.Info, table: at.Name, object: doctor.Object{Kind: "index", Name: w.Name}, waits: !now,
		summary:  fmt.Sprintf("The %s of %s is being built at this moment.", titled(w), at.Name),
		observed: "indisvalid is false, and somebody is building it", expected: w.Def,
		remedy: "Nothing needs to be done. Run the check again when it is finished; how far it is:\n\n    SELECT * FROM " +
			"pg_stat_progress_create_index;",
		evidence: map[string]string{},
	}
	if update != "" {
		l.evidence["background update"] = update
	}
	if !now {
		l.summary = fmt.Sprintf("The %s of %s is not there yet: Synapse's background update %s, which is queued, makes "+
			"it.", titled(w), at.Name, update)
		l.observed = update + " is the next in the queue"
		if n := c.before(update); n > 0 {
			l.observed = fmt.Sprintf("%s is queued, with %d before it", update, n)
		}
		l.remedy = "Nothing needs to be done while the queue gets shorter; Synapse works it off while it runs. If it does not " +
			"change from one day to the next, look for \"background update\" in Synapse's log:\n\n" +
			"    SELECT update_name, depends_on, progress_json FROM background_updates ORDER BY ordering, update_name;"
	}
	c.add(l)
}

func (c *comparison) before(update string) int {
	for i, u := range c.have.Queue {
		if u.Name == update {
			return i
		}
	}
	return 0
}

func (c *comparison) missingConstraint(at place, w Constraint) {
	l := loss{
		code: MissingConstraint, severity: doctor.Warning, table: at.Name, object: doctor.Object{Kind: "constraint", Name: w.Name + " on " + at.Name},
		observed: "no such constraint", expected: w.Def, evidence: map[string]string{},
	}
	what := "CHECK"
	l.summary = fmt.Sprintf("The CHECK %s of %s is missing: a row that Synapse never means to store could come in.", w.Name, at.Name)
	if strings.HasPrefix(w.Def, "FOREIGN KEY") {
		what = "foreign key"
		l.summary = fmt.Sprintf("The foreign key %s of %s is missing: rows can be left that lead nowhere.", w.Name, at.Name)
		if strings.Contains(w.Def, "ON DELETE CASCADE") {
			l.summary = fmt.Sprintf("The foreign key %s of %s is missing: rows that PostgreSQL ought to delete with what they belong "+
				"to stay.", w.Name, at.Name)
		}
	}
	for _, h := range at.Constraints {
		if h.Name == w.Name {
			l.observed = "another one has this name: " + h.Def
		}
	}
	add := fmt.Sprintf("ALTER TABLE %s ADD CONSTRAINT %s %s NOT VALID", at.sql(), ident(w.Name), w.Def)
	l.remedy = "Added so it holds for new rows at once; the second statement reads the table, and fails where a row breaks it. " +
		"Synapse may stay up. " +
		byHand(add, fmt.Sprintf("ALTER TABLE %s VALIDATE CONSTRAINT %s", at.sql(), ident(w.Name)))
	if w.NotValid {
		l.remedy = "In Synapse's schema this " + what + " holds for new rows only, and is never validated. Synapse may stay up. " + byHand(add)
	}
	c.add(l)
}

func (c *comparison) notValid(at place, w, h Constraint) {
	l := loss{
		code: NotValid, severity: doctor.Warning, table: at.Name, object: doctor.Object{Kind: "constraint", Name: h.Name + " on " + at.Name},
		summary:  fmt.Sprintf("The constraint %s of %s holds for new rows only: older rows were never compared with it.", h.Name, at.Name),
		observed: "NOT VALID", expected: "a validated constraint",
		remedy: "The statement reads the table, and fails where a row breaks the constraint. Synapse may stay up. " +
			byHand(fmt.Sprintf("ALTER TABLE %s VALIDATE CONSTRAINT %s", at.sql(), ident(h.Name))),
		evidence: map[string]string{},
	}
	if update := buildsOf(c.have.Queue, at.Name, w.Name); update != "" {
		l.severity, l.waits = doctor.Info, true
		l.evidence["background update"] = update
		l.summary = fmt.Sprintf("The constraint %s of %s holds for new rows only until Synapse's background update %s, which is "+
			"queued, has compared the older ones.", h.Name, at.Name, update)
		l.remedy = "Nothing needs to be done while the queue gets shorter. " + l.remedy
	}
	c.add(l)
}

func (c *comparison) missingTrigger(at place, w Trigger) {
	create := fmt.Sprintf("CREATE TRIGGER %s %s ON %s%s EXECUTE FUNCTION %s()", ident(w.Name), strings.TrimSuffix(w.Def, " FOR "+
		"EACH ROW"), at.sql(), " FOR EACH ROW", ident(w.Function))
	c.add(loss{
		code: MissingTrigger, severity: doctor.Error, table: at.Name, object: doctor.Object{Kind: "trigger", Name: w.Name + " on " + at.Name},
		summary:  fmt.Sprintf("The trigger %s of %s is missing: %s.", w.Name, at.Name, guards(w.Function)),
		observed: "no trigger calls " + w.Function, expected: w.Def + " EXECUTE FUNCTION " + w.Function + "()",
		remedy: "Synapse may stay up; the statement waits for a lock on the table. Rows that came in meanwhile are not looked at " +
			"again. " + byHand(create),
	})
}

// guards says what Synapse has a trigger's function for (seen in Synapse 1.160).
func guards(function string) string {
	switch function {
	case "check_event_stream_ordering":
		return "a membership or a piece of state can be stored with another position than its event has, and clients then miss it"
	case "check_partial_state_events":
		return "an event can be noted as one of another room than its own while that room is being joined"
	case "delete_read_write_lock_parent":
		return "locks that were given back keep others from locking the same"
	case "upsert_read_write_lock_parent":
		return "no lock can be taken any more, and what needs one (purging a room, persisting events) fails"
	}
	return "what it makes sure of no longer is"
}

func (c *comparison) triggerDisabled(at place, h Trigger) {
	c.add(loss{
		code: TriggerDisabled, severity: doctor.Error, table: at.Name, object: doctor.Object{Kind: "trigger", Name: h.Name + " on " + at.Name},
		summary:  fmt.Sprintf("The trigger %s of %s is disabled: %s.", h.Name, at.Name, guards(h.Function)),
		observed: "it does not fire in Synapse's sessions", expected: "an enabled trigger",
		remedy: "A restore with --disable-triggers that was broken off leaves this. Rows that came in meanwhile are not looked at " +
			"again. Synapse may stay up. " +
			byHand(fmt.Sprintf("ALTER TABLE %s ENABLE TRIGGER %s", at.sql(), ident(h.Name))),
	})
}

func (c *comparison) triggerFunction(name string, tables []string, there bool) {
	l := loss{
		code: TriggerFunction, severity: doctor.Error, object: doctor.Object{Kind: "function", Name: name},
		summary:  fmt.Sprintf("The function %s is missing, and with it the triggers that call it: %s.", name, guards(name)),
		observed: "no such function", expected: "the function of " + c.want.Label,
		remedy:   "Make it, and then its triggers, which the check names when the function is there. " + fresh("--section=pre-data"),
		evidence: map[string]string{"triggers of": strings.Join(tables, ", ")},
	}
	if there {
		l.severity = doctor.Warning
		l.summary = fmt.Sprintf("The function %s is not the one that Synapse made: its triggers may do something else.", name)
		l.observed = "another body"
		l.remedy = "Find out who changed it, and compare:\n\n    SELECT " +
			"pg_get_functiondef('" + name + "'::regproc);\n\n" + fresh("--section=pre-data")
	}
	c.add(l)
}

func (c *comparison) missingSequence(name string, want Sequence) {
	c.add(loss{
		code: MissingSequence, severity: doctor.Error, object: doctor.Object{Kind: "sequence", Name: name},
		summary:  fmt.Sprintf("The sequence %s is missing: what Synapse numbers with it can't be stored, and it may refuse to start.", name),
		observed: "no such sequence", expected: "a sequence of " + c.want.Label,
		remedy: "Stop Synapse. As the owner of Synapse's tables:\n\n    CREATE SEQUENCE " + ident(name) + ";" + owned(want, name) +
			"\n\nIt begins at 1. Before Synapse is started, move it beyond the numbers in use:\n\n    synapse-doctor fix sequence --apply",
	})
}

func owned(want Sequence, name string) string {
	table, column, is := strings.Cut(want.OwnedBy, ".")
	if !is {
		return ""
	}
	return fmt.Sprintf("\n    ALTER SEQUENCE %s OWNED BY %s;\n    ALTER TABLE %s ALTER COLUMN %s SET DEFAULT "+
		"nextval('%s');", ident(name), ident(table, column), ident(table), ident(column), name)
}

func (c *comparison) sequenceOwner(name string, want, have Sequence) {
	l := loss{
		code: SequenceOwner, severity: doctor.Info, object: doctor.Object{Kind: "sequence", Name: name},
		summary:  fmt.Sprintf("The sequence %s no longer belongs to its column %s: a dump of that table alone leaves it out.", name, want.OwnedBy),
		observed: "it belongs to no column", expected: "owned by " + want.OwnedBy,
	}
	if have.OwnedBy != "" {
		l.observed = "it belongs to " + have.OwnedBy
		l.severity = doctor.Warning
		l.summary = fmt.Sprintf("The sequence %s belongs to the column %s in place of %s: it is dropped with that.", name, have.OwnedBy, want.OwnedBy)
	}
	table, column, _ := strings.Cut(want.OwnedBy, ".")
	l.remedy = "Synapse may stay up. As the owner of both:\n\n    ALTER SEQUENCE " + ident(name) + " OWNED BY " + ident(table, column) + ";"
	c.add(l)
}

func (c *comparison) unpublished(at place) {
	full := "ALTER TABLE " + at.sql() + " REPLICA IDENTITY FULL"
	for _, i := range at.Indexes {
		if i.Constraint == "p" {
			full = "ALTER TABLE " + at.sql() + " REPLICA IDENTITY DEFAULT"
		}
	}
	c.add(loss{
		code: ReplicaIdentity, severity: doctor.Error, table: at.Name, object: doctor.Object{Kind: "table", Name: at.Name},
		summary: fmt.Sprintf("The table %s is in the publication %s, and nothing tells its rows apart for a subscriber: PostgreSQL "+
			"refuses every UPDATE and DELETE of it.", at.Name, at.Publication),
		observed: "no replica identity", expected: "a primary key, an index chosen for it, or the whole row",
		remedy: "With the whole row each change of an old row is written to the WAL twice as large. Synapse may stay up. " + byHand(full) +
			"\n\nOr leave the table out of the publication, if nobody subscribes to it.",
		evidence: map[string]string{"publication": at.Publication},
	})
}
