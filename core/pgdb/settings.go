package pgdb

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Settings are libpq connection settings by keyword. A keyword that is there with an empty value is not the same as one
// that is absent: like libpq, only an absent one is looked for in the environment.
//
// However they are printed, secrets read ***.
type Settings map[string]string

// FromArgs makes settings from the args of homeserver.yaml, which Synapse hands to psycopg2.connect: libpq's keywords,
// psycopg2's own database (for dbname) and dsn (which the other arguments override), and cp_* for Twisted's connection
// pool, which is dropped. Values are what YAML makes of them, and become strings as in Python.
func FromArgs(args map[string]any) (Settings, error) {
	s := Settings{}
	if dsn, ok := args["dsn"].(string); ok {
		parsed, err := Parse(dsn)
		if err != nil {
			return nil, fmt.Errorf("dsn: %w", err)
		}
		s = parsed
	} else if args["dsn"] != nil {
		return nil, errors.New("dsn: not a string")
	}
	if args["database"] != nil && args["dbname"] != nil {
		return nil, errors.New("database and dbname are both there; psycopg2 takes only one of them")
	}
	for _, name := range slices.Sorted(maps.Keys(args)) {
		value := args[name]
		if name == "dsn" || strings.HasPrefix(name, "cp_") || value == nil { // psycopg2 drops None
			continue
		}
		text, err := pythonString(value)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		if name == "database" {
			name = "dbname"
		}
		if _, ok := keywords[name]; !ok {
			return nil, fmt.Errorf("%q is not a connection setting of libpq", name)
		}
		s[name] = text
	}
	return s, nil
}

// pythonString is str(v), which is what psycopg2 puts into the connection string.
func pythonString(v any) (string, error) {
	switch v := v.(type) {
	case string:
		return v, nil
	case bool:
		if v {
			return "True", nil
		}
		return "False", nil
	case int, int64, uint64:
		return fmt.Sprint(v), nil
	case float64:
		text := strconv.FormatFloat(v, 'g', -1, 64)
		if !strings.ContainsAny(text, ".einf") {
			text += ".0"
		}
		return text, nil
	}
	kind := "this"
	switch v.(type) {
	case []any:
		kind = "a list"
	case map[string]any, map[any]any:
		kind = "a mapping"
	}
	return "", fmt.Errorf("%s cannot be a connection setting", kind)
}

// Ignored are the settings that the doctor does not act on, each with the reason.
func (s Settings) Ignored() map[string]string {
	ignored := map[string]string{}
	for name := range s {
		if reason := keywords[name].ignored; reason != "" {
			ignored[name] = reason
		}
	}
	return ignored
}

// HasSecret reports whether a setting that is never printed has a value.
func (s Settings) HasSecret() bool {
	for name, value := range s {
		if keywords[name].secret && value != "" {
			return true
		}
	}
	return false
}

const redacted = "***"

// String lists the settings as a connection string without secrets.
func (s Settings) String() string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(s)) {
		value := s[name]
		if _, known := keywords[name]; !known || keywords[name].secret {
			value = redacted
		}
		parts = append(parts, name+"="+quote(value))
	}
	return strings.Join(parts, " ")
}

// quote makes v a value in a connection string.
func quote(v string) string {
	if v != "" && !strings.ContainsAny(v, " \t\n\r\v\f'\\") {
		return v
	}
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(v) + "'"
}

// Format prints [Settings.String] whatever the verb: %v and %#v of a map would show the password.
func (s Settings) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.String()) }

// GoString is [Settings.String].
func (s Settings) GoString() string { return s.String() }

// LogValue is [Settings.String].
func (s Settings) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText is [Settings.String]: encoders write no secret. Settings travel to a plugin as a plain map.
func (s Settings) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// MarshalYAML is [Settings.String].
func (s Settings) MarshalYAML() (any, error) { return s.String(), nil }
