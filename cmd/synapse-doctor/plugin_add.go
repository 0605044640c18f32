package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"os/user"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/synapse-doctor/synapse-doctor/core/config"
	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/pgdb"
	"github.com/synapse-doctor/synapse-doctor/core/report"
	"github.com/synapse-doctor/synapse-doctor/plugins/builtin"
	"github.com/synapse-doctor/synapse-doctor/plugins/host"
)

const pluginAddAbout = `Shows what a plugin says of itself, and what it would be allowed, and after
asking records it, with its SHA-256, in the doctor's configuration. From then on
its checks run with the others. To say what it is, the plugin is run once.

Without --read-dsn, --make-read-role or --trust-database its checks that need
PostgreSQL are skipped. Without --allow-fix its plans are shown and not applied.
A plugin runs as the user who runs synapse-doctor, and can do what that user
can: these options bound what it is handed, and what is done for it.

Exit codes: 0 recorded; 2 you did not agree; 1 could not complete.`

const pluginUpdateAbout = `Records a new version of a plugin: its SHA-256 and its checks, after showing
them and asking. What it was allowed stays, unless an option says otherwise:
--allow-fix=false, --trust-database=false, --read-dsn= and --env= take it back.
FILE is for one that is somewhere else now.

Exit codes: 0 recorded; 2 you did not agree; 1 could not complete.`

// addFlags are what a plugin is allowed.
type addFlags struct {
	readDSN  string
	makeRole bool
	trust    bool
	allowFix bool
	env      []string
	yes      bool
	command  string      // this one, as it was given
	target   targetFlags // with makeRole
	output   outputFlags
}

func (a *addFlags) register(f *pflag.FlagSet) {
	f.StringVar(&a.readDSN, "read-dsn", "", "what its checks connect to PostgreSQL with: the `DSN` of a role that has only pg_read_all_data, or @FILE that holds it; a password goes into that file, never here")
	f.BoolVar(&a.makeRole, "make-read-role", false, "make such a role, with the administrator's connection, after asking")
	f.BoolVar(&a.trust, "trust-database", false, "hand it Synapse's login, in sessions that default to read only")
	f.BoolVar(&a.allowFix, "allow-fix", false, "its plans may be applied, by fix --apply, within what it declares")
	f.StringArrayVar(&a.env, "env", nil, "the `NAME` of a further environment variable that it is given; may be repeated")
	f.StringArrayVar(&a.target.plugins.dirs, "plugin-dir", nil, "look for the files of plugins in `DIR` first; may be repeated")
	f.BoolVarP(&a.yes, "yes", "y", false, "agree without being asked")
	f.StringArrayVarP(&a.target.configs, "config", "c", nil, "with --make-read-role: Synapse's configuration, a `PATH` as for check")
	f.StringVar(&a.target.adminDSN, "admin-dsn", "", "with --make-read-role: an administrator's connection `DSN`, or @FILE, as for check")
	noColorFlag(f, &a.output)
}

// apply puts what the flags say into an entry.
func (a *addFlags) apply(f *pflag.FlagSet, entry *config.Plugin) error {
	if n := len(slices.DeleteFunc([]bool{a.readDSN != "", a.makeRole, a.trust}, func(is bool) bool { return !is })); n > 1 {
		return errors.New("of --read-dsn, --make-read-role and --trust-database one is enough")
	}
	switch {
	case a.readDSN != "":
		var err error
		if entry.ReadDSN, err = readDSN(a.readDSN); err != nil {
			return err
		}
		entry.TrustDatabase = false
	case f.Changed("read-dsn"):
		entry.ReadDSN = ""
	}
	if f.Changed("trust-database") {
		if entry.TrustDatabase = a.trust; a.trust {
			entry.ReadDSN = ""
		}
	}
	if f.Changed("allow-fix") {
		entry.AllowFix = a.allowFix
	}
	if f.Changed("env") {
		entry.Env = slices.DeleteFunc(slices.Clone(a.env), func(name string) bool { return name == "" })
		for _, name := range entry.Env {
			if !variableName.MatchString(name) {
				return fmt.Errorf("--env takes the name of a variable, whose value is the one at the time, not %q: --env ACME_KEY", name)
			}
		}
		slices.Sort(entry.Env)
		entry.Env = slices.Compact(entry.Env)
	}
	return nil
}

var variableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// readDSN is the connection string that --read-dsn gives, which must hold no secret on the command line.
func readDSN(dsn string) (string, error) {
	file, isFile := strings.CutPrefix(dsn, "@")
	if isFile {
		text, err := os.ReadFile(file)
		if err != nil {
			return "", fmt.Errorf("--read-dsn: %w", err)
		}
		dsn = strings.TrimSpace(string(text))
	}
	settings, err := pgdb.Parse(dsn)
	if err != nil {
		return "", fmt.Errorf("--read-dsn: %w", err)
	}
	if !isFile && settings.HasSecret() {
		return "", errors.New("--read-dsn must not hold a password or a key, since every user of this machine can read a command line: put the string into a file and write --read-dsn @FILE")
	}
	return dsn, nil
}

func runPluginAdd(ctx context.Context, args []string, s streams) (int, error) {
	a := addFlags{command: commandOf("plugin add", args)}
	f := newFlags("plugin add", "FILE", pluginAddAbout, s)
	a.register(f)
	if err := parse(f, args); err != nil {
		return exitFailed, err
	}
	if f.NArg() != 1 {
		return exitFailed, errors.New("plugin add takes the file of one plugin. To see those in the usual directories, run: synapse-doctor plugin list")
	}
	conf, err := config.Load()
	if err != nil {
		return exitFailed, err
	}
	own, err := config.Own()
	if err != nil {
		return exitFailed, err
	}
	entry := config.Plugin{File: own, SHA256: map[string]string{}}
	if err := a.apply(f, &entry); err != nil {
		return exitFailed, err
	}
	d, sum, err := examinePlugin(ctx, f.Arg(0), entry.Env)
	if err != nil {
		return exitFailed, a.meant(f.Arg(0), err)
	}
	if old := conf.Plugin(d.Name); old != nil {
		return exitFailed, fmt.Errorf("the plugin %s was added already. For a new version of it, or to allow it something else, run: synapse-doctor plugin update %s %s", d.Name, d.Name, shellWord(f.Arg(0)))
	}
	if err := claimed(conf, d); err != nil {
		return exitFailed, err
	}
	entry.Name, entry.Checks, entry.Changes = d.Name, idsOf(d), changesToRecord(d)
	entry.SHA256[config.Platform()] = sum
	if entry.Path, err = a.path(entry, f.Arg(0)); err != nil {
		return exitFailed, err
	}
	page := describedPlugin(d, sum) + trustPage(entry, d, a.makeRole)
	return a.record(ctx, s, entry, page)
}

// commandOf is a command as a shell takes it.
func commandOf(name string, args []string) string {
	command := "synapse-doctor " + name
	for _, arg := range args {
		command += " " + shellWord(arg)
	}
	return command
}

func runPluginUpdate(ctx context.Context, args []string, s streams) (int, error) {
	a := addFlags{command: commandOf("plugin update", args)}
	f := newFlags("plugin update", "NAME [FILE]", pluginUpdateAbout, s)
	a.register(f)
	if err := parse(f, args); err != nil {
		return exitFailed, err
	}
	if f.NArg() != 1 && f.NArg() != 2 {
		return exitFailed, errors.New("plugin update takes the name of one plugin, and its file where that is somewhere else now. To see the plugins, run: synapse-doctor plugin list")
	}
	conf, err := config.Load()
	if err != nil {
		return exitFailed, err
	}
	old, err := trusted(conf, f.Arg(0))
	if err != nil {
		return exitFailed, err
	}
	entry := old
	entry.SHA256 = maps.Clone(old.SHA256)
	if err := a.apply(f, &entry); err != nil {
		return exitFailed, err
	}
	file := f.Arg(1)
	if file == "" {
		if file, err = a.target.plugins.file(entry); err != nil {
			return exitFailed, err
		}
	}
	d, sum, err := examinePlugin(ctx, file, entry.Env)
	if errors.Is(err, fs.ErrNotExist) {
		return exitFailed, fmt.Errorf("%w. If it is somewhere else now, run: synapse-doctor plugin update %s FILE", err, entry.Name)
	}
	if err != nil {
		return exitFailed, err
	}
	if d.Name != entry.Name {
		return exitFailed, fmt.Errorf("%s is the plugin %s, not %s. To add it, run: synapse-doctor plugin add %s", doctor.Clean(file), d.Name, entry.Name, shellWord(file))
	}
	if err := claimed(conf, d); err != nil {
		return exitFailed, err
	}
	entry.Checks, entry.Changes = idsOf(d), changesToRecord(d)
	entry.SHA256[config.Platform()] = sum
	if f.NArg() == 2 {
		if entry.Path, err = a.path(entry, file); err != nil {
			return exitFailed, err
		}
	}
	if sum == old.Sum() && sameIDs(entry.Checks, old.Checks) && entry.Path == old.Path && !a.makeRole && may(entry) == may(old) && entry.ReadDSN == old.ReadDSN {
		fmt.Fprintf(s.out, "The plugin %s is as it was recorded: there is nothing to update.\n", entry.Name)
		return exitOK, nil
	}
	page := describedPlugin(d, sum) + whatIsNew(old, entry, d) + trustPage(entry, d, a.makeRole)
	return a.record(ctx, s, entry, page)
}

