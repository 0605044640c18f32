package database

import (
	"slices"
	"strings"
)

// defaultPath is search_path where nothing sets it.
var defaultPath = []string{"$user", "public"}

// splitPath takes a search_path apart as the server does (SplitIdentifierString): names between commas, in lower case
// unless they are quoted. One that is no list of names leads nowhere.
func splitPath(value string) []string {
	var names []string
	rest := strings.TrimLeft(value, pathSpace)
	for rest != "" {
		var name string
		if rest[0] == '"' {
			var b strings.Builder
			i := 1
			for ; i < len(rest); i++ {
				if rest[i] != '"' {
					b.WriteByte(rest[i])
				} else if i+1 < len(rest) && rest[i+1] == '"' {
					b.WriteByte('"')
					i++
				} else {
					break
				}
			}
			if i >= len(rest) {
				return nil
			}
			name, rest = b.String(), rest[i+1:]
		} else {
			end := strings.IndexAny(rest, pathSpace+",")
			if end < 0 {
				end = len(rest)
			}
			name, rest = strings.ToLower(rest[:end]), rest[end:]
		}
		names = append(names, name)
		rest = strings.TrimLeft(rest, pathSpace)
		if rest == "" {
			break
		}
		if rest[0] != ',' {
			return nil
		}
		rest = strings.TrimLeft(rest[1:], pathSpace)
	}
	return names
}

const pathSpace = " \t\n\r\f\v"

// alongPath are the schemas that are there, in the order of the path. usable leaves out those in which the role may not
// look anything up: the server passes over them (recomputeNamespacePath), and makes tables in the first of the others.
func (e *entry) alongPath(path []string, usable bool) []*schema {
	var found []*schema
	for _, name := range path {
		if name == "$user" {
			name = e.acting.Name
		}
		i := slices.IndexFunc(e.inside.schemas, func(s schema) bool { return s.Name == name })
		if i >= 0 && (e.inside.schemas[i].Usage || !usable) {
			found = append(found, &e.inside.schemas[i])
		}
	}
	return found
}

// makesIn is the schema in which tables are made. Nil when there is none.
func (e *entry) makesIn(path []string) *schema {
	if along := e.alongPath(path, true); len(along) > 0 {
		return along[0]
	}
	return nil
}

// sees reports whether Synapse's tables are found along the path.
func (e *entry) sees(path []string) bool {
	return slices.ContainsFunc(e.alongPath(path, true), func(s *schema) bool { return s.Synapse })
}

// isSound reports whether a path leads to Synapse's tables, or to public where there are none yet.
func (e *entry) isSound(path []string) bool {
	in := e.makesIn(path)
	switch {
	case in == nil:
		return false
	case e.inside.hasSynapse():
		return in.Synapse
	}
	return in.Name == public
}

const public = "public"

// astray are the settings of search_path that count and do not lead where they should, the one that wins first. After a
// sound one none counts.
func (e *entry) astray() []setting {
	var wrong []setting
	for _, s := range e.settings {
		if s.Name != "search_path" {
			continue
		}
		if e.isSound(splitPath(s.Value)) {
			break
		}
		wrong = append(wrong, s)
	}
	return wrong
}
