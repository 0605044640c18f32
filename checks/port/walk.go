package port

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/sqlitedb"
	"github.com/synapse-doctor/synapse-doctor/core/synapse"
)

// installation is what the walk names.
type installation struct {
	config    string // homeserver.yaml; empty when none was given
	flags     string // that lead to it, with a space before; empty where it is found without
	file      string
	bytes     int64
	section   string // the file for the new database section
	unit      string // of systemd; empty when none was found
	unitFound bool
	seconds   time.Duration // what the first run took; 0 when there was none
}

// usualSpeed is how much of a SQLite file is ported in a second, proof included: 1.9 GB took 25 s on 2 cores with everything
// in memory. A slow disk takes longer.
const usualSpeed = 80_000_000

// speed is how long a file of this size takes, to judge by the machine this was measured on.
func speed(bytes int64) time.Duration {
	return time.Duration(float64(bytes)/usualSpeed*float64(time.Second)) + time.Second
}

// unitDirs are where systemd looks for units.
var unitDirs = []string{"/etc/systemd/system", "/run/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"}

// findUnit returns the unit that starts Synapse: of several workers the target that starts them all.
func findUnit(dirs []string) (string, bool) {
	for _, name := range []string{"matrix-synapse.target", "matrix-synapse.service", "synapse.service"} {
		for _, dir := range dirs {
			if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
				return strings.TrimSuffix(name, ".service"), true
			}
		}
	}
	return "matrix-synapse", false
}

func install(t *doctor.Target, path string) installation {
	i := installation{file: path, section: "postgres.yaml"}
	if abs, err := filepath.Abs(path); err == nil {
		i.file = abs
	}
	if info, err := os.Stat(path); err == nil {
		i.bytes = info.Size()
	}
	i.unit, i.unitFound = findUnit(unitDirs)
	if len(t.ConfigFiles) == 0 {
		i.flags = " -c homeserver.yaml"
		return i
	}
	i.config = configuring(t)
	i.section = beside(t.ConfigFiles, i.config)
	if !foundAnyway(t.ConfigFiles) {
		for _, f := range t.ConfigFiles {
			i.flags += " -c " + quote(f)
		}
	}
	if t.PostgresConfig != "" {
		i.section = t.PostgresConfig
	}
	for _, name := range t.SkipTables {
		i.flags += " --skip-table " + quote(name)
	}
	if t.SynapseCommand != "" {
		i.flags += " --synapse-command " + quote(t.SynapseCommand)
	}
	return i
}

// configuring is the file whose database section counts.
func configuring(t *doctor.Target) string {
	config, err := synapse.Load(t.ConfigFiles...)
	if err != nil || len(config.Databases) == 0 {
		return t.ConfigFiles[0]
	}
	return config.Databases[0].File
}

// beside is a name for the file with the new section. A folder of which Synapse reads every *.yaml must not get one more.
func beside(files []string, config string) string {
	name := "postgres.yaml"
	for _, f := range files {
		if f != config && filepath.Dir(f) == filepath.Dir(config) || filepath.Base(filepath.Dir(config)) == "conf.d" {
			name = "postgres.yaml.new"
		}
	}
	return filepath.Join(filepath.Dir(config), name)
}

// foundAnyway reports whether the doctor finds these files without being told, wherever it is run.
func foundAnyway(files []string) bool {
	paths, _ := synapse.Places{}.Find()
	if len(paths) == 0 || !filepath.IsAbs(paths[0]) {
		return false
	}
	config, err := synapse.Load(paths...)
	if err != nil {
		return false
	}
	var usual []string
	for _, f := range config.Files {
		abs, err := filepath.Abs(f)
		if err != nil {
			return false
		}
		usual = append(usual, abs)
	}
	return slices.Equal(usual, files)
}

func (i installation) doctor(command, more string) string {
	return "    synapse-doctor " + command + more + i.flags
}

func (i installation) port(more string) string {
	return i.doctor("fix port --apply", more+" --postgres-config "+quote(i.section))
}

// command is what ports this very file into the target's database, as the doctor was told of both.
func command(t *doctor.Target, path, more string) string {
	i := install(t, path)
	if t.PostgresConfig != "" {
		more += " --postgres-config " + quote(t.PostgresConfig)
	}
	if !configuredFile(t, path) {
		more += " --sqlite " + quote(i.file)
	}
	return i.doctor("fix port --apply", more)
}

func (i installation) systemctl(verb string) string {
	return "    systemctl " + verb + " " + i.unit
}

