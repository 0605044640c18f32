package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/synapse-doctor/synapse-doctor/core/config"
	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/owned"
	"github.com/synapse-doctor/synapse-doctor/core/report"
	"github.com/synapse-doctor/synapse-doctor/plugins/host"
)

// What becomes of a plugin.
const (
	pluginEnabled = "enabled"
	pluginRefused = "refused"
	pluginFound   = "found, not enabled"
)

// listedPlugin is one line of plugin list.
type listedPlugin struct {
	Name    string   `json:"name"`
	Version string   `json:"version,omitempty"` // as it says itself; nobody asks one that is not enabled
	Status  string   `json:"status"`
	Reason  string   `json:"reason,omitempty"`
	Path    string   `json:"path,omitempty"`
	Entry   string   `json:"entry,omitempty"` // file:line
	SHA256  string   `json:"sha256,omitempty"`
	Checks  []string `json:"checks,omitempty"`
	Fix     bool     `json:"allow_fix"`
	Reads   string   `json:"database"` // none, read_dsn or trust_database
	Env     []string `json:"env,omitempty"`
	Unused  []string `json:"unused,omitempty"` // files of the same name, which the one at Path comes before

	may, next string
}

const pluginListAbout = `The plugins of third parties: those that were added, whether they are run or
refused and why, what they may do, and the files that are found in the usual
directories and were not added. Only those that were added are asked for their
version.

Exit codes: 0; 1 a plugin that was added is refused.`

func runPluginList(ctx context.Context, args []string, s streams) (int, error) {
	var p pluginFlags
	var o outputFlags
	f := newFlags("plugin list", "", pluginListAbout, s)
	f.StringArrayVar(&p.dirs, "plugin-dir", nil, "look for the files of plugins in `DIR` first; may be repeated")
	format := f.String("format", "table", "table or json")
	noColorFlag(f, &o)
	if err := parse(f, args); err != nil {
		return exitFailed, err
	}
	if f.NArg() > 0 {
		return exitFailed, errors.New("plugin list takes no argument: synapse-doctor plugin list")
	}
	if *format != "table" && *format != "json" {
		return exitFailed, fmt.Errorf("--format: %q is not a format of plugin list: table or json", *format)
	}
	conf, err := config.Load()
	if err != nil {
		return exitFailed, err
	}
	all, err := p.list(ctx, conf)
	if err != nil {
		return exitFailed, err
	}
	switch *format {
	case "table":
		err = report.Page(s.out, pluginPage(all, p.pluginDirs()), o.options(s.out))
	case "json":
		e := json.NewEncoder(s.out)
		e.SetIndent("", "  ")
		err = e.Encode(struct {
			SchemaVersion int            `json:"schema_version"`
			Directories   []string       `json:"directories"`
			Plugins       []listedPlugin `json:"plugins"`
		}{1, p.pluginDirs(), append([]listedPlugin{}, all...)})
	}
	if err != nil {
		return exitFailed, fmt.Errorf("print the list: %w", err)
	}
	if slices.ContainsFunc(all, func(l listedPlugin) bool { return l.Status == pluginRefused }) {
		return exitFailed, nil
	}
	return exitOK, nil
}

// list asks every plugin that was added, at the same time, and finds the files of the others.
func (p *pluginFlags) list(ctx context.Context, conf *config.Config) ([]listedPlugin, error) {
	all := make([]listedPlugin, len(conf.Plugins))
	var wg sync.WaitGroup
	for i, entry := range conf.Plugins {
		source, err := p.installed(entry, slog.New(slog.DiscardHandler))
		if err != nil {
			return nil, err
		}
		wg.Go(func() {
			defer source.Close()
			all[i] = describeEntry(ctx, entry, source)
			path, _ := p.file(entry)
			all[i].Path = doctor.Clean(path)
			all[i].Unused = cleaned(slices.DeleteFunc(p.found(entry.Name), func(other string) bool { return other == path }))
		})
	}
	wg.Wait()
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	known := map[string]bool{}
	for _, l := range all {
		known[l.Name] = true
	}
	for _, dir := range p.pluginDirs() {
		files, _ := filepath.Glob(filepath.Join(escapeGlob(dir), host.FilePrefix+"*"))
		for _, file := range files {
			name := strings.TrimPrefix(filepath.Base(file), host.FilePrefix)
			if info, err := os.Stat(file); err != nil || !info.Mode().IsRegular() || known[name] {
				continue
			}
			known[name] = true
			path, err := filepath.Abs(file)
			if err != nil {
				path = file
			}
			l := listedPlugin{Name: doctor.Clean(name), Status: pluginFound, Path: doctor.Clean(path), Reads: "none", next: "synapse-doctor plugin add " + shellWord(path)}
			if unused := p.found(name); len(unused) > 1 {
				l.Unused = cleaned(unused[1:])
			}
			if !pluginWords.MatchString(name) {
				l.Reason, l.next = "No plugin has such a name: it is lower-case words joined by hyphens.", ""
			}
			all = append(all, l)
		}
	}
	return all, nil
}

