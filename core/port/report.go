package port

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
)

// mostReported bounds how many rows and cells the report names one by one; all are in the target.
const mostReported = 10_000

// report is what a port has done, as Markdown: every row that could not be stored, every cell that was changed, and what was left
// behind; then the tables.
func (p *porting) report(ctx context.Context, conn *pgx.Conn, seconds map[string]float64) (string, error) {
	var b strings.Builder
	fmt.Fprintf(&b, "# Port of %s\n\nCopied and verified in %.0f seconds.\n", inline(p.path), seconds["total"])
	for _, part := range []struct{ title, none, sql string }{
		{"Rows that could not be stored", "None.", `SELECT format('%s, %s: %s', name, key, reason) FROM synapse_doctor.port_quarantine ORDER BY name, rowid_, key LIMIT $1`},
		{"Cells that were changed", "None.", `SELECT format('%s, %s, column %s: %s', name, key, column_, change) FROM synapse_doctor.port_change ORDER BY name, rowid_, column_ LIMIT $1`},
	} {
		rows, err := conn.Query(ctx, part.sql, mostReported)
		if err != nil {
			return "", fmt.Errorf("write the report: %w", err)
		}
		lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			return "", fmt.Errorf("write the report: %w", err)
		}
		fmt.Fprintf(&b, "\n## %s\n", part.title)
		if len(lines) == 0 {
			fmt.Fprintf(&b, "\n%s\n", part.none)
			continue
		}
		b.WriteString("\nWhole, in the tables port_quarantine and port_change of the schema synapse_doctor in the target.\n\n")
		for _, line := range lines {
			fmt.Fprintf(&b, "- %s\n", inline(line))
		}
		if len(lines) == mostReported {
			b.WriteString("- and more\n")
		}
	}
	b.WriteString("\n## Tables that were not copied\n\n")
	for _, name := range slices.Sorted(maps.Keys(p.match.Left)) {
		fmt.Fprintf(&b, "- %s: %s\n", inline(name), p.match.Left[name])
	}
	b.WriteString("\n## Tables\n\n| table | rows | in this run |\n|---|---|---|\n")
	rows, err := conn.Query(ctx, `SELECT name, rows FROM synapse_doctor.port_table ORDER BY name`)
	if err != nil {
		return "", fmt.Errorf("write the report: %w", err)
	}
	done := map[string]string{}
	for _, s := range p.states {
		done[s.Name] = map[decision]string{asItIs: "as it was", loadRest: "new rows copied", rewrite: "rows moved in the file, nothing copied", loadAnew: "copied anew"}[s.decision]
	}
	var name string
	var n int64
	_, err = pgx.ForEachRow(rows, []any{&name, &n}, func() error {
		if done[name] != "" {
			fmt.Fprintf(&b, "| %s | %d | %s |\n", inline(name), n, done[name])
		}
		return nil
	})
	if err != nil {
		return "", fmt.Errorf("write the report: %w", err)
	}
	return b.String(), nil
}

// inline is a text from the database on one line, which makes no Markdown of its own.
func inline(s string) string {
	return strings.NewReplacer("|", `\|`, "<", `\<`, "*", `\*`, "_", `\_`, "`", "\\`", "[", `\[`).Replace(doctor.Clean(s))
}