// meant is the error of a file that is not there, where the name of a plugin that is may have been meant.
func (a *addFlags) meant(file string, err error) error {
	if all := a.target.plugins.found(file); errors.Is(err, fs.ErrNotExist) && pluginWords.MatchString(file) && len(all) > 0 {
		return fmt.Errorf("plugin add takes a file, not a name. Run: synapse-doctor plugin add %s", shellWord(all[0]))
	}
	return err
}

// examinePlugin opens a file, and asks what was opened, and nothing else, to describe itself.
func examinePlugin(ctx context.Context, file string, env []string) (doctor.Description, string, error) {
	source, sum, err := host.Candidate(file, host.Options{Log: slog.New(slog.DiscardHandler), Env: env})
	if err != nil {
		return doctor.Description{}, "", err
	}
	defer source.Close()
	d, err := source.Describe(ctx)
	if err != nil {
		return doctor.Description{}, "", err
	}
	if len(d.Checks) == 0 {
		return doctor.Description{}, "", fmt.Errorf("the plugin %s has no checks", d.Name)
	}
	return d, sum, nil
}

// claimed refuses a plugin that has the name, or a check, of another one.
func claimed(conf *config.Config, d doctor.Description) error {
	if d.Name == builtin.Name {
		return fmt.Errorf("a plugin can't be called %s, as the checks of this program are: only its author can mend that", builtin.Name)
	}
	for _, id := range idsOf(d) {
		if slices.ContainsFunc(builtin.Checks(), func(c doctor.Check) bool { return c.ID == id }) {
			return fmt.Errorf("the plugin %s claims the check %q, which this program has itself: only its author can mend that", d.Name, id)
		}
		for _, other := range conf.Plugins {
			if other.Name != d.Name && slices.Contains(other.Checks, id) {
				return fmt.Errorf("the plugin %s claims the check %q, which the plugin %s has already. To trust that one no longer, run: synapse-doctor plugin remove %s",
					d.Name, id, other.Name, other.Name)
			}
		}
	}
	return nil
}

// path is what the entry says of where the file is: nothing, where the usual search finds it.
func (a *addFlags) path(entry config.Plugin, file string) (string, error) {
	path, err := filepath.Abs(file)
	if err != nil {
		return "", err
	}
	entry.Path = ""
	usual := pluginFlags{}
	if found, err := usual.file(entry); err == nil && found == path {
		return "", nil
	}
	return path, nil
}

// describedPlugin is what a plugin says of itself, in the plain markdown of the documentation.
func describedPlugin(d doctor.Description, sum string) string {
	var page strings.Builder
	fmt.Fprintf(&page, "# %s %s\n\n- file: %s\n- SHA-256 on %s: %s\n\n", inPage(d.Name), inPage(d.Version), inPage(d.Path), config.Platform(), sum)
	for _, c := range d.Checks {
		fmt.Fprintf(&page, "## check %s\n\n%s. %s\n\n", inPage(c.ID), inPage(c.Title), inPage(c.Why))
		for _, k := range c.Codes {
			fmt.Fprintf(&page, "- `%s` (%s): %s\n", inPage(k.ID), k.Severity, inPage(k.Title))
		}
		fmt.Fprintf(&page, "\n%s\n\n", changesOf(c))
	}
	return page.String()
}

