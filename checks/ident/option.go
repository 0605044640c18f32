package ident

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// buildMethods are the authentication methods that a server may have been built without.
var buildMethods = []string{"gss", "sspi", "pam", "bsd", "ldap", "oauth"}

var methods = append([]string{"trust", "reject", "md5", "password", "scram-sha-256", "ident", "peer", "cert", "radius"}, buildMethods...)

// setMethod takes the authentication method.
func (r *record) setMethod(method string, major int) (fault string) {
	if !slices.Contains(methods, method) || method == "oauth" && major < 18 {
		return fmt.Sprintf("%q is no authentication method", method)
	}
	switch {
	case r.Type == "local" && method == "ident":
		method = "peer" // ident asks a daemon at the client's address, and a socket has none
	case r.Type == "local" && method == "gss":
		return "gss does not work through a socket"
	case r.Type != "local" && method == "peer":
		return "peer works through a socket only"
	case r.Type != "hostssl" && method == "cert":
		return "cert works in hostssl records only"
	}
	if r.Uncertain == "" && slices.Contains(buildMethods, method) {
		r.Uncertain = fmt.Sprintf("only the server knows whether it was built with %s", method)
	}
	r.Method = method
	return ""
}

// optionMethods are the methods that an option belongs to; those of clientcert and clientname go by the connection type.
var optionMethods = map[string][]string{
	"map":                    {"ident", "peer", "gss", "sspi", "cert", "oauth"},
	"pamservice":             {"pam"},
	"pam_use_hostname":       {"pam"},
	"ldapurl":                {"ldap"},
	"ldaptls":                {"ldap"},
	"ldapscheme":             {"ldap"},
	"ldapserver":             {"ldap"},
	"ldapport":               {"ldap"},
	"ldapbinddn":             {"ldap"},
	"ldapbindpasswd":         {"ldap"},
	"ldapsearchattribute":    {"ldap"},
	"ldapsearchfilter":       {"ldap"},
	"ldapbasedn":             {"ldap"},
	"ldapprefix":             {"ldap"},
	"ldapsuffix":             {"ldap"},
	"krb_realm":              {"gss", "sspi"},
	"include_realm":          {"gss", "sspi"},
	"compat_realm":           {"sspi"},
	"upn_username":           {"sspi"},
	"radiusservers":          {"radius"},
	"radiusports":            {"radius"},
	"radiussecrets":          {"radius"},
	"radiusidentifiers":      {"radius"},
	"issuer":                 {"oauth"},
	"scope":                  {"oauth"},
	"validator":              {"oauth"},
	"delegate_ident_mapping": {"oauth"},
}

// setOptions takes what follows the method. A fault never quotes a value: it may be a password, or the rest of one.
func (r *record) setOptions(tokens []token, major int) (fault string) {
	r.options = map[string]string{}
	for _, t := range tokens {
		name, value, ok := strings.Cut(t.Text, "=")
		if !ok {
			return "an option is not of the form name=value"
		}
		if fault := r.checkOption(name, value, major); fault != "" {
			return fault
		}
		r.options[name] = value
		if slices.Contains(secretOptions, name) {
			value = "…"
		}
		r.Options = append(r.Options, name+"="+value)
	}
	switch r.Method {
	case "ldap":
		return r.checkLDAP()
	case "radius":
		return r.checkRADIUS()
	case "oauth":
		return r.checkOAuth()
	}
	return ""
}

func (r *record) checkOption(name, value string, major int) (fault string) {
	switch name {
	case "clientcert":
		switch {
		case r.Type != "hostssl":
			return "clientcert works in hostssl records only"
		case value == "verify-full", value == "verify-ca" && r.Method != "cert":
			return ""
		}
		return "clientcert has not a value that is possible here"
	case "clientname":
		switch {
		case r.Type != "hostssl":
			return "clientname works in hostssl records only"
		case value == "CN", value == "DN":
			return ""
		}
		return "clientname is neither CN nor DN"
	}
	belongs, known := optionMethods[name]
	if !known || major < 18 && slices.Equal(belongs, []string{"oauth"}) {
		return fmt.Sprintf("there is no option %q", name)
	}
	if !slices.Contains(belongs, r.Method) {
		return fmt.Sprintf("%s has no option %s", r.Method, name)
	}
	switch name {
	case "ldapport":
		if !cNonzero(value) {
			return "ldapport is no port number"
		}
	case "radiusservers", "radiusports", "radiussecrets", "radiusidentifiers":
		list, ok := splitList(value)
		if !ok {
			return name + " is no list"
		}
		for _, item := range list {
			if name == "radiusports" && !cNonzero(item) {
				return "radiusports has a value that is no port number"
			}
			if _, _, numeric := numericHost(item); name == "radiusservers" && !numeric {
				r.Uncertain = fmt.Sprintf("only the server knows whether the name %q can be resolved", item)
			}
		}
	}
	return ""
}

