package config

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// parse adds what a file says.
func (c *Config) parse(path string, data []byte) error {
	p := parser{path}
	root, err := p.document(data)
	if err != nil || root == nil {
		return err
	}
	return p.mapping(root, "the file", map[string]func(*yaml.Node) error{
		"plugins":    func(n *yaml.Node) error { return p.plugins(n, c) },
		"ignore":     func(n *yaml.Node) error { return p.ignore(n, c) },
		"defaults":   func(n *yaml.Node) error { return p.defaults(n, c) },
		"thresholds": func(n *yaml.Node) error { return p.thresholds(n, c) },
	})
}

// parser turns the nodes of one file into values.
type parser struct{ path string }

func (p parser) fail(n *yaml.Node, format string, args ...any) error {
	return &Error{p.path, n.Line, fmt.Sprintf(format, args...)}
}

func (p parser) where(n *yaml.Node) string { return fmt.Sprintf("%s:%d", p.path, n.Line) }

var syntaxLine = regexp.MustCompile(`^yaml: line (\d+): `)

// document is the file's root node; nil for an empty file.
func (p parser) document(data []byte) (*yaml.Node, error) {
	d := yaml.NewDecoder(bytes.NewReader(data))
	var doc yaml.Node
	switch err := d.Decode(&doc); {
	case errors.Is(err, io.EOF):
		return nil, nil
	case err != nil:
		text, line := err.Error(), 0
		if m := syntaxLine.FindStringSubmatch(text); m != nil {
			fmt.Sscan(m[1], &line)
			text = text[len(m[0]):]
		}
		return nil, &Error{p.path, line, "it is not YAML: " + strings.TrimPrefix(text, "yaml: ")}
	}
	if err := d.Decode(&yaml.Node{}); !errors.Is(err, io.EOF) {
		return nil, &Error{p.path, 0, "it has more than one YAML document"}
	}
	root := doc.Content[0]
	if root.Kind == yaml.ScalarNode && root.Tag == "!!null" {
		return nil, nil
	}
	return root, nil
}

// entries goes through the keys of a mapping.
func (p parser) entries(n *yaml.Node, what string, each func(key *yaml.Node, value *yaml.Node) error) error {
	if n.Kind != yaml.MappingNode {
		return p.fail(n, "%s must be keys with values", what)
	}
	seen := map[string]bool{}
	for i := 0; i < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if key.Kind != yaml.ScalarNode || key.Tag == "!!merge" || value.Kind == yaml.AliasNode {
			return p.fail(key, "%s: aliases and keys that are not plain are not understood here", what)
		}
		if seen[key.Value] {
			return p.fail(key, "%q is there twice", key.Value)
		}
		seen[key.Value] = true
		if err := each(key, value); err != nil {
			return err
		}
	}
	return nil
}

// mapping reads a mapping of which all keys are known.
func (p parser) mapping(n *yaml.Node, what string, known map[string]func(*yaml.Node) error) error {
	return p.entries(n, what, func(key, value *yaml.Node) error {
		read, ok := known[key.Value]
		if !ok {
			names := make([]string, 0, len(known))
			for name := range known {
				names = append(names, name)
			}
			slices.Sort(names)
			return p.fail(key, "there is no key %q here: the keys are %s", key.Value, strings.Join(names, ", "))
		}
		return read(value)
	})
}

func (p parser) items(n *yaml.Node, what string, each func(*yaml.Node) error) error {
	if n.Kind != yaml.SequenceNode {
		return p.fail(n, "%s must be a list", what)
	}
	for _, item := range n.Content {
		if err := each(item); err != nil {
			return err
		}
	}
	return nil
}

// text reads a scalar, whatever it looks like.
func (p parser) text(n *yaml.Node, what string, into *string) error {
	if n.Kind != yaml.ScalarNode || n.Tag == "!!null" || strings.TrimSpace(n.Value) == "" {
		return p.fail(n, "%s must be a word or a text", what)
	}
	*into = n.Value
	return nil
}

func (p parser) truth(n *yaml.Node, what string, into *bool) error {
	if n.Tag != "!!bool" || n.Decode(into) != nil {
		return p.fail(n, "%s must be true or false", what)
	}
	return nil
}

