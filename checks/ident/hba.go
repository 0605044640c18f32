package ident

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// files is where the server's configuration files are read from.
type files struct {
	Read func(path string) ([]byte, error)
	// List returns the names in a directory, without those of directories in it.
	List func(dir string) ([]string, error)
}

// rules is a pg_hba.conf with everything that it includes.
type rules struct {
	Path    string
	Major   int
	Records []record // in the order in which the server tries them, with those that it refuses
	Files   []string // every file that was read, the main one first
}

// record is one line that is more than a comment.
type record struct {
	File   string
	Line   int    // where it begins, from 1
	Offset int64  // of its first line's first byte in File
	Text   string // as it stands, continuation lines joined; without passwords

	Type      string // local, host, hostssl, hostnossl, hostgssenc, hostnogssenc
	Databases []token
	Users     []token
	Address   address
	Method    string   // as the server takes it: ident on local is peer
	Options   []string // name=value; without passwords

	// Fault is why the server refuses the whole file because of this line; empty when it does not.
	Fault string
	// Uncertain is why it may refuse it nevertheless: that depends on how the server was built, or on what only it knows.
	Uncertain string

	options map[string]string // the last of each name counts
}

// where is how findings name the record's place.
func (r record) where() string { return fmt.Sprintf("%s:%d", r.File, r.Line) }

// faulty lists the records that make a server refuse the file: it keeps the rules that it had loaded before, or does
// not start. A file without any record is refused as well.
func (r *rules) faulty() []*record {
	var list []*record
	for i := range r.Records {
		if r.Records[i].Fault != "" {
			list = append(list, &r.Records[i])
		}
	}
	return list
}

// parse reads a pg_hba.conf and everything that it includes as a server of this major version does. The error is only
// for the main file not being readable.
func parse(path string, major int, f files) (*rules, error) {
	content, err := f.Read(path)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	r := reader{major: major, files: f, read: []string{path}}
	parsed := &rules{Path: path, Major: major}
	for _, l := range r.lines(path, content, 0) {
		parsed.Records = append(parsed.Records, l.record(major))
	}
	parsed.Files = r.read
	return parsed, nil
}

const (
	deepest       = 10       // how deep files may be nested in PostgreSQL 16 and later
	beyondDeepest = 100      // stands for the limit before, of files that are open at a time (some 300): there reading ends
	mostIncluded  = 16 << 20 // bytes: files that include each other many times are read no further, deep or not
)

// reader reads a file with what it includes, one line's tokens at a time.
type reader struct {
	major    int
	files    files
	read     []string
	included int // bytes
	gaveUp   bool
}

// line is a logical line's tokens, by field.
type line struct {
	file   string
	number int
	offset int64
	text   string
	secret int // where in text an option begins that is a password; -1 for nowhere
	fields [][]token
	fault  string
}

// secretOptions are the options whose value is a password.
var secretOptions = []string{"ldapbindpasswd", "radiussecrets"}

func secretName(text string) (string, bool) {
	name, _, ok := strings.Cut(text, "=")
	return name, ok && slices.Contains(secretOptions, name)
}

// lines are those of a file that hold tokens, with the included files' in the place of the lines that include them.
func (r *reader) lines(path string, content []byte, depth int) []line {
	var all []line
	for _, logical := range logicalLines(content) {
		l := line{file: path, number: logical.number, offset: logical.offset, text: logical.text, secret: -1}
		r.split(&l, depth)
		if len(l.fields) == 0 && l.fault == "" {
			continue
		}
		if r.major >= 16 && l.fault == "" && len(l.fields) == 2 {
			included, is, fault := r.include(l, depth)
			all = append(all, included...)
			if is && fault == "" {
				continue
			}
			l.fault = fault
		}
		all = append(all, l)
	}
	return all
}

// split fills in a line's fields.
func (r *reader) split(l *line, depth int) {
	s := scanner{text: l.text}
	if r.major < 16 {
		s.limit = longestToken
	}
	for s.at < len(s.text) {
		var field []token
		for more := true; more; {
			t, start, comma, ok := s.next()
			if s.tooLong {
				l.fault = fmt.Sprintf("a token is longer than %d bytes", longestToken)
				// It may have been a password's option.
				l.secret = earlier(l.secret, start)
			}
			if !ok {
				break
			}
			if _, secret := secretName(t.Text); secret {
				l.secret = earlier(l.secret, start)
			}
			more = comma
			name, list := strings.CutPrefix(t.Text, "@")
			if t.Quoted || !list || name == "" {
				field = append(field, t)
				continue
			}
			if l.fault != "" {
				continue // only what there is to hide is still of interest
			}
			var tokens []token
			tokens, l.fault = r.list(l.file, name, depth+1)
			field = append(field, tokens...)
		}
		if len(field) > 0 {
			l.fields = append(l.fields, field)
		}
	}
}

func earlier(a, b int) int {
	if a < 0 || b < a {
		return b
	}
	return a
}

// list is the tokens of a file named with @.
func (r *reader) list(from, name string, depth int) ([]token, string) {
	path := beside(from, name)
	content, fault, _ := r.open(path, depth)
	if fault != "" {
		return nil, fault
	}
	var tokens []token
	for _, l := range r.lines(path, content, depth) {
		if l.fault != "" {
			return tokens, l.fault
		}
		for _, field := range l.fields {
			tokens = append(tokens, field...)
		}
	}
	return tokens, ""
}

