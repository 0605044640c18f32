package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/synapse-doctor/synapse-doctor/core/config"
	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/pgdb"
	"github.com/synapse-doctor/synapse-doctor/plugins/builtin"
	"github.com/synapse-doctor/synapse-doctor/plugins/host"
)

// pluginCommands are the commands after plugin.
var pluginCommands = []command{
	{"list", "", "which are trusted, refused or found", runPluginList},
	{"add", "FILE", "show what a plugin is, and trust it", runPluginAdd},
	{"update", "NAME [FILE]", "trust a new version of a plugin", runPluginUpdate},
	{"remove", "NAME", "trust a plugin no longer", runPluginRemove},
	{"new", "NAME", "write the project of a new plugin", runPluginNew},
	{"test", "FILE", "try what every plugin must keep to", runPluginTest},
}

func runPlugin(ctx context.Context, args []string, s streams) (int, error) {
	if len(args) == 0 || slices.Contains([]string{"help", "-h", "--help"}, args[0]) {
		w, code := s.out, exitOK
		if len(args) == 0 {
			w, code = s.err, exitFailed
		}
		fmt.Fprint(w, "Plugins of third parties teach synapse-doctor more checks. None is run before it\nwas added.\n\nUsage:\n")
		for _, c := range pluginCommands {
			fmt.Fprintf(w, "  synapse-doctor plugin %-18s %s\n", strings.TrimSpace(c.name+" "+c.args), c.summary)
		}
		fmt.Fprint(w, "\nsynapse-doctor plugin COMMAND --help lists a command's options.\n")
		return code, nil
	}
	for _, c := range pluginCommands {
		if c.name == args[0] {
			return c.run(ctx, args[1:], s)
		}
	}
	return exitFailed, fmt.Errorf("there is no command %q of plugin. To see them, run: synapse-doctor plugin help", args[0])
}

// pluginDirs are where the files of plugins are looked for, in this order. Neither PATH nor the working directory is.
func (p *pluginFlags) pluginDirs() []string {
	dirs := append(slices.Clone(p.dirs), "/etc/synapse-doctor/plugins", "/usr/lib/synapse-doctor/plugins")
	if os.Geteuid() == 0 {
		return dirs
	}
	base := os.Getenv("XDG_DATA_HOME")
	if !filepath.IsAbs(base) {
		home, err := os.UserHomeDir()
		if err != nil {
			return dirs
		}
		base = filepath.Join(home, ".local", "share")
	}
	return append(dirs, filepath.Join(base, "synapse-doctor", "plugins"))
}

// file is where the file of an entry is.
func (p *pluginFlags) file(entry config.Plugin) (string, error) {
	if entry.Path != "" {
		return entry.Path, nil
	}
	if all := p.found(entry.Name); len(all) > 0 {
		return all[0], nil
	}
	return "", fmt.Errorf("there is no file %s in %s. Put it there, or run: synapse-doctor plugin remove %s",
		host.FilePrefix+entry.Name, strings.Join(p.pluginDirs(), ", "), entry.Name)
}

// found are the files of a plugin in the usual directories, of which the first one counts.
func (p *pluginFlags) found(name string) []string {
	var all []string
	for _, dir := range p.pluginDirs() {
		path, err := filepath.Abs(filepath.Join(dir, host.FilePrefix+name))
		if err != nil || slices.Contains(all, path) {
			continue
		}
		// A directory that can't be searched is no reason to take the file of another one.
		if _, err := os.Lstat(path); err == nil || errors.Is(err, fs.ErrPermission) {
			all = append(all, path)
		}
	}
	return all
}

// needs reports whether a plugin is wanted. A name that nothing is known of may be any plugin's.
func (p *pluginFlags) needs(conf *config.Config, entry config.Plugin) bool {
	if p.every {
		return true
	}
	for _, name := range p.wanted {
		id := doctor.CheckID(name)
		known := len(p.dev) > 0 || slices.ContainsFunc(builtin.Checks(), func(c doctor.Check) bool { return c.ID == id }) ||
			slices.ContainsFunc(conf.Plugins, func(p config.Plugin) bool { return slices.Contains(p.Checks, id) })
		if !known || slices.Contains(entry.Checks, id) {
			return true
		}
	}
	return false
}

// entryName is how messages call an entry.
func entryName(entry config.Plugin) string { return "plugins." + entry.Name + " in " + entry.Where }

// updateCommand records a plugin anew, found where it was found now.
func (p *pluginFlags) updateCommand(entry config.Plugin) string {
	command := "synapse-doctor plugin update " + entry.Name
	if entry.Path == "" {
		for _, dir := range p.dirs {
			command += " --plugin-dir " + shellWord(dir)
		}
	}
	return command
}

