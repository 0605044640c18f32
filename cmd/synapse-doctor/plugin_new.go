package main

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/plugins/builtin"
)

// templates are the projects that plugin new writes, a folder for each language. A file whose name ends with .tmpl loses that
// and has its @WORDS@ replaced.
//
//go:embed all:templates
var templates embed.FS

// elsewhere are the files whose place in a project is not the one among the templates.
var elsewhere = map[string]string{"ci.yml": ".github/workflows/ci.yml", "gitignore": ".gitignore"}

// sdkModule is the module that a plugin in Go is built with.
const sdkModule = "github.com/synapse-doctor/synapse-doctor"

// newProject is what plugin new is asked for.
type newProject struct {
	name string // of the plugin
	lang string // go or python
	dir  string // to be made
	sdk  string // a copy of this program's source; empty: the released module
}

func runPluginNew(_ context.Context, args []string, s streams) (int, error) {
	var p newProject
	f := newFlags("plugin new", "NAME", "Write the project of a new plugin: a check with a fix, its tests, and what runs them.", s)
	f.StringVar(&p.lang, "lang", "go", "`LANGUAGE` of the plugin: go or python")
	f.StringVar(&p.dir, "dir", "", "the `DIR` to make (default synapse-doctor-plugin-NAME, here)")
	f.StringVar(&p.sdk, "sdk", "", "build a plugin in Go against the source of synapse-doctor in `DIR`, and not against a release")
	if err := f.Parse(args); err != nil {
		return exitFailed, err
	}
	if f.NArg() != 1 {
		return exitFailed, errors.New("plugin new takes the name of one plugin: synapse-doctor plugin new NAME")
	}
	p.name = f.Arg(0)
	if p.dir == "" {
		p.dir = "synapse-doctor-plugin-" + p.name
	}
	if err := p.write(version()); err != nil {
		return exitFailed, err
	}
	file := "./synapse-doctor-plugin-" + p.name
	fmt.Fprintf(s.out, "Written: %s\n\nNext:\n", doctor.Clean(p.dir))
	next := [][2]string{
		{"cd " + p.dir, ""},
		{"make", "builds " + file},
		{"make test", "runs its tests, on a PostgreSQL server of their own"},
		{"synapse-doctor check " + p.name + " --dev-plugin " + file, "tries it on this homeserver; it only reads"},
	}
	if p.lang == "go" && p.sdk == "" {
		next = slices.Insert(next, 1, [2]string{"go mod tidy", "downloads what it is built with"})
	}
	for _, line := range next {
		fmt.Fprintf(s.out, "  %s\n", doctor.Clean(line[0]))
		if line[1] != "" {
			fmt.Fprintf(s.out, "      %s\n", line[1])
		}
	}
	return exitOK, nil
}

var (
	pluginWords = regexp.MustCompile(`^[a-z][a-z0-9]*(-[a-z0-9]+)*$`)
	released    = regexp.MustCompile(`^v?(\d+\.\d+\.\d+)$`)
)

// mostName keeps the file's name, and the ids that begin with the plugin's, within their bounds.
const mostName = 40

func (p newProject) validate() error {
	switch {
	case !pluginWords.MatchString(p.name) || len(p.name) > mostName:
		return fmt.Errorf("%q can't be the name of a plugin: lower-case words joined by hyphens, at most %d letters and digits, such as acme-bridges", p.name, mostName)
	case p.name == builtin.Name || slices.ContainsFunc(builtin.Checks(), func(c doctor.Check) bool { return c.ID == p.name }):
		return fmt.Errorf("%s is built in: give the plugin, and its check, another name", p.name)
	case p.lang != "go" && p.lang != "python":
		return fmt.Errorf("%q is no language of --lang: go or python", p.lang)
	case p.lang == "python" && p.sdk != "":
		return errors.New("--sdk is for plugins in Go: one in Python has all that it needs")
	}
	return nil
}

// write makes the whole project, or nothing.
func (p newProject) write(version string) (err error) {
	if err := p.validate(); err != nil {
		return err
	}
	words := []string{"@NAME@", p.name}
	if p.lang == "go" {
		require, replace, err := p.module(version)
		if err != nil {
			return err
		}
		words = append(words, "@VERSION@", require, "@REPLACE@", replace)
	}
	if _, err := os.Lstat(p.dir); err == nil {
		return fmt.Errorf("%s exists already: --dir names another directory. Run: synapse-doctor plugin new %s --lang %s --dir DIR", p.dir, p.name, p.lang)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	made, err := os.MkdirTemp(filepath.Dir(filepath.Clean(p.dir)), ".plugin-new-*")
	if err != nil {
		return fmt.Errorf("make %s: %w", p.dir, err)
	}
	defer func() {
		if err != nil {
			os.RemoveAll(made)
		}
	}()
	root, err := fs.Sub(templates, "templates/"+p.lang)
	if err != nil {
		return err
	}
	if err := writeTemplates(root, made, strings.NewReplacer(words...)); err != nil {
		return fmt.Errorf("write %s: %w", p.dir, err)
	}
	if err := os.Chmod(made, 0o755); err != nil {
		return err
	}
	if err := os.Rename(made, p.dir); err != nil {
		return fmt.Errorf("make %s: %w", p.dir, err)
	}
	return nil
}

func writeTemplates(root fs.FS, dir string, words *strings.Replacer) error {
	return fs.WalkDir(root, ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.Name() == "__pycache__" {
			return fs.SkipDir // left by a Python that was run in the source
		}
		if entry.IsDir() {
			return nil
		}
		text, err := fs.ReadFile(root, path)
		if err != nil {
			return err
		}
		if cut, ok := strings.CutSuffix(path, ".tmpl"); ok {
			path, text = cut, []byte(strings.TrimRight(words.Replace(string(text)), "\n")+"\n")
		}
		if place, ok := elsewhere[path]; ok {
			path = place
		}
		path = filepath.Join(dir, filepath.FromSlash(path))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		return os.WriteFile(path, text, 0o644)
	})
}

// module is how go.mod names the module of the kit: the release that this program is, or the source that was named.
func (p newProject) module(version string) (require, replace string, err error) {
	if p.sdk == "" {
		m := released.FindStringSubmatch(version)
		if m == nil {
			return "", "", fmt.Errorf("this synapse-doctor (%s) is no release that a module could be downloaded for: --sdk names a directory with its source. Run: synapse-doctor plugin new %s --sdk DIR", version, p.name)
		}
		return "v" + m[1], "", nil
	}
	dir, err := filepath.Abs(p.sdk)
	if err != nil {
		return "", "", err
	}
	text, err := os.ReadFile(filepath.Join(dir, "go.mod"))
	if err != nil || !strings.HasPrefix(string(text), "module "+sdkModule+"\n") {
		return "", "", fmt.Errorf("%s does not hold the source of synapse-doctor: there is no go.mod of %s", dir, sdkModule)
	}
	replace = fmt.Sprintf("// To build against a release: delete this line, and run go get %s@latest.\nreplace %s => %q", sdkModule, sdkModule, dir)
	return "v0.0.0", replace, nil
}
