package keepalives

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
)

// kernelDir holds the kernel's own values of the machine that the doctor runs on.
const kernelDir = "/proc/sys/net/ipv4"

// evidencePatience bounds how long the server is asked for what is good to know and decides nothing.
const evidencePatience = 2 * time.Second

// The server's own keepalives end its side of a dead connection; they do not help Synapse.
const serverQuery = `SELECT name, setting FROM pg_settings
  WHERE name IN ('tcp_keepalives_idle', 'tcp_keepalives_interval', 'tcp_keepalives_count', 'tcp_user_timeout')`

// addEvidence adds the kernel's values, and the server's where it can be asked.
func addEvidence(ctx context.Context, d *doctor.Database, evidence map[string]string) {
	for _, name := range []string{"tcp_keepalive_time", "tcp_keepalive_intvl", "tcp_keepalive_probes"} {
		if text, err := os.ReadFile(filepath.Join(kernelDir, name)); err == nil {
			evidence["this machine's "+name] = strings.TrimSpace(string(text))
		}
	}
	if d == nil || !d.Meets.Has(doctor.NeedsPostgres) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, evidencePatience)
	defer cancel()
	_ = d.Read(ctx, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, serverQuery)
		if err != nil {
			return err
		}
		var name, setting string
		_, err = pgx.ForEachRow(rows, []any{&name, &setting}, func() error {
			evidence["server's "+name] = setting
			return nil
		})
		return err
	})
}
