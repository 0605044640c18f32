package rebuild

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// facts are what a database is, apart from what is in it.
type facts struct {
	OID         uint32
	Owner       string
	Encoding    string
	Collate     string
	Ctype       string
	Provider    string // c: libc (and PostgreSQL 14, which has no other), i: ICU, b: builtin
	Limit       int32
	Tablespace  string
	Bytes       int64
	Version     int // 150018
	BlockSize   int64
	Template    bool
	Connectable bool
}

const factsQuery = `SELECT d.oid, pg_get_userbyid(d.datdba)::text, pg_encoding_to_char(d.encoding)::text, d.datcollate::text, d.datctype::text,
  coalesce(to_jsonb(d) ->> 'datlocprovider', 'c'), d.datconnlimit, t.spcname::text, pg_database_size(d.oid), current_setting('server_version_num')::int,
  current_setting('block_size')::int8, d.datistemplate, d.datallowconn
FROM pg_database d JOIN pg_tablespace t ON t.oid = d.dattablespace WHERE d.datname = $1`

func readFacts(ctx context.Context, conn querier, database string) (facts, error) {
	rows, err := conn.Query(ctx, factsQuery, database)
	if err != nil {
		return facts{}, fmt.Errorf("read what the database %s is: %w", database, err)
	}
	f, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByPos[facts])
	if err != nil {
		return facts{}, fmt.Errorf("read what the database %s is: %w", database, err)
	}
	return f, nil
}

const utf8Name, asciiName = "UTF8", "SQL_ASCII"

// sameCtype reports whether letters are told from other characters, and folded, as in the new database.
func (f facts) sameCtype() bool {
	return f.Encoding == utf8Name && f.Provider == "c" && (f.Ctype == "C" || f.Ctype == "POSIX")
}

// readings say how the two databases are read so that they can be compared.
func (p params) readings(f facts) (source, fresh reading) {
	if f.Encoding == utf8Name {
		return
	}
	source.utf8, fresh.utf8 = "convert_to(%s, 'UTF8')", "convert_to(%s, 'UTF8')"
	source.converts = f.Encoding != asciiName || p.sourceEncoding != ""
	fresh.converts = source.converts
	if f.Encoding == asciiName && p.sourceEncoding != "" {
		source.utf8 = "convert(convert_to(%s, 'SQL_ASCII'), " + literal(p.sourceEncoding) + ", 'UTF8')"
	}
	return
}
