package locale

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// amcheckQuery looks for bt_index_check(regclass, boolean) of the extension amcheck, which 1.1 and later have, wherever it
// was installed. Its owner may have granted it to others.
const amcheckQuery = `SELECT format('%I.%I', n.nspname, p.proname) FROM pg_extension e
JOIN pg_depend d ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid AND d.classid = 'pg_proc'::regclass AND d.deptype = 'e'
JOIN pg_proc p ON p.oid = d.objid JOIN pg_namespace n ON n.oid = p.pronamespace
WHERE e.extname = 'amcheck' AND p.proname = 'bt_index_check' AND oidvectortypes(p.proargtypes) = 'regclass, boolean'
  AND has_function_privilege(p.oid, 'EXECUTE') AND has_schema_privilege(n.oid, 'USAGE')`

// findAmcheck returns the function's name as it stands in a statement; empty where it can't be called.
func findAmcheck(ctx context.Context, tx pgx.Tx) (string, error) {
	var name string
	err := tx.QueryRow(ctx, amcheckQuery).Scan(&name)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return "", fmt.Errorf("look for the extension amcheck: %w", err)
	}
	return name, nil
}

// amcheck has the server examine the structure and order of an index, and, if wanted, that each row of the table is in it.
// What the server finds is returned as its words.
func amcheck(ctx context.Context, tx pgx.Tx, function string, x index, heapAllIndexed bool) (fault string, err error) {
	err = within(ctx, tx, nil, nil, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, fmt.Sprintf("SELECT %s(%d::oid::regclass, %t)", function, x.OID, heapAllIndexed))
		return err
	})
	if fault = corruption(err); fault != "" {
		return fault, nil
	}
	return "", err
}

// corruption is what the server says of an index, or of a page, that is not as it must be. Any other failure says nothing of it.
func corruption(err error) string {
	const dataCorrupted, indexCorrupted = "XX001", "XX002"
	pg, ok := errors.AsType[*pgconn.PgError](err)
	switch {
	case !ok || pg.Code != dataCorrupted && pg.Code != indexCorrupted:
		return ""
	case pg.Detail != "":
		return pg.Message + ": " + pg.Detail
	}
	return pg.Message
}
