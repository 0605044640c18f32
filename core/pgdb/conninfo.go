package pgdb

import (
	"errors"
	"fmt"
	"strings"
)

// Parse reads a connection string as libpq does: a URL (postgresql://…) or keywords and values.
//
// Its errors never quote the string: in a malformed one, any part may be a piece of the password.
func Parse(conninfo string) (Settings, error) {
	if strings.IndexByte(conninfo, 0) >= 0 {
		return nil, errors.New("the connection string contains a NUL byte")
	}
	for _, scheme := range []string{"postgresql://", "postgres://"} {
		if rest, ok := strings.CutPrefix(conninfo, scheme); ok {
			return parseURL(rest)
		}
	}
	return parseKeywords(conninfo)
}

const spaces = " \t\n\r\v\f"

// parseKeywords follows conninfo_parse in libpq's fe-connect.c.
func parseKeywords(conninfo string) (Settings, error) {
	s := Settings{}
	rest := strings.TrimLeft(conninfo, spaces)
	for rest != "" {
		at := len(conninfo) - len(rest) + 1
		end := strings.IndexAny(rest, "="+spaces)
		if end < 0 {
			end = len(rest)
		}
		name := rest[:end]
		rest = strings.TrimLeft(rest[end:], spaces)
		if !strings.HasPrefix(rest, "=") {
			return nil, fmt.Errorf("the keyword at character %d of the connection string has no = after it", at)
		}
		value, tail, err := parseValue(strings.TrimLeft(rest[1:], spaces))
		if err != nil {
			return nil, err
		}
		rest = strings.TrimLeft(tail, spaces)
		if _, ok := keywords[name]; !ok {
			return nil, fmt.Errorf("the keyword at character %d of the connection string is not one of libpq's", at)
		}
		s[name] = value
	}
	return s, nil
}

// parseValue reads one value, quoted or up to a space. A backslash takes the next byte as it is.
func parseValue(text string) (value, rest string, err error) {
	quoted := strings.HasPrefix(text, "'")
	if quoted {
		text = text[1:]
	}
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		c := text[i]
		switch {
		case quoted && c == '\'':
			return b.String(), text[i+1:], nil
		case !quoted && strings.IndexByte(spaces, c) >= 0:
			return b.String(), text[i:], nil
		case c == '\\':
			if i++; i < len(text) {
				b.WriteByte(text[i])
			}
		default:
			b.WriteByte(c)
		}
	}
	if quoted {
		return "", "", errors.New("a quoted value in the connection string does not end")
	}
	return b.String(), "", nil
}

// parseURL follows conninfo_uri_parse_options in libpq's fe-connect.c. net/url does not: it knows neither several hosts
// nor percent-encoded socket directories, and its errors quote the URL.
func parseURL(rest string) (Settings, error) {
	s := Settings{}
	store := func(name, encoded string) error {
		if encoded == "" {
			return nil
		}
		value, err := percentDecode(encoded)
		s[name] = value
		return err
	}
	if i := strings.IndexAny(rest, "@/"); i >= 0 && rest[i] == '@' {
		user, password, _ := strings.Cut(rest[:i], ":")
		if err := errors.Join(store("user", user), store("password", password)); err != nil {
			return nil, err
		}
		rest = rest[i+1:]
	}
	hosts, ports, rest, err := parseURLHosts(rest)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(store("host", hosts), store("port", ports)); err != nil {
		return nil, err
	}
	path, query, hasQuery := strings.Cut(rest, "?")
	if err := store("dbname", strings.TrimPrefix(path, "/")); err != nil {
		return nil, err
	}
	if hasQuery {
		if err := s.addQuery(query); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// parseURLHosts reads host:port,host:port… up to the path or the query.
func parseURLHosts(text string) (hosts, ports, rest string, err error) {
	for {
		host := ""
		if strings.HasPrefix(text, "[") {
			end := strings.IndexByte(text, ']')
			if end <= 1 {
				return "", "", "", errors.New("an IPv6 address in the URL does not end, or is empty")
			}
			host, text = text[1:end], text[end+1:]
			if text != "" && strings.IndexByte(":/?,", text[0]) < 0 {
				return "", "", "", errors.New("an IPv6 address in the URL is followed by something other than a port or a path")
			}
		} else {
			host, text = cutAny(text, ":/?,")
		}
		port := ""
		if strings.HasPrefix(text, ":") {
			port, text = cutAny(text[1:], "/?,")
		}
		hosts, ports = hosts+host, ports+port
		if !strings.HasPrefix(text, ",") {
			return hosts, ports, text, nil
		}
		hosts, ports, text = hosts+",", ports+",", text[1:]
	}
}

// cutAny splits text before the first byte that is one of chars.
func cutAny(text, chars string) (before, rest string) {
	if i := strings.IndexAny(text, chars); i >= 0 {
		return text[:i], text[i:]
	}
	return text, ""
}

func (s Settings) addQuery(query string) error {
	if query == "" {
		return nil
	}
	for n, pair := range strings.Split(query, "&") {
		encodedName, encoded, ok := strings.Cut(pair, "=")
		if !ok || strings.Contains(encoded, "=") {
			return fmt.Errorf("parameter %d of the URL is not name=value", n+1)
		}
		name, err := percentDecode(encodedName)
		if err != nil {
			return err
		}
		value, err := percentDecode(encoded)
		if err != nil {
			return err
		}
		if name == "ssl" && value == "true" { // JDBC's spelling, which libpq takes
			name, value = "sslmode", "require"
		}
		if _, ok := keywords[name]; !ok {
			return fmt.Errorf("parameter %d of the URL is not one of libpq's keywords", n+1)
		}
		s[name] = value
	}
	return nil
}

func percentDecode(text string) (string, error) {
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		if text[i] != '%' {
			b.WriteByte(text[i])
			continue
		}
		if i+2 >= len(text) {
			return "", errors.New("a % in the URL is not followed by two hexadecimal digits")
		}
		high, low := unhex(text[i+1]), unhex(text[i+2])
		switch {
		case high < 0 || low < 0:
			return "", errors.New("a % in the URL is not followed by two hexadecimal digits")
		case high == 0 && low == 0:
			return "", errors.New("the URL contains %00")
		}
		b.WriteByte(byte(high<<4 | low))
		i += 2
	}
	return b.String(), nil
}

// unhex is the value of a hexadecimal digit, or -1.
func unhex(c byte) int {
	if c >= 'A' && c <= 'F' {
		c += 'a' - 'A'
	}
	return strings.IndexByte("0123456789abcdef", c)
}
