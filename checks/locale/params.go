package locale

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// params are what a plan tells its operations. They are printed and kept with it.
type params struct {
	Database string // label
	Key      string // names this plan in the ledger
	Schema   string // that Synapse's tables are in
	// Edit: the catalog is edited. Otherwise the locale stays what the catalog says it is.
	Edit bool
	// Shut: the database is shut meanwhile.
	Shut bool
	// Vectors: search vectors are made anew, because CTYPE changes, or has changed.
	Vectors bool
	// All: every index that depends on a locale; otherwise those in Indexes.
	All     bool
	Indexes []string // as they stand in a statement
	// Was is the row of pg_database as it was.
	Was localeRow
	// Collations are the named collations whose version changes, with the recorded one: "pg_catalog"."de_DE" → 2.28.
	Collations map[string]string
}

// localeRow is what pg_database says of how text is compared. Columns that the server's version does not have are nil.
type localeRow struct {
	Collate  string  `json:"datcollate"`
	Ctype    string  `json:"datctype"`
	Provider *string `json:"datlocprovider,omitempty"` // since PostgreSQL 15
	ICU      *string `json:"daticulocale,omitempty"`   // 15 and 16
	Locale   *string `json:"datlocale,omitempty"`      // since 17
	Rules    *string `json:"daticurules,omitempty"`    // since 16
	Version  *string `json:"datcollversion,omitempty"` // since 15
}

// inC is the row of a database in C by libc, on the same server.
func (r localeRow) inC() localeRow {
	c := localeRow{Collate: "C", Ctype: "C", Version: r.Version}
	if r.Provider != nil {
		libc := "c"
		c.Provider = &libc
	}
	return c
}

// same compares what a session's locale is made from: all but the version.
func (r localeRow) same(o localeRow) bool {
	eq := func(a, b *string) bool { return a == b || a != nil && b != nil && *a == *b }
	return r.Collate == o.Collate && r.Ctype == o.Ctype && eq(r.Provider, o.Provider) && eq(r.ICU, o.ICU) && eq(r.Locale, o.Locale) && eq(r.Rules, o.Rules)
}

// names reports whether the plan names the index, as it stands in a statement.
func (p params) names(index string) bool { return slices.Contains(p.Indexes, index) }

func (p params) texts() (map[string]string, error) {
	was, err := json.Marshal(p.Was)
	if err != nil {
		return nil, err
	}
	collations, err := json.Marshal(p.Collations)
	if err != nil {
		return nil, err
	}
	return map[string]string{
		"database": p.Database, "key": p.Key, "schema": p.Schema, "edit": fmt.Sprint(p.Edit), "shut": fmt.Sprint(p.Shut), "vectors": fmt.Sprint(p.Vectors), "all": fmt.Sprint(p.All),
		"indexes": strings.Join(p.Indexes, "\n"), "was": string(was), "collations": string(collations),
	}, nil
}

func readParams(texts map[string]string) (params, error) {
	p := params{
		Database: texts["database"], Key: texts["key"], Schema: texts["schema"], Edit: texts["edit"] == "true", Shut: texts["shut"] == "true",
		Vectors: texts["vectors"] == "true", All: texts["all"] == "true",
	}
	if texts["indexes"] != "" {
		p.Indexes = strings.Split(texts["indexes"], "\n")
	}
	if err := json.Unmarshal([]byte(texts["was"]), &p.Was); err != nil {
		return p, fmt.Errorf("the plan does not say what the locale was: %w", err)
	}
	if err := json.Unmarshal([]byte(texts["collations"]), &p.Collations); err != nil {
		return p, fmt.Errorf("the plan does not say what the versions of collations were: %w", err)
	}
	if p.Key == "" {
		return p, fmt.Errorf("the plan has no key")
	}
	return p, nil
}