// duration is for people.
func duration(d time.Duration) string {
	switch {
	case d < 90*time.Second:
		return fmt.Sprintf("%d seconds", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%d minutes", int(d.Minutes()+0.5))
	}
	return fmt.Sprintf("%.1f hours", d.Hours())
}

func (i installation) estimate() string {
	d := i.seconds
	if d == 0 {
		d = speed(i.bytes)
	}
	if d < 10*time.Second {
		return "a few seconds"
	}
	return "about " + duration(d)
}

// snapshot is where the check vacuum puts one.
func (i installation) snapshot() string { return i.file + ".snapshot" }

// step is one part of the walk.
type step struct{ title, text string }

// walk is the way from SQLite to PostgreSQL for this installation.
func (i installation) walk() []step {
	steps := []step{
		{"Make a role and a database in PostgreSQL", "As an administrator of the database server. The locale must be C; keep the password that you are asked for:\n" +
			"    sudo -u postgres createuser --pwprompt synapse_user\n" +
			"    sudo -u postgres createdb --encoding=UTF8 --locale=C --template=template0 --owner=synapse_user synapse\n" +
			fmt.Sprintf("It will take %s to %s there, and the write-ahead log grows meanwhile.", size(i.bytes*leastNumerator/leastDenominator), size(i.bytes*most))},
		{"Write the new database section into a file of its own", fmt.Sprintf("Into %s, readable for nobody but root and Synapse (chmod 600):\n", i.section) +
			"    database:\n      name: psycopg2\n      args:\n        user: synapse_user\n        password: the one from above\n        dbname: synapse\n        host: localhost\n        cp_min: 5\n        cp_max: 10\n" +
			"The configuration of Synapse itself stays as it is for now. See that the doctor gets in, and that nothing stands in the way:\n" +
			i.doctor("check", " --postgres-config "+quote(i.section))},
		{"Make a snapshot while Synapse runs", fmt.Sprintf("It is put beside the file, and takes up to %s there. A plain cp would lose what is only in the -wal:\n", size(i.bytes)) +
			i.doctor("fix vacuum --apply", "")},
		{"Port the snapshot, while Synapse goes on running", fmt.Sprintf("This takes %s, can be interrupted at any time and tells how long it took. If the snapshot has another name, the step before has said so:\n", i.estimate()) +
			i.port(" --sqlite "+quote(i.snapshot()))},
		{"Stop Synapse and all its workers", i.stop() + " From here until the last step nobody can use the homeserver."},
		{"Port what has changed since", "The same again, on the file itself. Tables that have not changed are only read, so it is faster than the first time:\n" +
			i.port("")},
	}
	return append(steps, i.after()...)
}

// stop says how Synapse is stopped.
func (i installation) stop() string {
	if i.unitFound {
		return "With systemd:\n" + i.systemctl("stop") + "\n"
	}
	return "With Debian's package:\n" + i.systemctl("stop") + "\nIn a container, docker stop and the container's name. "
}

// after is what is left when the copy is complete.
func (i installation) after() []step {
	config := i.config
	if config == "" {
		config = "homeserver.yaml"
	}
	return []step{
		{"Put the new database section into the configuration", fmt.Sprintf("The doctor replaces the section in %s, keeps the comments, and can put it back:\n", config) +
			i.port("") + fmt.Sprintf("\nOr by hand: take the section database out of it and put that of %s in its place.", i.section)},
		{"Start Synapse", "With Debian's package:\n" + i.systemctl("start") +
			"\nKeep the SQLite file until you have seen it run for some days. The user directory fills in the background."},
	}
}

func (i installation) text() string {
	var b strings.Builder
	for n, s := range i.walk() {
		fmt.Fprintf(&b, "%d. %s. %s\n\n", n+1, s.title, strings.TrimSpace(s.text))
	}
	return strings.TrimSpace(b.String())
}

func (i installation) manual() []doctor.Step {
	var steps []doctor.Step
	for _, s := range i.walk() {
		steps = append(steps, doctor.Step{Title: s.title, Manual: &doctor.ManualStep{Text: strings.TrimSpace(s.text)}})
	}
	return steps
}

// onSQLite examines a homeserver that has nothing but SQLite, and shows the way.
func onSQLite(ctx context.Context, t *doctor.Target, file *doctor.Database, r doctor.Reporter) error {
	i := install(t, file.Path)
	f := doctor.Finding{
		Code: OnSQLite, Severity: doctor.Info, Database: file.Label, Object: doctor.Object{Kind: "file", Name: file.Path},
		Summary:  "The homeserver is on SQLite, which Synapse's documentation recommends for trying it out only.",
		Observed: fmt.Sprintf("%s, %s", file.Path, size(i.bytes)),
		Expected: "PostgreSQL",
		Remedy: fmt.Sprintf("The move takes %s with Synapse running, and less with Synapse stopped; the SQLite file is only read. These are the steps for this installation:\n\n", i.estimate()) +
			i.text(),
		Fixable:  true,
		Evidence: map[string]string{"estimated seconds": fmt.Sprint(int(speed(i.bytes).Seconds())), "disk in PostgreSQL": size(i.bytes*leastNumerator/leastDenominator) + " to " + size(i.bytes*most)},
	}
	s, err := readSource(ctx, file.Path, t.ServerName)
	if _, pending := errors.AsType[*sqlitedb.PendingError](err); pending {
		// As long as Synapse runs there is nearly always something in the -wal. The snapshot has none.
		f.Evidence["not looked at"] = "what is in the file, while Synapse uses it: that is looked at in the snapshot"
		r.Covered("what is in the file is looked at in the snapshot that is ported: the newest rows are only in the -wal")
		r.Find(f)
		return nil
	}
	if err != nil {
		return unreadable(file.Path, err)
	}
	r.Find(f)
	for _, f := range judgeSource(s, t.ServerName) {
		f.Database = file.Label
		r.Find(f)
	}
	return nil
}