var (
	words    = regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)*$`)
	variable = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
	platform = regexp.MustCompile(`^[a-z0-9]+/[a-z0-9]+$`)
	anything = regexp.MustCompile(`.`)
	code     = regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)*/[a-z0-9]+(-[a-z0-9]+)*$`)
)

func (p parser) list(n *yaml.Node, what string, form *regexp.Regexp, into *[]string) error {
	return p.items(n, what, func(item *yaml.Node) error {
		var value string
		if err := p.text(item, "each of "+what, &value); err != nil {
			return err
		}
		if !form.MatchString(value) {
			return p.fail(item, "%q can't be one of %s", value, what)
		}
		if slices.Contains(*into, value) {
			return p.fail(item, "%q is there twice", value)
		}
		*into = append(*into, value)
		return nil
	})
}

func (p parser) plugins(n *yaml.Node, c *Config) error {
	return p.entries(n, "plugins", func(key, value *yaml.Node) error {
		plugin := Plugin{Name: key.Value, File: p.path, Where: p.where(key), SHA256: map[string]string{}}
		if !words.MatchString(plugin.Name) {
			return p.fail(key, "a plugin's name is lower-case words joined by hyphens, not %q", plugin.Name)
		}
		what := "the plugin " + plugin.Name
		err := p.mapping(value, what, map[string]func(*yaml.Node) error{
			"path": func(n *yaml.Node) error {
				if err := p.text(n, "path", &plugin.Path); err != nil {
					return err
				}
				if !filepath.IsAbs(plugin.Path) {
					return p.fail(n, "path must be absolute, not %q", plugin.Path)
				}
				return nil
			},
			"sha256":         func(n *yaml.Node) error { return p.sums(n, plugin.SHA256) },
			"checks":         func(n *yaml.Node) error { return p.list(n, "checks", words, &plugin.Checks) },
			"changes":        func(n *yaml.Node) error { return p.changes(n, &plugin) },
			"env":            func(n *yaml.Node) error { return p.list(n, "env", variable, &plugin.Env) },
			"allow_fix":      func(n *yaml.Node) error { return p.truth(n, "allow_fix", &plugin.AllowFix) },
			"trust_database": func(n *yaml.Node) error { return p.truth(n, "trust_database", &plugin.TrustDatabase) },
			"read_dsn":       func(n *yaml.Node) error { return p.text(n, "read_dsn", &plugin.ReadDSN) },
		})
		switch {
		case err != nil:
			return err
		case len(plugin.SHA256) == 0:
			return p.fail(key, "%s has no sha256, without which it is not run: synapse-doctor plugin add FILE writes it", what)
		case len(plugin.Checks) == 0:
			return p.fail(key, "%s has no checks: synapse-doctor plugin add FILE writes them", what)
		case plugin.ReadDSN != "" && plugin.TrustDatabase:
			return p.fail(key, "%s has read_dsn and trust_database: one of them is enough", what)
		case plugin.ReadDSN != "" && readableByOthers(p.path):
			return p.fail(key, "read_dsn is a secret, and others can read this file: chmod 600 %s", p.path)
		}
		if old := c.Plugin(plugin.Name); old != nil {
			*old = plugin
			return nil
		}
		c.Plugins = append(c.Plugins, plugin)
		return nil
	})
}

func (p parser) changes(n *yaml.Node, plugin *Plugin) error {
	plugin.Changes = &Changes{}
	return p.mapping(n, "changes", map[string]func(*yaml.Node) error{
		"tables":    func(n *yaml.Node) error { return p.list(n, "tables", anything, &plugin.Changes.Tables) },
		"files":     func(n *yaml.Node) error { return p.list(n, "files", anything, &plugin.Changes.Files) },
		"databases": func(n *yaml.Node) error { return p.list(n, "databases", anything, &plugin.Changes.Databases) },
	})
}