// include returns the lines that an include record stands for, and whether it is one. The server looks only at the
// first token of each of its two fields, and does not mind quotes.
func (r *reader) include(l line, depth int) (lines []line, is bool, fault string) {
	name := l.fields[1][0].Text
	switch directive := l.fields[0][0].Text; directive {
	case "include", "include_if_exists":
		path := beside(l.file, name)
		content, fault, missing := r.open(path, depth+1)
		switch {
		case missing && directive == "include_if_exists":
			return nil, true, ""
		case fault != "":
			return nil, true, fault
		}
		return r.lines(path, content, depth+1), true, ""
	case "include_dir":
		lines, fault := r.includeDir(l.file, name, depth)
		return lines, true, fault
	}
	return nil, false, ""
}

func (r *reader) includeDir(from, name string, depth int) ([]line, string) {
	if strings.Trim(name, " \t\r\n") == "" {
		return nil, "the directory to include has no name"
	}
	dir := beside(from, name)
	names, err := r.files.List(dir)
	if err != nil {
		return nil, fmt.Sprintf("cannot list %s: %v", dir, err)
	}
	var paths []string
	for _, n := range names {
		if !strings.HasPrefix(n, ".") && strings.HasSuffix(n, ".conf") {
			paths = append(paths, filepath.Join(dir, n))
		}
	}
	slices.Sort(paths)
	var lines []line
	var faults []string
	for _, path := range paths {
		content, fault, _ := r.open(path, depth+1)
		if fault != "" {
			faults = append(faults, fault)
			continue
		}
		lines = append(lines, r.lines(path, content, depth+1)...)
	}
	return lines, strings.Join(faults, "; ")
}

// open reads an included file.
func (r *reader) open(path string, depth int) (content []byte, fault string, missing bool) {
	switch {
	case r.gaveUp:
		return nil, fmt.Sprintf("cannot include %s: files include each other without end", path), false
	case depth > beyondDeepest, r.included > mostIncluded:
		r.gaveUp = true
		return r.open(path, depth)
	case depth > deepest && r.major >= 16:
		return nil, fmt.Sprintf("cannot include %s: files are nested too deeply", path), false
	}
	content, err := r.files.Read(path)
	switch {
	case errors.Is(err, syscall.EISDIR):
		// The server can open a directory, and takes the failure to read it for the file's end.
		return nil, "", false
	case err != nil:
		return nil, fmt.Sprintf("cannot read %s: %v", path, err), errors.Is(err, fs.ErrNotExist)
	}
	r.included += len(content)
	if !slices.Contains(r.read, path) {
		r.read = append(r.read, path)
	}
	return content, "", false
}

// beside is the path of a file that another one names.
func beside(from, name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(filepath.Dir(from), name)
}

// show is the line's text without a password.
func (l line) show() string {
	if l.secret < 0 {
		return string(bytes.TrimSpace([]byte(l.text)))
	}
	return strings.TrimSpace(l.text[:l.secret]) + " …"
}

var connectionTypes = []string{"local", "host", "hostssl", "hostnossl", "hostgssenc", "hostnogssenc"}

// record makes a record of a line's tokens.
func (l line) record(major int) record {
	r := record{File: l.file, Line: l.number, Offset: l.offset, Text: l.show(), Fault: l.fault}
	if r.Fault == "" {
		r.Fault = r.fill(l.fields, major)
	}
	return r
}

// fill takes a record's fields in the server's order, and stops with a fault where the server does.
func (r *record) fill(fields [][]token, major int) (fault string) {
	next := func() []token {
		if len(fields) == 0 {
			return nil
		}
		field := fields[0]
		fields = fields[1:]
		return field
	}
	one := func(what string) (t token, fault string) {
		switch field := next(); len(field) {
		case 0:
			return token{}, "the line ends before the " + what
		case 1:
			return field[0], ""
		}
		return token{}, fmt.Sprintf("more than one %s", what)
	}

	t, fault := one("connection type")
	if fault != "" {
		return fault
	}
	if !slices.Contains(connectionTypes, t.Text) {
		return fmt.Sprintf("%q is no connection type", t.Text)
	}
	r.Type = t.Text
	if r.Databases = next(); r.Databases == nil {
		return "the line ends before the database"
	}
	if r.Users = next(); r.Users == nil {
		return "the line ends before the role"
	}
	for _, t := range slices.Concat(r.Databases, r.Users) {
		if p, ok := t.pattern(major); ok && !plainPattern(p) {
			r.Uncertain = fmt.Sprintf("only the server knows whether the regular expression %q is valid", p)
		}
	}
	if r.Type != "local" {
		if t, fault = one("address"); fault != "" {
			return fault
		}
		var needsMask bool
		if needsMask, fault = r.Address.read(t); fault != "" {
			return fault
		}
		if needsMask && r.Address.zone != "" && !isMask(fields) {
			// It is valid only where there is no such interface.
			r.Address, needsMask = address{Kind: hostName, Name: t.Text, zone: r.Address.zone}, false
		}
		if needsMask {
			if t, fault = one("netmask"); fault != "" {
				return fault
			}
			if fault = r.Address.setMask(t.Text); fault != "" {
				return fault
			}
		}
		if r.Address.zone != "" && r.Uncertain == "" {
			r.Uncertain = fmt.Sprintf("only the server knows whether it has the network interface %q", r.Address.zone)
		}
	}
	if t, fault = one("authentication method"); fault != "" {
		return fault
	}
	if fault = r.setMethod(t.Text, major); fault != "" {
		return fault
	}
	return r.setOptions(slices.Concat(fields...), major)
}

// isMask is whether the fields begin with the mask of an IPv6 address.
func isMask(fields [][]token) bool {
	if len(fields) == 0 || len(fields[0]) != 1 {
		return false
	}
	mask, _, ok := numericHost(fields[0][0].Text)
	return ok && mask.Is6()
}
