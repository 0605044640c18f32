// Package docs is the documentation that administrators read, in the repository and through synapse-doctor explain. It
// imports nothing of this repository.
//
// checks/<check>.md is a page for each check. Each of its sections headed by a finding code explains that finding:
//
//	text, ok := docs.Code("sequence/behind-table")
package docs

import (
	"embed"
	"path"
	"slices"
	"strings"
)

//go:embed *.md checks/*.md
var files embed.FS

// Page returns the page name, without its .md: operations.
func Page(name string) (string, bool) { return read(name + ".md") }

// Check returns the page of a check.
func Check(id string) (string, bool) { return read(path.Join("checks", id+".md")) }

// Code returns what the page of its check says of a finding code.
func Code(code string) (string, bool) {
	id, _, _ := strings.Cut(code, "/")
	page, ok := Check(id)
	if !ok {
		return "", false
	}
	text, ok := sections(page)[code]
	return text, ok
}

// Checks are the ids that have a page, sorted.
func Checks() []string {
	entries, err := files.ReadDir("checks")
	if err != nil {
		panic(err) // embedded
	}
	var ids []string
	for _, e := range entries {
		ids = append(ids, strings.TrimSuffix(e.Name(), ".md"))
	}
	return ids
}

// Codes are the finding codes that the page of a check explains, sorted.
func Codes(check string) []string {
	page, _ := Check(check)
	var codes []string
	for heading := range sections(page) {
		if strings.Contains(heading, "/") {
			codes = append(codes, heading)
		}
	}
	slices.Sort(codes)
	return codes
}

func read(name string) (string, bool) {
	text, err := files.ReadFile(name)
	return string(text), err == nil
}

// sections are the parts of a page that a second-level heading begins, by heading.
func sections(page string) map[string]string {
	found := map[string]string{}
	heading, fenced := "", false
	for line := range strings.Lines(page) {
		if strings.HasPrefix(line, "```") {
			fenced = !fenced
		}
		if h, ok := strings.CutPrefix(line, "## "); ok && !fenced {
			heading = strings.TrimSpace(h)
		}
		if heading != "" {
			found[heading] += line
		}
	}
	return found
}