// changesOf says what a check's plans may change.
func changesOf(c doctor.CheckInfo) string {
	changes := effects(c.Changes)
	switch {
	case !c.Plans:
		return "It mends nothing."
	case changes == "":
		return "It has plans, but declares nothing that they change: they can only say what is to be done."
	}
	text := "Its plans may change " + changes + "."
	if len(c.Operations) > 0 {
		text += " It has work of its own (" + inPage(strings.Join(c.Operations, ", ")) + "), which nobody can hold to that."
	}
	return text
}

// effects names what is changed; empty for nothing.
func effects(e doctor.Effects) string {
	var parts []string
	for _, of := range []struct {
		one, many string
		names     []string
	}{{"the table", "the tables", e.Tables}, {"the file", "the files", e.Files}, {"the database", "the databases", e.Databases}} {
		what := of.many
		if len(of.names) == 1 {
			what = of.one
		}
		if len(of.names) > 0 {
			parts = append(parts, what+" "+inPage(strings.Join(of.names, ", ")))
		}
	}
	return strings.Join(parts, ", and ")
}

// allChanges are what the plans of all checks may change, together.
func allChanges(d doctor.Description) (all doctor.Effects, operations bool) {
	merge := func(into *[]string, names []string) {
		*into = append(*into, names...)
		slices.Sort(*into)
		*into = slices.Compact(*into)
	}
	for _, c := range d.Checks {
		if !c.Plans {
			continue
		}
		merge(&all.Tables, c.Changes.Tables)
		merge(&all.Files, c.Changes.Files)
		merge(&all.Databases, c.Changes.Databases)
		operations = operations || len(c.Operations) > 0
	}
	return all, operations
}

// whatIsNew compares an entry with the one that it replaces.
func whatIsNew(old, entry config.Plugin, d doctor.Description) string {
	var page strings.Builder
	page.WriteString("## What is new\n\n")
	was := old.Sum()
	if was != entry.Sum() {
		if was == "" {
			was = "none was recorded for " + config.Platform()
		}
		fmt.Fprintf(&page, "- SHA-256 before: %s\n- SHA-256 now: %s\n", was, entry.Sum())
	}
	for _, id := range entry.Checks {
		if !slices.Contains(old.Checks, id) {
			fmt.Fprintf(&page, "- new check: %s\n", id)
		}
	}
	for _, id := range old.Checks {
		if !slices.Contains(entry.Checks, id) {
			fmt.Fprintf(&page, "- gone: %s\n", id)
		}
	}
	if old.Path != entry.Path {
		const usual = "in one of the usual directories"
		fmt.Fprintf(&page, "- its file before: %s\n- its file now: %s\n", inPage(cmp.Or(old.Path, usual)), inPage(cmp.Or(entry.Path, usual)))
	}
	if before, now := may(old), may(entry); before != now {
		fmt.Fprintf(&page, "- allowed before: %s\n- allowed now: %s\n", inPage(before), inPage(now))
	} else if old.ReadDSN != entry.ReadDSN {
		page.WriteString("- another login (read_dsn)\n")
	}
	if old.Sum() != entry.Sum() {
		page.WriteString(newChanges(old, d))
	}
	return page.String() + "\n"
}

// newChanges tells what a version's plans may change that the earlier one's could not; all of it, where that was not recorded.
func newChanges(old config.Plugin, d doctor.Description) string {
	all, operations := allChanges(d)
	was := recordedChanges(old)
	if was == nil {
		changes := cmp.Or(effects(all), "nothing")
		if operations {
			changes += ", and by work of its own what nobody can hold to that"
		}
		return "- what the earlier version's plans could change was not recorded; this one's, all together: " + changes + "\n"
	}
	more := doctor.Effects{Tables: without(all.Tables, was.Tables), Files: without(all.Files, was.Files), Databases: without(all.Databases, was.Databases)}
	if added := effects(more); added != "" {
		return "- its plans may newly change " + added + "\n"
	}
	return "- its plans may change nothing that the earlier version's could not\n"
}