// installed makes the source of an entry. Its error is a mistake in the configuration; what is wrong with the file is told
// when the plugin is asked something.
func (p *pluginFlags) installed(entry config.Plugin, log *slog.Logger) (*host.Source, error) {
	terms := &doctor.Terms{
		Entry: entryName(entry), Checks: entry.Checks, Changes: recordedChanges(entry), Update: p.updateCommand(entry),
		AllowFix: entry.AllowFix, TrustDatabase: entry.TrustDatabase,
	}
	if entry.ReadDSN != "" {
		var err error
		if terms.Reader, err = pgdb.Parse(entry.ReadDSN); err != nil {
			return nil, fmt.Errorf("%s: read_dsn of the plugin %s: %w. Run: synapse-doctor plugin update %s --read-dsn @FILE", entry.Where, entry.Name, err, entry.Name)
		}
	}
	path, err := p.file(entry)
	if err != nil {
		return host.Refused(entry.Name, entry.Path, terms, err), nil
	}
	if entry.Sum() == "" {
		return host.Refused(entry.Name, path, terms, fmt.Errorf("no SHA-256 for %s was recorded of %s. Run: %s", config.Platform(), path, terms.Update)), nil
	}
	return host.Installed(entry.Name, path, entry.Sum(), terms, host.Options{Log: log, Env: entry.Env}), nil
}

// trusted is what the configuration says of a plugin.
func trusted(conf *config.Config, name string) (config.Plugin, error) {
	if entry := conf.Plugin(name); entry != nil {
		return *entry, nil
	}
	return config.Plugin{}, fmt.Errorf("no plugin %q was added. For those that were, run: synapse-doctor plugin list", name)
}

// may says, in a few words, what a plugin is allowed.
func may(entry config.Plugin) string {
	parts := []string{"look, without a connection to PostgreSQL"}
	switch {
	case entry.TrustDatabase:
		parts[0] = "read the database with Synapse's login (trust_database)"
	case entry.ReadDSN != "":
		parts[0] = "read the database with a login of its own (read_dsn)"
	}
	if entry.AllowFix {
		parts = append(parts, "change what it declares, in fix --apply (allow_fix)")
	}
	if len(entry.Env) > 0 {
		parts = append(parts, "see the environment variables "+strings.Join(entry.Env, ", "))
	}
	return strings.Join(parts, "; ")
}

const pluginRemoveAbout = `Takes a plugin out of the configuration: it is not run any more. Its file stays where it is.`

func runPluginRemove(_ context.Context, args []string, s streams) (int, error) {
	f := newFlags("plugin remove", "NAME", pluginRemoveAbout, s)
	f.BoolP("yes", "y", false, "as for add and update; nothing is asked here")
	if err := f.Parse(args); err != nil {
		return exitFailed, err
	}
	if f.NArg() != 1 {
		return exitFailed, errors.New("plugin remove takes the name of one plugin. To see them, run: synapse-doctor plugin list")
	}
	if err := removePlugin(f.Arg(0), config.Load, s.out); err != nil {
		return exitFailed, err
	}
	return exitOK, nil
}

// removePlugin takes a plugin out of every file that trusts it: behind the entry of one there may be that of another.
func removePlugin(name string, load func() (*config.Config, error), out io.Writer) error {
	conf, err := load()
	if err != nil {
		return err
	}
	entry, err := trusted(conf, name)
	if err != nil {
		return err
	}
	var files []string
	for next := &entry; next != nil; next = conf.Plugin(name) {
		if err := config.Remove(next.File, name); err != nil {
			err = asRoot(err, next.File, "synapse-doctor plugin remove "+name)
			if len(files) > 0 {
				err = fmt.Errorf("the plugin %s was taken out of %s, and is still trusted by %s: %w", name, strings.Join(files, " and "), next.Where, err)
			}
			return err
		}
		files = append(files, next.File)
		if conf, err = load(); err != nil {
			return err
		}
	}
	fmt.Fprintf(out, "The plugin %s is not run any more. Its file is still there. It was taken out of:\n", name)
	for _, file := range files {
		fmt.Fprintf(out, "    %s\n", doctor.Clean(file))
	}
	return nil
}

// asRoot says who can do what was not permitted.
func asRoot(err error, file, command string) error {
	if !errors.Is(err, fs.ErrPermission) || os.Geteuid() == 0 {
		return err
	}
	return fmt.Errorf("%w: only who may write %s can do that. Run: sudo %s", err, file, command)
}

// noColorFlag is the one output option of commands that print a page.
func noColorFlag(f *pflag.FlagSet, o *outputFlags) {
	f.BoolVar(&o.noColor, "no-color", false, "no colours, also with the environment variable NO_COLOR")
}
