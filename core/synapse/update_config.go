package synapse

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// document is the configuration for update_synapse_database. Of the homeserver's own it has what the schema depends on: the
// name, and the modules of before 1.46 that bring tables of their own. All else would only be in the way: Synapse reads every
// key, module and folder that a configuration names before it looks at the database, and may be let at none of them. What it
// insists on is made up, and signs nothing: there is nobody in the database yet.
func (u Update) document() ([]byte, error) {
	args := map[any]any{"cp_min": int64(1), "cp_max": int64(2)}
	for name, value := range u.Args {
		args[name] = value
	}
	seed := make([]byte, 32)
	_, _ = rand.Read(seed) // never fails
	d := map[any]any{
		"server_name":                 u.Config.ServerName,
		"database":                    map[any]any{"name": Psycopg2, "args": args, "allow_unsafe_locale": u.AllowUnsafeLocale},
		"report_stats":                false,
		"listeners":                   []any{},
		"signing_key":                 "ed25519 a_update " + base64.RawStdEncoding.EncodeToString(seed),
		"macaroon_secret_key":         rand.Text(),
		"form_secret":                 rand.Text(),
		"trusted_key_servers":         []any{},
		"suppress_key_server_warning": true,
		"media_store_path":            "/tmp", // is made where it is not there
	}
	if modules := u.Config.section("password_providers"); truthy(modules) {
		d["password_providers"] = modules
	}
	var b strings.Builder
	if err := writeYAML(&b, d); err != nil {
		return nil, err
	}
	b.WriteByte('\n')
	return []byte(b.String()), nil
}

// section is the value of a top-level key of the merged configuration; nil when there is none.
func (c *Config) section(name string) any {
	for _, d := range slices.Backward(c.documents) {
		if top, ok := d.value.(map[any]any); ok {
			if v, ok := top[name]; ok {
				return v
			}
		}
	}
	return nil
}

// mostYAML bounds what is written, in bytes: aliases of aliases could multiply.
const mostYAML = 1 << 20

// writeYAML writes a value so that every reader of YAML 1.1 and 1.2 reads the same: on one line, texts in quotes.
func writeYAML(b *strings.Builder, v any) error {
	if b.Len() > mostYAML {
		return fmt.Errorf("the configuration's modules have more than %d MiB of settings", mostYAML>>20)
	}
	switch v := v.(type) {
	case nil:
		b.WriteString("null")
	case bool:
		b.WriteString(strconv.FormatBool(v))
	case int64:
		b.WriteString(strconv.FormatInt(v, 10))
	case float64:
		b.WriteString(yamlFloat(v))
	case string:
		// Go's escapes are YAML's, too.
		b.WriteString(strconv.QuoteToASCII(v))
	case []any:
		b.WriteByte('[')
		for i, item := range v {
			if i > 0 {
				b.WriteString(", ")
			}
			if err := writeYAML(b, item); err != nil {
				return err
			}
		}
		b.WriteByte(']')
	case map[any]any:
		keys := make([]string, 0, len(v))
		byKey := make(map[string]any, len(v))
		for k, item := range v {
			var key strings.Builder
			if err := writeYAML(&key, k); err != nil {
				return err
			}
			keys, byKey[key.String()] = append(keys, key.String()), item
		}
		slices.Sort(keys)
		b.WriteByte('{')
		for i, key := range keys {
			if i > 0 {
				b.WriteString(", ")
			}
			b.WriteString(key + ": ")
			if err := writeYAML(b, byKey[key]); err != nil {
				return err
			}
		}
		b.WriteByte('}')
	default:
		return fmt.Errorf("a value of type %T is in the configuration", v)
	}
	return nil
}

// yamlFloat has a point, without which YAML 1.1 sees a text, and a sign in its exponent.
func yamlFloat(f float64) string {
	switch {
	case math.IsNaN(f):
		return ".nan"
	case math.IsInf(f, 1):
		return ".inf"
	case math.IsInf(f, -1):
		return "-.inf"
	}
	text := strconv.FormatFloat(f, 'e', -1, 64)
	if mantissa, exponent, _ := strings.Cut(text, "e"); !strings.Contains(mantissa, ".") {
		text = mantissa + ".0e" + exponent
	}
	return text
}