func (r *record) checkLDAP() (fault string) {
	has := func(names ...string) bool {
		return slices.ContainsFunc(names, func(name string) bool { _, ok := r.options[name]; return ok })
	}
	switch {
	case has("ldapurl"):
		return "" // Uncertain already; the server's own LDAP library reads it
	case has("ldapprefix", "ldapsuffix"):
		if has("ldapbasedn", "ldapbinddn", "ldapbindpasswd", "ldapsearchattribute", "ldapsearchfilter") {
			return "ldap cannot both bind directly and search"
		}
	case !has("ldapbasedn"):
		return "ldap needs ldapbasedn, ldapprefix or ldapsuffix"
	}
	if has("ldapsearchattribute") && has("ldapsearchfilter") {
		return "ldap cannot use both ldapsearchattribute and ldapsearchfilter"
	}
	return ""
}

func (r *record) checkRADIUS() (fault string) {
	count := func(name string) int {
		list, _ := splitList(r.options[name]) // it has been split before
		return len(list)
	}
	servers, secrets := count("radiusservers"), count("radiussecrets")
	if servers == 0 || secrets == 0 {
		return "radius needs radiusservers and radiussecrets"
	}
	for _, name := range []string{"radiussecrets", "radiusports", "radiusidentifiers"} {
		if n := count(name); n > 1 && n != servers {
			return fmt.Sprintf("%s has %d values for %d servers", name, n, servers)
		}
	}
	return ""
}

func (r *record) checkOAuth() (fault string) {
	for _, name := range []string{"scope", "issuer"} {
		if _, ok := r.options[name]; !ok {
			return "oauth needs scope and issuer"
		}
	}
	if _, mapped := r.options["map"]; mapped && r.options["delegate_ident_mapping"] == "1" {
		return "oauth cannot use both map and delegate_ident_mapping"
	}
	return ""
}

// cNonzero is whether C's atoi makes anything but nothing of the text.
func cNonzero(text string) bool {
	text = strings.TrimLeft(text, " \t\n\v\f\r")
	digits := strings.TrimPrefix(strings.TrimPrefix(text, "+"), "-")
	end := len(digits) - len(strings.TrimLeft(digits, "0123456789"))
	n, err := strconv.ParseUint(digits[:end], 10, 64)
	return err == nil && uint32(n) != 0
}

const listBlanks = " \t\n\r\f"

// splitList splits a list in an option's value at its commas, as the server does with lists in its settings.
func splitList(text string) (items []string, ok bool) {
	if text = strings.TrimLeft(text, listBlanks); text == "" {
		return nil, true
	}
	for {
		var item string
		if quoted, is := strings.CutPrefix(text, `"`); is {
			if item, text, ok = cutQuoted(quoted); !ok {
				return nil, false
			}
		} else {
			end := strings.IndexAny(text, ","+listBlanks)
			if end < 0 {
				end = len(text)
			}
			if item, text = text[:end], text[end:]; item == "" {
				return nil, false
			}
		}
		items = append(items, item)
		if text = strings.TrimLeft(text, listBlanks); text == "" {
			return items, true
		}
		if text, ok = strings.CutPrefix(text, ","); !ok {
			return nil, false
		}
		text = strings.TrimLeft(text, listBlanks)
	}
}

func cutQuoted(text string) (item, rest string, closed bool) {
	var b strings.Builder
	for {
		piece, after, ok := strings.Cut(text, `"`)
		if !ok {
			return "", "", false
		}
		b.WriteString(piece)
		if !strings.HasPrefix(after, `"`) {
			return b.String(), after, true
		}
		b.WriteByte('"')
		text = after[1:]
	}
}
