package vacuum

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
)

// scheduled is where the system keeps what is started at set times, below root.
type scheduled struct{ root string }

// crons and units are looked through; a script that one of them names is not.
var (
	crons = []string{"/etc/crontab", "/etc/anacrontab", "/etc/cron.d/*", "/etc/cron.hourly/*", "/etc/cron.daily/*", "/etc/cron.weekly/*", "/etc/cron.monthly/*",
		"/var/spool/cron/crontabs/*", "/var/spool/cron/*"}
	units = []string{"/etc/systemd/system/*.service", "/etc/systemd/system/*/*.conf", "/usr/lib/systemd/system/*.service", "/lib/systemd/system/*.service",
		"/usr/local/lib/systemd/system/*.service", "/run/systemd/system/*.service"}
)

// maxScheduleFile is the most bytes that are read of a cron table or unit.
const maxScheduleFile = 1 << 20

// examine names the lines that VACUUM the file, and returns what could not be read, for the coverage.
func (p scheduled) examine(x *examination) []string {
	var unread []string
	seen := map[string]bool{}
	for _, pattern := range slices.Concat(crons, units) {
		files, _ := filepath.Glob(p.root + pattern) // the patterns are ours
		if folder := filepath.Dir(p.root + pattern); len(files) == 0 && !readable(folder) {
			unread = append(unread, strings.TrimPrefix(folder, strings.TrimSuffix(p.root, "/")))
			continue
		}
		for _, file := range files {
			real, err := filepath.EvalSymlinks(file)
			if err != nil || seen[real] {
				continue
			}
			seen[real] = true
			info, err := os.Stat(real)
			if err != nil || !info.Mode().IsRegular() || info.Size() > maxScheduleFile {
				continue
			}
			text, err := os.ReadFile(real)
			if err != nil {
				unread = append(unread, file)
				continue
			}
			p.lines(x, real, string(text))
		}
	}
	if len(unread) == 0 {
		return nil
	}
	return []string{"schedules that could not be read: " + some(slices.Compact(unread), 5)}
}

func readable(folder string) bool {
	_, err := os.ReadDir(folder)
	return err == nil || errors.Is(err, fs.ErrNotExist) || strings.ContainsRune(folder, '*')
}

var (
	vacuumWord  = regexp.MustCompile(`(?i)\bVACUUM\b`)
	sqliteWord  = regexp.MustCompile(`(?i)\bsqlite3?\b`)
	vacuumInto  = regexp.MustCompile(`(?i)\bVACUUM\s+INTO\b`)
	anyDatabase = regexp.MustCompile(`\*\.db\b`)
)

// lines finds the ones that start a VACUUM of the file: they have the word, and this file, its name, or all files of the kind.
func (p scheduled) lines(x *examination, file, text string) {
	number := 0
	for command := range commands(text) {
		number = command.line
		if !vacuumWord.MatchString(command.text) || vacuumInto.MatchString(command.text) {
			continue
		}
		if strings.Contains(command.text, "vacuumdb") && !sqliteWord.MatchString(command.text) {
			continue // PostgreSQL's
		}
		base := filepath.Base(x.database.Path)
		if !strings.Contains(command.text, base) && !anyDatabase.MatchString(command.text) {
			continue
		}
		x.find(doctor.Finding{
			Code: Scheduled, Severity: doctor.Warning,
			Object:   doctor.Object{Kind: "file", Name: fmt.Sprintf("%s:%d", file, number)},
			Summary:  fmt.Sprintf("%s:%d VACUUMs %s at set times", file, number, base),
			Observed: strings.TrimSpace(command.text),
			Expected: "no VACUUM between the runs of a port",
			Remedy: fmt.Sprintf("Take the line out of %s, or comment it out, until the port is done. The doctor's own port notices a VACUUM and loads again what it has moved, "+
				"which takes time; Synapse's script loses rows. A VACUUM rarely pays, and blocks Synapse while it runs.", file),
			Evidence: map[string]string{"line": strings.TrimSpace(command.text)},
		})
	}
}

type command struct {
	line int // the first, from 1
	text string
}

// commands are the lines of a cron table, a shell script or a unit, with continued ones joined, and without comments.
func commands(text string) func(yield func(command) bool) {
	return func(yield func(command) bool) {
		var open command
		for i, line := range strings.Split(text, "\n") {
			if open.text == "" {
				open.line = i + 1
			}
			trimmed := strings.TrimSpace(line)
			if open.text == "" && (strings.HasPrefix(trimmed, "#") || strings.HasPrefix(trimmed, ";")) {
				continue
			}
			if rest, continued := strings.CutSuffix(line, `\`); continued {
				open.text += rest + " "
				continue
			}
			open.text += line
			if open.text != "" && !yield(open) {
				return
			}
			open = command{}
		}
		if open.text != "" {
			yield(open)
		}
	}
}
