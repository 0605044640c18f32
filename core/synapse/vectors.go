package synapse

import (
	"strings"

	"github.com/jackc/pgx/v5"
)

// SearchVector says how the search vectors of one table follow from text that is in the same database. Which words
// PostgreSQL finds in a text, and how it folds their case, is decided by LC_CTYPE: when that changes, the vectors that are
// there no longer answer the searches that are made, and have to be made anew.
//
// Rows whose text is no longer there (a redacted event, a user who has left the directory) keep the vector that they have.
type SearchVector struct {
	Table string
	Key   string // the column that identifies a row; unique, and for event_search not a primary key
	// Prepare makes the functions that the other statements call. They are in pg_temp and last as long as the session.
	Prepare string
	// Differing selects the key and the vector, as text or NULL, of the rows whose vector is not what their text gives here.
	// Like Update it takes two integers, so that several sessions can share the work: it looks at part $2 of $1 parts; 1 and
	// 0 are all rows.
	Differing string
	// Update gives those rows the vector that their text gives.
	Update string
}

// SearchVectors are the tables with search vectors, as Synapse 1.0 to 1.160 fill them, in this schema of the database
// (public unless the role's search_path says otherwise). A database with the state store alone has none of them.
func SearchVectors(schema string) []SearchVector {
	in := func(statement string) string {
		return strings.ReplaceAll(statement, "SCHEMA.", pgx.Identifier{schema}.Sanitize()+".")
	}
	return []SearchVector{
		{
			Table: "event_search", Key: "event_id", Prepare: eventText,
			Differing: in("SELECT s.event_id, s.vector::text FROM " + eventVectors),
			Update:    in("UPDATE SCHEMA.event_search t SET vector = s.made FROM (SELECT s.ctid AS at, v.made FROM " + eventVectors + ") s\nWHERE t.ctid = s.at"),
		},
		{
			Table: "user_directory_search", Key: "user_id", Prepare: in(foldName),
			Differing: in("SELECT s.user_id, s.vector::text FROM " + directoryVectors),
			Update:    in("UPDATE SCHEMA.user_directory_search t SET vector = s.made FROM (SELECT s.ctid AS at, v.made FROM " + directoryVectors + ") s\nWHERE t.ctid = s.at"),
		},
	}
}

// eventVectors is made of the text of a message, or a room's name or topic, which is in the event itself.
const eventVectors = `SCHEMA.event_search s JOIN SCHEMA.event_json j USING (event_id),
  LATERAL (SELECT to_tsvector('pg_catalog.english', pg_temp.synapse_doctor_text(j.json, s.key)) AS made OFFSET 0) v
WHERE s.key IN ('content.body', 'content.name', 'content.topic') AND (hashtext(s.event_id)::bigint + 2147483648) % $1::int = $2::int
  AND v.made IS NOT NULL AND v.made IS DISTINCT FROM s.vector`

// eventText takes out of an event what Synapse puts into the index: a string under its key, and of a topic the first plain
// text of m.topic where there is one (Synapse 1.133). NUL is indexed as a space. PostgreSQL reads no JSON with an escaped
// NUL or half a surrogate pair anywhere in it, so that those are replaced before a second attempt. What is no JSON even
// then (an old port left hexadecimal digits) has no text.
const eventText = `CREATE OR REPLACE FUNCTION pg_temp.synapse_doctor_text(event text, key text) RETURNS text LANGUAGE plpgsql AS $doctor$
DECLARE
  content json;
  found text;
BEGIN
  IF strpos(event, '\u0000') > 0 AND strpos(event, '\\u0000') = 0 THEN
    event := replace(event, '\u0000', ' ');
  END IF;
  BEGIN
    content := event::json -> 'content';
  EXCEPTION WHEN data_exception THEN
    content := regexp_replace(event,
      '(?<!\\)((?:\\\\)*)\\u(?:0000|[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])|(?<!\\u[dD][89abAB][0-9a-fA-F]{2}\\u)[dD][c-fC-F][0-9a-fA-F]{2})',
      '\1 ', 'g')::json -> 'content';
  END;
  IF json_typeof(content) IS DISTINCT FROM 'object' OR json_typeof(content -> substr(key, 9)) IS DISTINCT FROM 'string' THEN
    RETURN NULL;
  END IF;
  IF key = 'content.topic' AND json_typeof(content #> '{m.topic,m.text}') = 'array' THEN
    SELECT t.value ->> 'body' INTO found FROM json_array_elements(content #> '{m.topic,m.text}') WITH ORDINALITY AS t(value, n)
    WHERE json_typeof(t.value) = 'object' AND json_typeof(t.value -> 'body') = 'string'
      AND coalesce(json_typeof(t.value -> 'mimetype'), 'null') IN ('null', 'string')
      AND coalesce(t.value ->> 'mimetype', '') IN ('', 'text/plain')
    ORDER BY t.n LIMIT 1;
  END IF;
  RETURN coalesce(found, content ->> substr(key, 9));
EXCEPTION WHEN data_exception THEN
  RETURN NULL;
END $doctor$`

// directoryVectors weighs the localpart most, then the name, then the server.
const directoryVectors = `SCHEMA.user_directory_search s JOIN SCHEMA.user_directory d USING (user_id),
  LATERAL (SELECT setweight(to_tsvector('pg_catalog.simple', split_part(substr(s.user_id, 2), ':', 1)), 'A')
    || setweight(to_tsvector('pg_catalog.simple', substr(s.user_id, strpos(s.user_id, ':') + 1)), 'D')
    || setweight(to_tsvector('pg_catalog.simple', coalesce(pg_temp.synapse_doctor_name(d.display_name), '')), 'B') AS made OFFSET 0) v
WHERE s.user_id LIKE '@%:%' AND (hashtext(s.user_id)::bigint + 2147483648) % $1::int = $2::int
  AND v.made IS DISTINCT FROM s.vector`

// foldName makes a name what Synapse indexes: since 1.79 (matrix-org/synapse#15143, about schema version 74) in lower case
// and in the normal form NFKC, before that as it is. Under C the server's lower() knows only ASCII, so that a collation is
// looked for that knows Unicode, as Python does.
const foldName = `DO $doctor$
DECLARE
  folded text := '$1';
  unicode text;
BEGIN
  IF (SELECT max(version) >= 74 FROM SCHEMA.schema_version) THEN
    SELECT format(' COLLATE %I.%I', n.nspname, c.collname) INTO unicode FROM pg_collation c JOIN pg_namespace n ON n.oid = c.collnamespace
    WHERE n.nspname = 'pg_catalog' AND c.collencoding IN (-1, pg_char_to_encoding('UTF8'))
      AND (c.collprovider = 'i' AND c.collname = 'und-x-icu' OR c.collprovider = 'b' AND c.collname IN ('pg_unicode_fast', 'pg_c_utf8')
        OR c.collprovider = 'c' AND c.collcollate ~* '^[a-z]+(_[a-z]+)?\.utf-?8$')
    ORDER BY c.collname <> 'und-x-icu', c.collname <> 'pg_unicode_fast', c.collname <> 'pg_c_utf8', c.collname LIMIT 1;
    folded := format('normalize(lower($1%s), NFKC)', unicode);
  END IF;
  EXECUTE format('CREATE OR REPLACE FUNCTION pg_temp.synapse_doctor_name(text) RETURNS text LANGUAGE sql AS %L', 'SELECT ' || folded);
END $doctor$`
