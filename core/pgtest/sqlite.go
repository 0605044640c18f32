package pgtest

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// SQLite is a private copy of the real homeserver's SQLite database, 21 MB, unpacked by the program zstd.
func SQLite(tb testing.TB) string {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), "homeserver.db")
	out, err := exec.CommandContext(tb.Context(), "zstd", "-q", "-d", filepath.Join(Data(tb), "homeserver.db.zst"), "-o", path).CombinedOutput()
	if err != nil {
		tb.Fatalf("unpack the real homeserver's database: %v: %s (Debian's package zstd has the program)", err, out)
	}
	if err := os.Chmod(path, 0o600); err != nil { // the packed one may be read-only
		tb.Fatal(err)
	}
	return path
}
