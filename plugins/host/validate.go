package host

import (
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"strings"
	"unicode/utf8"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
)

// Bounds of a description.
const (
	maxID     = 64
	maxTitle  = 60 // characters, as doctor.Check says
	maxWhy    = 1000
	maxChecks = 200
	maxCodes  = 200 // for each check, and as many thresholds
	maxNames  = 200 // of tables, of files, of databases and of operations, for each check
	maxName   = 1000
)

// ValidateDescription says everything that is wrong with what a plugin says of itself: ids that are not unique or not
// well formed, codes that belong to another check, missing words, words that would disturb a terminal.
func ValidateDescription(d doctor.Description) error {
	var wrong []error
	add := func(format string, args ...any) { wrong = append(wrong, fmt.Errorf(format, args...)) }
	words := func(where, what, text string, most int) {
		switch {
		case strings.TrimSpace(text) == "":
			add("%s has no %s", where, what)
		case utf8.RuneCountInString(text) > most:
			add("%s: its %s has more than %d characters", where, what, most)
		case doctor.Clean(text) != text:
			add("%s: its %s %q has control characters", where, what, clip(text))
		}
	}
	if !validID(d.Name) {
		add("its name %q is not lower-case words joined by hyphens", clip(d.Name))
	}
	words("it", "version", d.Version, maxID)
	if len(d.Checks) > maxChecks {
		add("it has %d checks; at most %d are possible", len(d.Checks), maxChecks)
		return errors.Join(wrong...)
	}
	checks, codes := map[string]bool{}, map[string]bool{}
	for _, c := range d.Checks {
		if !validID(c.ID) {
			add("the id %q of a check is not lower-case words joined by hyphens", clip(c.ID))
			continue
		}
		where := fmt.Sprintf("check %q", c.ID)
		if checks[c.ID] {
			add("%s is there twice", where)
		}
		checks[c.ID] = true
		words(where, "title", c.Title, maxTitle)
		words(where, "why", c.Why, maxWhy)
		if c.Needs&^doctor.AllNeeds != 0 {
			add("%s needs what this version of synapse-doctor does not know: upgrade synapse-doctor", where)
		}
		if len(c.Codes) > maxCodes {
			add("%s has %d codes; at most %d are possible", where, len(c.Codes), maxCodes)
			continue
		}
		for _, code := range c.Codes {
			check, fault, _ := strings.Cut(code.ID, "/")
			switch {
			case !validID(check) || !validID(fault):
				add("%s: its code %q is not check/kebab-fault", where, clip(code.ID))
				continue
			case check != c.ID:
				add("%s: its code %q is another check's", where, code.ID)
			case codes[code.ID]:
				add("%s: its code %q is there twice", where, code.ID)
			}
			codes[code.ID] = true
			words(fmt.Sprintf("code %q", code.ID), "title", code.Title, maxWhy)
			if code.Severity < doctor.Info || code.Severity > doctor.Error {
				add("code %q has no severity", code.ID)
			}
		}
		validateThresholds(c, add)
		for _, of := range []struct {
			what  string
			names []string
		}{{"table", c.Changes.Tables}, {"file", c.Changes.Files}, {"database", c.Changes.Databases}} {
			if len(of.names) > maxNames {
				add("%s declares that it changes %d %ss; at most %d are possible", where, len(of.names), of.what, maxNames)
				continue
			}
			for _, name := range of.names {
				words(where, "name of a "+of.what+" that it changes", name, maxName)
				if of.what == "file" && !filepath.IsAbs(name) {
					add("%s: the file %q that it changes is not an absolute path", where, clip(name))
				}
			}
		}
		if len(c.Operations) > maxNames {
			add("%s has %d operations; at most %d are possible", where, len(c.Operations), maxNames)
			continue
		}
		operations := map[string]bool{}
		for _, name := range c.Operations {
			if !validID(name) || operations[name] {
				add("%s: its operation %q is there twice or not lower-case words joined by hyphens", where, clip(name))
			}
			operations[name] = true
		}
	}
	return errors.Join(wrong...)
}

func validateThresholds(c doctor.CheckInfo, add func(format string, args ...any)) {
	if len(c.Thresholds) > maxCodes {
		add("check %q has %d thresholds; at most %d are possible", c.ID, len(c.Thresholds), maxCodes)
		return
	}
	seen := map[string]bool{}
	for _, t := range c.Thresholds {
		check, name, _ := strings.Cut(t.ID, "/")
		switch {
		case check != c.ID || !validID(name) || seen[t.ID]:
			add("check %q: its threshold %q is there twice or not %s/kebab-name", c.ID, clip(t.ID), c.ID)
		case strings.TrimSpace(t.Title) == "" || doctor.Clean(t.Title+t.Unit) != t.Title+t.Unit:
			add("check %q: its threshold %q has no title, or control characters", c.ID, t.ID)
		case t.Allows(t.Default) != nil || math.IsInf(t.Min, 0) || math.IsInf(t.Max, 0):
			add("check %q: its threshold %q has no finite range with its default in it", c.ID, t.ID)
		}
		seen[t.ID] = true
	}
}

// validID reports whether s is lower-case words of letters and digits, joined by single hyphens.
func validID(s string) bool {
	if s == "" || len(s) > maxID {
		return false
	}
	for word := range strings.SplitSeq(s, "-") {
		if word == "" {
			return false
		}
		for _, r := range word {
			if (r < 'a' || r > 'z') && (r < '0' || r > '9') {
				return false
			}
		}
	}
	return true
}

// clip shortens a text to what a sentence can quote.
func clip(s string) string {
	if runes := []rune(s); len(runes) > maxID {
		return string(runes[:maxID]) + "…"
	}
	return s
}
