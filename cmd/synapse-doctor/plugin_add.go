package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"os/user"
	"path/filepath"
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

const pluginAddAbout = `Shows what a plugin says of itself, and what it would be allowed, and after asking records it, with its SHA-256, in the
doctor's configuration. From then on its checks run with the others. To say what it is, the plugin is run once.

Without --read-dsn, --make-read-role or --trust-database its checks that need PostgreSQL are skipped. Without --allow-fix
its plans are shown and not applied. A plugin runs as the user who runs synapse-doctor, and can do what that user can:
these options bound what it is handed, and what is done for it.

Exit codes: 0 recorded; 2 you did not agree; 1 could not complete.`

const pluginUpdateAbout = `Records a new version of a plugin: its SHA-256 and its checks, after showing them and asking. What it was allowed stays,
unless an option says otherwise. FILE is for one that is somewhere else now.

Exit codes: 0 recorded; 2 you did not agree; 1 could not complete.`

// addFlags are what a plugin is allowed.
type addFlags struct {
	readDSN  string
	makeRole bool
	trust    bool
	allowFix bool
	env      []string
	yes      bool
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
	if a.readDSN != "" {
		var err error
		if entry.ReadDSN, err = readDSN(a.readDSN); err != nil {
			return err
		}
		entry.TrustDatabase = false
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
		entry.Env = a.env
	}
	return nil
}

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
	var a addFlags
	f := newFlags("plugin add", "FILE", pluginAddAbout, s)
	a.register(f)
	if err := parse(f, args); err != nil {
		return exitFailed, err
	}
	if f.NArg() != 1 {
		return exitFailed, errors.New("plugin add takes the file of one plugin; synapse-doctor plugin list shows what is found in the usual directories")
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
		return exitFailed, err
	}
	if old := conf.Plugin(d.Name); old != nil {
		return exitFailed, fmt.Errorf("the plugin %s was added already. For a new version of it, run: %s %s", d.Name, updateCommand(d.Name), shellWord(f.Arg(0)))
	}
	if err := claimed(conf, d); err != nil {
		return exitFailed, err
	}
	entry.Name, entry.Checks = d.Name, idsOf(d)
	entry.SHA256[config.Platform()] = sum
	if entry.Path, err = a.path(entry, f.Arg(0)); err != nil {
		return exitFailed, err
	}
	page := describedPlugin(d, sum) + trustPage(entry, a.makeRole)
	return a.record(ctx, s, entry, page)
}

func runPluginUpdate(ctx context.Context, args []string, s streams) (int, error) {
	var a addFlags
	f := newFlags("plugin update", "NAME [FILE]", pluginUpdateAbout, s)
	a.register(f)
	if err := parse(f, args); err != nil {
		return exitFailed, err
	}
	if f.NArg() != 1 && f.NArg() != 2 {
		return exitFailed, errors.New("plugin update takes the name of one plugin, and its file where that is somewhere else now")
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
	if err != nil {
		return exitFailed, err
	}
	if d.Name != entry.Name {
		return exitFailed, fmt.Errorf("%s is the plugin %s, not %s. To add it, run: synapse-doctor plugin add %s", doctor.Clean(file), d.Name, entry.Name, shellWord(file))
	}
	if err := claimed(conf, d); err != nil {
		return exitFailed, err
	}
	entry.Checks = idsOf(d)
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
	page := describedPlugin(d, sum) + whatIsNew(old, entry) + trustPage(entry, a.makeRole)
	return a.record(ctx, s, entry, page)
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
		return fmt.Errorf("a plugin can't be called %s: the checks of this program are", builtin.Name)
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
	fmt.Fprintf(&page, "# %s %s\n\n- file: %s\n- SHA-256 on %s: %s\n\n", doctor.Clean(d.Name), doctor.Clean(d.Version), doctor.Clean(d.Path), config.Platform(), sum)
	for _, c := range d.Checks {
		fmt.Fprintf(&page, "## check %s\n\n%s. %s\n\n", doctor.Clean(c.ID), doctor.Clean(c.Title), doctor.Clean(c.Why))
		for _, k := range c.Codes {
			fmt.Fprintf(&page, "- `%s` (%s): %s\n", doctor.Clean(k.ID), k.Severity, doctor.Clean(k.Title))
		}
		fmt.Fprintf(&page, "\n%s\n\n", changesOf(c))
	}
	return page.String()
}

// changesOf says what a check's plans may change.
func changesOf(c doctor.CheckInfo) string {
	var parts []string
	for _, of := range []struct {
		what  string
		names []string
	}{{"the tables", c.Changes.Tables}, {"the files", c.Changes.Files}, {"the databases", c.Changes.Databases}} {
		if len(of.names) > 0 {
			parts = append(parts, of.what+" "+doctor.Clean(strings.Join(of.names, ", ")))
		}
	}
	switch {
	case !c.Plans:
		return "It mends nothing."
	case len(parts) == 0:
		return "It has plans, but declares nothing that they change: they can only say what is to be done."
	}
	text := "Its plans may change " + strings.Join(parts, ", and ") + "."
	if len(c.Operations) > 0 {
		text += " It has work of its own (" + doctor.Clean(strings.Join(c.Operations, ", ")) + "), which nobody can hold to that."
	}
	return text
}

// whatIsNew compares an entry with the one that it replaces.
func whatIsNew(old, entry config.Plugin) string {
	var page strings.Builder
	page.WriteString("## What is new\n\n")
	if was := old.Sum(); was != entry.Sum() {
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
		fmt.Fprintf(&page, "- its file was elsewhere: %s\n", doctor.Clean(old.Path))
	}
	return page.String() + "\n"
}

// trustPage says what trusting a plugin means.
func trustPage(entry config.Plugin, makeRole bool) string {
	who := "the user who runs synapse-doctor"
	if u, err := user.Current(); err == nil {
		who = u.Username + " (the user who runs synapse-doctor)"
	}
	allowed := may(entry)
	if makeRole {
		withRole := entry
		withRole.ReadDSN = makeRoleMark
		allowed = may(withRole)
	}
	return fmt.Sprintf("## What trusting it means\n\nIt runs as %s and can do whatever that user can. It is allowed to %s.\n\n", who, allowed)
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
	if a.makeRole {
		dsn, err := a.readRole(ctx, s)
		if err != nil {
			return exitFailed, err
		}
		entry.ReadDSN, entry.TrustDatabase = dsn, false
	}
	if err := config.Put(entry.File, entry); err != nil {
		return exitFailed, err
	}
	fmt.Fprintf(s.out, "\nThe plugin %s is trusted by %s. Try it:\n\n    synapse-doctor check %s\n", entry.Name, doctor.Clean(entry.File), strings.Join(entry.Checks, " "))
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
		fmt.Fprintf(s.err, "synapse-doctor: nobody could be asked, since standard input is not a terminal: --yes agrees to it. Or add this to %s:\n\n%s\n", doctor.Clean(entry.File), text)
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
