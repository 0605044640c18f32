package ident

import (
	"fmt"
	"net/netip"
	"slices"
)

// What the server makes of the files as they are now, which it need not have loaded yet. Before 16 a file includes no
// other, and after it the columns have the same order.
const (
	viewQuery = `SELECT file_name, line_number, type, database, user_name, address, netmask, auth_method, options, error
  FROM pg_hba_file_rules`
	viewQueryBefore16 = `SELECT current_setting('hba_file'), line_number, type, database, user_name, address, netmask, auth_method, options, error
  FROM pg_hba_file_rules`
)

// viewRow is a row of pg_hba_file_rules.
type viewRow struct {
	File     string
	Line     int
	Type     *string // nil for a record that makes the server refuse the file
	Database []string
	User     []string
	Address  *string
	Netmask  *string
	Method   *string
	Options  []string
	// Error of a record that has a Type is only a warning: it can never match, because TLS is off, say.
	Error *string
}

// compare tells what the server understands in another way than we do, in one sentence; nothing when there is nothing.
// It shows no value of an option: that may be a password.
func (r *rules) compare(rows []viewRow) string {
	for i, row := range rows {
		place := fmt.Sprintf("%s:%d", row.File, row.Line)
		if i == len(r.Records) {
			return fmt.Sprintf("%s: the server sees a record that was not seen here", place)
		}
		rec := &r.Records[i]
		if rec.File != row.File || rec.Line != row.Line {
			return fmt.Sprintf("%s: the server's next record is in %s", rec.where(), place)
		}
		if difference := rec.differs(row); difference != "" {
			return rec.where() + ": " + difference
		}
	}
	if len(r.Records) > len(rows) {
		return fmt.Sprintf("%s: the server does not see this record", r.Records[len(rows)].where())
	}
	return ""
}

// differs tells what of a record the server understands in another way.
func (r *record) differs(row viewRow) string {
	if row.Type == nil {
		if r.Fault == "" && r.Uncertain == "" {
			return "the server refuses the record, for a reason that was not seen here"
		}
		return ""
	}
	if r.Fault != "" {
		return "the server accepts the record, but here it was taken for a fault: " + r.Fault
	}
	for _, c := range []struct{ what, ours, theirs string }{
		{"connection type", r.Type, *row.Type},
		{"authentication method", r.Method, deref(row.Method)},
		{"list of databases", quoted(r.Databases), fmt.Sprintf("%q", row.Database)},
		{"list of roles", quoted(r.Users), fmt.Sprintf("%q", row.User)},
	} {
		if c.ours != c.theirs {
			return fmt.Sprintf("the server's %s is %s, and not %s", c.what, c.theirs, c.ours)
		}
	}
	if !r.Address.same(row.Address, row.Netmask) {
		return fmt.Sprintf("the server's address is %s %s, and not %s", deref(row.Address), deref(row.Netmask), r.Address)
	}
	if want, known := r.viewOptions(); known && !slices.Equal(want, slices.Sorted(slices.Values(row.Options))) {
		return "the server understands the options differently"
	}
	return ""
}

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

func quoted(tokens []token) string {
	texts := make([]string, len(tokens))
	for i, t := range tokens {
		texts[i] = t.Text
	}
	return fmt.Sprintf("%q", texts)
}

// same is whether the view shows this address. Its text is not compared: there is more than one for an address.
func (a address) same(addr, mask *string) bool {
	switch a.Kind {
	case noAddress:
		return addr == nil && mask == nil
	case masked:
		if a.zone != "" && mask == nil { // the server has no such interface
			return true
		}
		theirs, err := netip.ParseAddr(deref(addr))
		theirMask, err2 := netip.ParseAddr(deref(mask))
		return err == nil && err2 == nil && theirs.WithZone("") == a.Addr && theirMask.WithZone("") == a.Mask
	}
	return addr != nil && *addr == a.String() && mask == nil
}

// String is the address as pg_hba.conf has it.
func (a address) String() string {
	switch a.Kind {
	case anyAddress:
		return "all"
	case sameHost:
		return "samehost"
	case sameNet:
		return "samenet"
	case hostName:
		return a.Name
	case masked:
		if bits, ok := a.bits(); ok {
			return fmt.Sprintf("%s/%d", a.Addr, bits)
		}
		return fmt.Sprintf("%s %s", a.Addr, a.Mask)
	}
	return ""
}

// bits is the length of a contiguous mask.
func (a address) bits() (int, bool) {
	for n := range a.Mask.BitLen() + 1 {
		if contiguousMask(n, a.Mask.Is4()) == a.Mask {
			return n, true
		}
	}
	return 0, false
}

// viewOptions is what the view shows of a record's options, for the methods whose options do not depend on how the
// server was built.
func (r *record) viewOptions() (options []string, known bool) {
	if slices.Contains(buildMethods, r.Method) || r.Method == "radius" {
		return nil, false
	}
	if m, ok := r.options["map"]; ok {
		options = append(options, "map="+m)
	}
	if v, ok := r.options["clientcert"]; ok {
		options = append(options, "clientcert="+v)
	} else if r.Method == "cert" {
		options = append(options, "clientcert=verify-full")
	}
	slices.Sort(options)
	return options, true
}
