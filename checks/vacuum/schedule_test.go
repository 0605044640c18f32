package vacuum_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/synapse-doctor/synapse-doctor/checks/vacuum"
	"github.com/synapse-doctor/synapse-doctor/core/doctor"
)

// reporter keeps what a check says.
type reporter struct {
	findings []doctor.Finding
	covered  string
}

func (r *reporter) Find(f doctor.Finding)    { r.findings = append(r.findings, f) }
func (r *reporter) Progress(doctor.Progress) {}
func (r *reporter) Covered(text string)      { r.covered = text }
func (r *reporter) Measure(doctor.Measure)   {}

func TestWhatVacuumsTheFileAtSetTimesIsNamedByFileAndLine(t *testing.T) {
	b := begin(t, ``)
	root := t.TempDir()
	for name, text := range map[string]string{
		"etc/crontab":                           "SHELL=/bin/sh\n# 0 3 * * * root sqlite3 /var/lib/homeserver.db VACUUM\n0 3 * * 0 root sqlite3 /var/lib/matrix-synapse/homeserver.db 'vacuum;'\n",
		"etc/cron.weekly/tidy":                  "#!/bin/sh\nfor f in /var/lib/*/*.db; do \\\n  sqlite3 \"$f\" 'VACUUM' \\\n; done\n",
		"etc/cron.daily/backup":                 "sqlite3 /var/lib/matrix-synapse/homeserver.db \"VACUUM INTO '/backup/homeserver.db'\"\nsqlite3 /srv/other.db VACUUM\n",
		"etc/cron.d/postgres":                   "0 4 * * * postgres vacuumdb --all # homeserver.db\n",
		"var/spool/cron/crontabs/synapse":       "@weekly echo 'PRAGMA incremental_vacuum; VACUUM;' | sqlite3 homeserver.db\n",
		"etc/systemd/system/tidy.service":       "[Service]\nExecStart=/usr/bin/sqlite3 /data/homeserver.db \\\n  VACUUM\n",
		"etc/systemd/system/tidy.timer":         "[Timer]\nOnCalendar=weekly\n",
		"usr/lib/systemd/system/other.service":  "[Service]\nExecStart=/usr/bin/sqlite3 /data/homeserver.db 'SELECT 1'\n",
		"usr/lib/systemd/system/broken.service": "",
	} {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("tidy.service", filepath.Join(root, "etc/systemd/system/alias.service")); err != nil {
		t.Fatal(err)
	}
	var r reporter
	target := b.target()
	target.Databases[0].Meets = doctor.NeedsSQLite
	if err := vacuum.RunBelow(root)(t.Context(), target, &r); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range r.findings {
		if f.Code != vacuum.Scheduled || f.Severity != doctor.Warning {
			t.Errorf("%+v", f)
		}
		got = append(got, strings.TrimPrefix(f.Object.Name, root))
	}
	slices.Sort(got)
	want := []string{"/etc/cron.weekly/tidy:2", "/etc/crontab:3", "/etc/systemd/system/tidy.service:2", "/var/spool/cron/crontabs/synapse:1"}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestSchedulesThatCantBeReadAreSaid(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root may read everything")
	}
	b := begin(t, ``)
	root := t.TempDir()
	if err := os.MkdirAll(filepath.Join(root, "var/spool/cron/crontabs"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(root, "var/spool/cron/crontabs"), 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Chmod(filepath.Join(root, "var/spool/cron/crontabs"), 0o700) })
	var r reporter
	target := b.target()
	target.Databases[0].Meets = doctor.NeedsSQLite
	if err := vacuum.RunBelow(root)(t.Context(), target, &r); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(r.covered, "schedules that could not be read: /var/spool/cron/crontabs") {
		t.Errorf("covered: %s", r.covered)
	}
}
