package rebuild

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
)

// make makes the new database, empty and shut.
func (k *task) make(ctx context.Context) error {
	f, err := readFacts(ctx, k.main, k.p.database)
	if err != nil {
		return err
	}
	if err := k.h.Save(ctx, tokenCreating, nil); err != nil {
		return err
	}
	k.w.point("before-create")
	if _, err := k.main.Exec(ctx, createStatement(k.p.fresh, f)); err != nil {
		return fmt.Errorf("create the database %s: %w", k.p.fresh, err)
	}
	k.w.point("created")
	return k.setStage(ctx, stageFilling)
}

// createStatement makes a database in UTF8 and the locale C of libc, which nobody but a superuser may enter.
func createStatement(name string, f facts) string {
	provider := ""
	if f.Version >= 150000 {
		provider = " LOCALE_PROVIDER libc"
	}
	return fmt.Sprintf("CREATE DATABASE %s TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C'%s OWNER %s TABLESPACE %s CONNECTION LIMIT 0",
		ident(name), provider, ident(f.Owner), ident(f.Tablespace))
}

func (k *task) setStage(ctx context.Context, stage string) error {
	if _, err := k.main.Exec(ctx, "COMMENT ON DATABASE "+ident(k.p.fresh)+" IS "+literal(k.comment(stage))); err != nil {
		return fmt.Errorf("mark the database %s: %w", k.p.fresh, err)
	}
	k.w.point(stage)
	return nil
}

// privilegesQuery lists who may do what with the database; nothing when that was never changed.
const privilegesQuery = `SELECT pg_get_userbyid(d.datdba)::text, pg_get_userbyid(a.grantor)::text, CASE a.grantee WHEN 0 THEN '' ELSE pg_get_userbyid(a.grantee)::text END, a.privilege_type, a.is_grantable
FROM pg_database d, aclexplode(d.datacl) WITH ORDINALITY AS a(grantor, grantee, privilege_type, is_grantable, n) WHERE d.oid = $1 ORDER BY a.grantor <> d.datdba, a.n`

const settingsQuery = `SELECT CASE s.setrole WHEN 0 THEN '' ELSE pg_get_userbyid(s.setrole)::text END, c.entry
FROM pg_db_role_setting s, unnest(s.setconfig) WITH ORDINALITY AS c(entry, n) WHERE s.setdatabase = $1 ORDER BY s.setrole, c.n`

// properties are the statements that give a new database what hangs on the old one itself: privileges and settings.
func properties(ctx context.Context, conn querier, oid uint32, name string) ([]string, error) {
	var statements []string
	rows, err := conn.Query(ctx, privilegesQuery, oid)
	if err != nil {
		return nil, fmt.Errorf("read the privileges on the database: %w", err)
	}
	var owner, grantor, grantee, privilege string
	var grantable bool
	_, err = pgx.ForEachRow(rows, []any{&owner, &grantor, &grantee, &privilege, &grantable}, func() error {
		if statements == nil {
			statements = []string{"REVOKE ALL ON DATABASE " + ident(name) + " FROM PUBLIC, " + ident(owner)}
		}
		to := "PUBLIC"
		if grantee != "" {
			to = ident(grantee)
		}
		grant := fmt.Sprintf("GRANT %s ON DATABASE %s TO %s", privilege, ident(name), to)
		if grantable {
			grant += " WITH GRANT OPTION"
		}
		if grantor != owner {
			statements = append(statements, "SET LOCAL ROLE "+ident(grantor), grant, "RESET ROLE")
			return nil
		}
		statements = append(statements, grant)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the privileges on the database: %w", err)
	}
	if rows, err = conn.Query(ctx, settingsQuery, oid); err != nil {
		return nil, fmt.Errorf("read the settings of the database: %w", err)
	}
	var role, entry string
	_, err = pgx.ForEachRow(rows, []any{&role, &entry}, func() error {
		who := "ALTER DATABASE " + ident(name)
		if role != "" {
			who = "ALTER ROLE " + ident(role) + " IN DATABASE " + ident(name)
		}
		setting, value, _ := strings.Cut(entry, "=")
		statements = append(statements, who+" SET "+settingName(setting)+" TO "+settingValue(setting, value))
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the settings of the database: %w", err)
	}
	return statements, nil
}

// settingName quotes the parts of a name like extension.parameter.
func settingName(name string) string { return pgx.Identifier(strings.Split(name, ".")).Sanitize() }

// settingValue writes a value so that the server stores the same again. Values of the settings marked GUC_LIST_QUOTE are
// lists of names, stored with the quotes that they need (variable_is_guc_list_quote in pg_dump's dumputils.c).
func settingValue(name, value string) string {
	switch strings.ToLower(name) {
	case "local_preload_libraries", "search_path", "session_preload_libraries", "shared_preload_libraries", "temp_tablespaces", "unix_socket_directories":
	default:
		return literal(value)
	}
	var parts []string
	for rest := strings.TrimSpace(value); rest != ""; {
		var part string
		if strings.HasPrefix(rest, `"`) {
			end := 1
			for end < len(rest) && (rest[end] != '"' || end+1 < len(rest) && rest[end+1] == '"') {
				if rest[end] == '"' {
					end++
				}
				end++
			}
			part, rest = strings.ReplaceAll(rest[1:min(end, len(rest))], `""`, `"`), rest[min(end+1, len(rest)):]
			_, rest, _ = strings.Cut(rest, ",")
		} else {
			part, rest, _ = strings.Cut(rest, ",")
		}
		parts = append(parts, literal(strings.TrimSpace(part)))
		rest = strings.TrimSpace(rest)
	}
	if len(parts) == 0 {
		return "''"
	}
	return strings.Join(parts, ", ")
}

// equip gives the new database the properties of the old one, in one transaction.
func (k *task) equip(ctx context.Context) error {
	statements, err := properties(ctx, k.main, k.p.oid, k.p.fresh)
	if err != nil {
		return err
	}
	err = pgx.BeginFunc(ctx, k.main, func(tx pgx.Tx) error {
		for _, statement := range statements {
			if _, err := tx.Exec(ctx, statement); err != nil {
				return fmt.Errorf("%s: %w", statement, err)
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("carry over the privileges and settings of the database: %w", err)
	}
	return nil
}
