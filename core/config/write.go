package config

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"go.yaml.in/yaml/v3"
)

// Put writes the entry of a plugin into a file, in place of the one of the same name. Comments and everything else stay. A
// file that is not there is made, readable by its owner only.
//
// A file that is to hold read_dsn, which is a secret, is taken from all others first.
func Put(path string, plugin Plugin) error {
	if plugin.ReadDSN != "" && readableByOthers(path) {
		if err := os.Chmod(path, 0o600); err != nil {
			return fmt.Errorf("keep read_dsn from others: %w", err)
		}
	}
	return change(path, func(plugins *yaml.Node) error {
		value, err := entry(plugin)
		if err != nil {
			return err
		}
		if i := find(plugins, plugin.Name); i >= 0 {
			value.HeadComment, value.LineComment, value.FootComment = plugins.Content[i+1].HeadComment, plugins.Content[i+1].LineComment, plugins.Content[i+1].FootComment
			plugins.Content[i+1] = value
			return nil
		}
		plugins.Content = append(plugins.Content, &yaml.Node{Kind: yaml.ScalarNode, Value: plugin.Name}, value)
		return nil
	})
}

// Text is the entry as the file would have it, without its secret.
func (p Plugin) Text() (string, error) {
	if p.ReadDSN != "" {
		p.ReadDSN = "…"
	}
	value, err := entry(p)
	if err != nil {
		return "", err
	}
	text, err := yaml.Marshal(map[string]map[string]*yaml.Node{"plugins": {p.Name: value}})
	return string(text), err
}

// ErrAbsent: the file has no entry of that name.
var ErrAbsent = errors.New("there is no entry of that name")

// Remove takes the entry of a plugin out of a file.
func Remove(path, name string) error {
	return change(path, func(plugins *yaml.Node) error {
		i := find(plugins, name)
		if i < 0 {
			return ErrAbsent
		}
		plugins.Content = append(plugins.Content[:i], plugins.Content[i+2:]...)
		return nil
	})
}

// entry is a plugin as the file has it. The name is its key.
func entry(p Plugin) (*yaml.Node, error) {
	var n yaml.Node
	err := n.Encode(struct {
		Path          string            `yaml:"path,omitempty"`
		SHA256        map[string]string `yaml:"sha256"`
		Checks        []string          `yaml:"checks,flow"`
		Changes       *Changes          `yaml:"changes,flow,omitempty"`
		ReadDSN       string            `yaml:"read_dsn,omitempty"`
		TrustDatabase bool              `yaml:"trust_database,omitempty"`
		AllowFix      bool              `yaml:"allow_fix,omitempty"`
		Env           []string          `yaml:"env,flow,omitempty"`
	}{p.Path, p.SHA256, p.Checks, p.Changes, p.ReadDSN, p.TrustDatabase, p.AllowFix, p.Env})
	return &n, err
}

// find is where a mapping has a key; -1 where it has not.
func find(mapping *yaml.Node, key string) int {
	for i := 0; i < len(mapping.Content); i += 2 {
		if mapping.Content[i].Value == key {
			return i
		}
	}
	return -1
}

// change edits the plugins of a file, which must be a sound one before and after, and replaces it at once.
func change(path string, edit func(plugins *yaml.Node) error) error {
	if _, err := Read(path); err != nil {
		return err
	}
	mode := fs.FileMode(0o600)
	data, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return fmt.Errorf("read the configuration: %w", err)
	default:
		info, err := os.Stat(path)
		if err != nil {
			return fmt.Errorf("read the configuration: %w", err)
		}
		mode = info.Mode().Perm()
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(data, &doc); err != nil {
		return &Error{Path: path, Text: err.Error()}
	}
	if len(doc.Content) == 0 || doc.Content[0].Kind != yaml.MappingNode { // empty, or nothing but comments
		doc = yaml.Node{Kind: yaml.DocumentNode, HeadComment: doc.HeadComment, FootComment: doc.FootComment, Content: []*yaml.Node{{Kind: yaml.MappingNode}}}
	}
	root := doc.Content[0]
	i := find(root, "plugins")
	if i < 0 {
		i = len(root.Content)
		root.Content = append(root.Content, &yaml.Node{Kind: yaml.ScalarNode, Value: "plugins"}, &yaml.Node{Kind: yaml.MappingNode})
	}
	if root.Content[i+1].Kind != yaml.MappingNode {
		root.Content[i+1] = &yaml.Node{Kind: yaml.MappingNode}
	}
	if err := edit(root.Content[i+1]); err != nil {
		return err
	}
	if len(root.Content[i+1].Content) == 0 {
		root.Content = append(root.Content[:i], root.Content[i+2:]...)
	}
	var out bytes.Buffer
	if len(root.Content) > 0 {
		e := yaml.NewEncoder(&out)
		e.SetIndent(2)
		if err := errors.Join(e.Encode(&doc), e.Close()); err != nil {
			return fmt.Errorf("write %s: %w", path, err)
		}
	}
	if err := (&Config{}).parse(path, out.Bytes()); err != nil {
		return err
	}
	if err := replace(path, out.Bytes(), mode); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// replace puts a whole new file in the place of the old one, through a symbolic link too.
func replace(path string, data []byte, mode fs.FileMode) error {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, ".config-*.yaml")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