func without(names, known []string) []string {
	return slices.DeleteFunc(slices.Clone(names), func(n string) bool { return slices.Contains(known, n) })
}

// recordedChanges is what an entry says that the plugin's plans may change; nil where it says nothing of that.
func recordedChanges(entry config.Plugin) *doctor.Effects {
	if c := entry.Changes; c != nil {
		return &doctor.Effects{Tables: c.Tables, Files: c.Files, Databases: c.Databases}
	}
	return nil
}

// changesToRecord is what plugin add and update write of them.
func changesToRecord(d doctor.Description) *config.Changes {
	all, _ := allChanges(d)
	return &config.Changes{Tables: all.Tables, Files: all.Files, Databases: all.Databases}
}

// trustPage says what trusting a plugin means.
func trustPage(entry config.Plugin, d doctor.Description, makeRole bool) string {
	who := "the user who runs synapse-doctor"
	if u, err := user.Current(); err == nil {
		who = u.Username + " (the user who runs synapse-doctor)"
	}
	if makeRole {
		entry.ReadDSN, entry.TrustDatabase = makeRoleMark, false
	}
	page := fmt.Sprintf("## What trusting it means\n\nIt runs as %s and can do whatever that user can. It is allowed to %s.\n\n", inPage(who), inPage(may(entry)))
	if entry.AllowFix {
		switch all, operations := allChanges(d); {
		case operations:
			page += "Its plans have work of their own, which nobody can hold to what they declare.\n\n"
		case effects(all) != "":
			page += "What is changed for it, after you have agreed to a plan, is " + effects(all) + ", and nothing else.\n\n"
		}
	}
	return page
}

// makeRoleMark stands for the connection string of a role that is still to be made.
const makeRoleMark = "-"

// record shows what is about to be trusted, asks, and writes the entry.
func (a *addFlags) record(ctx context.Context, s streams, entry config.Plugin, page string) (int, error) {
	if err := report.Page(s.out, page, a.output.options(s.out)); err != nil {
		return exitFailed, fmt.Errorf("print what the plugin is: %w", err)
	}
	if code, err := a.agree(ctx, s, "Trust this plugin?", entry); err != nil || code != exitOK {
		return code, err
	}
	drop := func() error { return nil }
	if a.makeRole {
		dsn, undo, err := a.readRole(ctx, s)
		if errors.Is(err, errNotAgreed) {
			fmt.Fprintln(s.err, "synapse-doctor: nothing was changed.")
			return exitFindings, nil
		}
		if err != nil {
			return exitFailed, err
		}
		entry.ReadDSN, entry.TrustDatabase, drop = dsn, false, undo
	}
	if err := config.Put(entry.File, entry); err != nil {
		return exitFailed, errors.Join(asRoot(err, entry.File, a.command), drop())
	}
	fmt.Fprintf(s.out, "\nThe plugin %s is trusted by\n%s. Try it:\n\n    synapse-doctor check %s\n", entry.Name, doctor.Clean(entry.File), strings.Join(entry.Checks, " "))
	return exitOK, nil
}

// agree asks a question, unless the command line has answered it.
func (a *addFlags) agree(ctx context.Context, s streams, question string, entry config.Plugin) (int, error) {
	if a.yes {
		return exitOK, nil
	}
	if !isTerminal(s.in) {
		text, err := entry.Text()
		if err != nil {
			return exitFailed, err
		}
		fmt.Fprintf(s.err, "synapse-doctor: nobody could be asked, since standard input is not a terminal. Add this to %s:\n\n%s\nOr, to agree to it, run: %s --yes\n",
			doctor.Clean(entry.File), text, a.command)
		return exitFindings, nil
	}
	fmt.Fprint(s.err, "\n"+question+" Type yes: ")
	answer, err := readLine(ctx, s.in)
	if err != nil {
		return exitFailed, err
	}
	if answer = strings.TrimSpace(answer); !strings.EqualFold(answer, "yes") && !strings.EqualFold(answer, "y") {
		fmt.Fprintln(s.err, "synapse-doctor: nothing was changed.")
		return exitFindings, nil
	}
	return exitOK, nil
}