func cleaned(paths []string) []string {
	for i, path := range paths {
		paths[i] = doctor.Clean(path)
	}
	return paths
}

func escapeGlob(dir string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(dir)
}

// describeEntry asks a plugin that was added.
func describeEntry(ctx context.Context, entry config.Plugin, source *host.Source) listedPlugin {
	l := listedPlugin{Name: entry.Name, Status: pluginEnabled, Entry: entry.Where, SHA256: entry.Sum(), Checks: entry.Checks,
		Fix: entry.AllowFix, Reads: "none", Env: entry.Env, may: may(entry)}
	switch {
	case entry.TrustDatabase:
		l.Reads = "trust_database"
	case entry.ReadDSN != "":
		l.Reads = "read_dsn"
	}
	d, err := source.Describe(ctx)
	if err == nil {
		l.Version = doctor.Clean(d.Version)
		if ids := idsOf(d); !sameIDs(ids, entry.Checks) {
			terms := source.Terms()
			err = fmt.Errorf("it has the checks %s now. If that is right, run: %s", strings.Join(ids, ", "), terms.Update)
		}
	}
	if err != nil {
		l.Status, l.Reason = pluginRefused, doctor.Clean(err.Error())
	}
	return l
}

func idsOf(d doctor.Description) []string {
	var ids []string
	for _, c := range d.Checks {
		ids = append(ids, c.ID)
	}
	return ids
}

func sameIDs(a, b []string) bool {
	return slices.Equal(slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b)))
}

// pluginPage is the list in the plain markdown of the documentation.
func pluginPage(all []listedPlugin, dirs []string) string {
	var page, next strings.Builder
	for _, l := range all {
		fmt.Fprintf(&page, "# %s\n\n", inPage(strings.TrimSpace(l.Name+" "+l.Version)+": "+l.Status))
		if l.Reason != "" {
			fmt.Fprintf(&page, "%s\n\n", inPage(l.Reason))
		}
		if l.Path != "" {
			fmt.Fprintf(&page, "- file: %s\n", inPage(l.Path))
		}
		for _, path := range l.Unused {
			fmt.Fprintf(&page, "- not used, since that one comes first: %s\n", inPage(path))
		}
		if len(l.Checks) > 0 {
			fmt.Fprintf(&page, "- checks: %s\n", strings.Join(l.Checks, ", "))
		}
		if l.may != "" {
			fmt.Fprintf(&page, "- may: %s\n", l.may)
		}
		if l.Entry != "" {
			fmt.Fprintf(&page, "- trusted by: %s\n", inPage(l.Entry))
		}
		page.WriteString("\n")
		if l.next != "" {
			next.WriteString(l.next + "\n")
		}
	}
	if len(all) == 0 {
		fmt.Fprintf(&page, "No plugin was added, and none is in %s.\n\nTo look at one and trust it:\n\n```\nsynapse-doctor plugin add FILE\n```\n", strings.Join(dirs, ", "))
	}
	if next.Len() > 0 {
		fmt.Fprintf(&page, "To look at what is not enabled, and trust it:\n\n```\n%s```\n", next.String())
	}
	return page.String()
}

// inPage keeps a stranger's words from being read as marks of the page that they stand in.
func inPage(s string) string {
	s = strings.NewReplacer("`", "'", "**", "∗∗", "](", "] (").Replace(doctor.Clean(s))
	if s != "" && strings.ContainsRune("#|-*0123456789", rune(s[0])) {
		return " " + s
	}
	return s
}

// shellWord writes a word as a shell takes it.
func shellWord(s string) string {
	if doctor.Clean(s) != s { // in the one form that spells control characters
		quoted := strconv.Quote(s)
		return "$'" + strings.NewReplacer(`\"`, `"`, "'", `\'`).Replace(quoted[1:len(quoted)-1]) + "'"
	}
	return owned.ShellWord(s)
}