func (p parser) sums(n *yaml.Node, into map[string]string) error {
	return p.entries(n, "sha256", func(key, value *yaml.Node) error {
		if !platform.MatchString(key.Value) {
			return p.fail(key, "%q is no platform such as %s", key.Value, Platform())
		}
		var sum string
		if err := p.text(value, "sha256", &sum); err != nil {
			return err
		}
		if b, err := hex.DecodeString(sum); err != nil || len(b) != 32 {
			return p.fail(value, "%q is no SHA-256: 64 hexadecimal digits", sum)
		}
		into[key.Value] = strings.ToLower(sum)
		return nil
	})
}

func (p parser) ignore(n *yaml.Node, c *Config) error {
	return p.items(n, "ignore", func(item *yaml.Node) error {
		i := Ignore{Where: p.where(item)}
		err := p.mapping(item, "each of ignore", map[string]func(*yaml.Node) error{
			"code": func(n *yaml.Node) error {
				if err := p.text(n, "code", &i.Code); err != nil {
					return err
				}
				if !code.MatchString(i.Code) {
					return p.fail(n, "%q is no code of a finding, such as keepalives/not-set", i.Code)
				}
				return nil
			},
			"object": func(n *yaml.Node) error { return p.text(n, "object", &i.Object) },
			"why":    func(n *yaml.Node) error { return p.text(n, "why", &i.Why) },
			"until": func(n *yaml.Node) error {
				var day string
				if err := p.text(n, "until", &day); err != nil {
					return err
				}
				var err error
				if i.Until, err = time.ParseInLocation(time.DateOnly, day, time.Local); err != nil {
					return p.fail(n, "until must be a day such as 2027-03-01, not %q", day)
				}
				return nil
			},
		})
		switch {
		case err != nil:
			return err
		case i.Code == "":
			return p.fail(item, "what is ignored needs a code")
		case i.Why == "":
			return p.fail(item, "what is ignored needs a why: whoever reads the report wants to know")
		}
		c.Ignore = append(c.Ignore, i)
		return nil
	})
}

func (p parser) defaults(n *yaml.Node, c *Config) error {
	return p.entries(n, "defaults", func(key, value *yaml.Node) error {
		d := Default{Where: p.where(key), Option: key.Value}
		if !words.MatchString(d.Option) {
			return p.fail(key, "%q is no option: write its name without dashes before it", d.Option)
		}
		add := func(n *yaml.Node) error {
			var text string
			if err := p.text(n, d.Option, &text); err != nil {
				return err
			}
			d.Values = append(d.Values, text)
			return nil
		}
		var err error
		if value.Kind == yaml.SequenceNode {
			err = p.items(value, d.Option, add)
		} else {
			err = add(value)
		}
		if err != nil {
			return err
		}
		if holdsPassword(d) && readableByOthers(p.path) {
			return p.fail(key, "%s may hold a password, and others can read this file: chmod 600 %s", d.Option, p.path)
		}
		c.Defaults = slices.DeleteFunc(c.Defaults, func(old Default) bool { return old.Option == d.Option })
		c.Defaults = append(c.Defaults, d)
		return nil
	})
}

func (p parser) thresholds(n *yaml.Node, c *Config) error {
	return p.entries(n, "thresholds", func(key, value *yaml.Node) error {
		t := Threshold{Where: p.where(key), ID: key.Value}
		if !code.MatchString(t.ID) {
			return p.fail(key, "%q is no threshold, such as keepalives/slowest: synapse-doctor list -v shows them", t.ID)
		}
		number := value.Kind == yaml.ScalarNode && (value.Tag == "!!int" || value.Tag == "!!float")
		if !number || value.Decode(&t.Value) != nil || math.IsNaN(t.Value) || math.IsInf(t.Value, 0) {
			return p.fail(value, "%s must be a number", t.ID)
		}
		c.Thresholds = slices.DeleteFunc(c.Thresholds, func(old Threshold) bool { return old.ID == t.ID })
		c.Thresholds = append(c.Thresholds, t)
		return nil
	})
}

// holdsPassword reports whether an option's values may be connection strings that hold one; @FILE names a file that does.
func holdsPassword(d Default) bool {
	return (d.Option == "admin-dsn" || d.Option == "replica") &&
		slices.ContainsFunc(d.Values, func(v string) bool { return v != "none" && !strings.HasPrefix(v, "@") })
}
