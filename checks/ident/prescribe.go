package ident

import (
	"fmt"
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
)

// recordFaults are those that a record for Synapse before the one that decides would cure.
var recordFaults = []string{IdentRule, PeerRule, RejectRule, NoRule, OtherMethod, HostsslOnly, TrustRule}

// passwordFaults are those that setting the role's password would cure.
var passwordFaults = []string{NoRolePassword, WrongPassword, HashMismatch, NotConfigured}

// addition is a record to be added.
type addition struct {
	line   string
	before *record // that decides now; nil: at the end of the file
	ways   []string
}

// prescription is what would let Synapse in with its password, and nobody without one.
type prescription struct {
	seen      *seen
	additions []addition
	rehash    bool // set the role's password to the configured one, or to one that is made
	make      bool // make a password, for homeserver.yaml too
	lasting   bool // take away the day on which the password expires
	reload    bool
	method    string
	why       string // why the doctor does not do it; empty when it does
}

func (v *verdict) prescribe() prescription {
	s := v.seen
	p := prescription{seen: s, method: s.method()}
	has := func(codes ...string) bool {
		return slices.ContainsFunc(v.faults, func(f *fault) bool {
			return slices.Contains(codes, f.code)
		})
	}
	records := has(recordFaults...)
	p.rehash = has(HashMismatch) || (records || has(passwordFaults...)) && s.needsPassword()
	p.make = (records || has(passwordFaults...)) && !s.own
	p.lasting = s.role.expired && (records || has(PasswordExpired))
	if p.rehash || p.make {
		p.rehash, p.method = true, "scram-sha-256"
	}
	if records {
		p.add(v)
	}
	p.reload = len(p.additions) > 0 || has(NotReloaded)
	if p.why == "" {
		p.why = p.hindrance(v)
	}
	return p
}

// add finds the line for each way, and the record before which it has to stand to decide about every attempt there.
func (p *prescription) add(v *verdict) {
	s := v.seen
	for i := range s.ways {
		w := &s.ways[i]
		if !slices.ContainsFunc(recordFaults, func(code string) bool { return v.has(code, w) }) {
			continue
		}
		line, ok := recordLine(s.database.Settings["dbname"], s.database.Settings["user"], w.client, p.method)
		if !ok {
			p.why = "no record can name this role or database alone: in pg_hba.conf a name that begins with / is a regular expression"
			return
		}
		before := s.earliest(w)
		at := slices.IndexFunc(p.additions, func(a addition) bool { return a.line == line && a.before == before })
		if at < 0 {
			p.additions, at = append(p.additions, addition{line: line, before: before}), len(p.additions)
		}
		p.additions[at].ways = append(p.additions[at].ways, w.where())
	}
}

// earliest is the first of the records that decide about the attempts on a way; nil where none does.
func (s *seen) earliest(w *way) *record {
	for i := range s.rules.Records {
		r := &s.rules.Records[i]
		if slices.ContainsFunc(w.decisions, func(d decision) bool { return d.Record == r }) {
			return r
		}
	}
	return nil
}

// hindrance says why the doctor only tells what to do.
func (p *prescription) hindrance(v *verdict) string {
	s := v.seen
	switch {
	case !s.asked:
		return s.database.NoAdmin
	case len(s.rules.faulty()) > 0:
		return "pg_hba.conf has an error, which has to be corrected first"
	case s.pending() && (len(p.additions) > 0 || p.rehash):
		return "somebody has changed the file since it was loaded, and loading it would put all of that into force: see to that change first, and have the server load the file"
	case s.pending() && slices.ContainsFunc(s.rules.Records, func(r record) bool { return r.Method == "trust" && r.reachesTheNetwork() }):
		return "the file has a trust record for a network, and loading it may let in whoever that matches: look first whether it is meant"
	case p.rehash && s.sharedWith() != "":
		return "the database " + s.sharedWith() + " has the same role with another password, which would no longer work: the configuration must have one password for both"
	case p.make && !s.target.SetPassword:
		return "homeserver.yaml has no password: write the role's there, or let the doctor make one for both sides with synapse-doctor fix ident --set-password"
	case p.rehash && !s.role.hashSeen && s.role.exists:
		return "the administrator's role may not see how the password is kept: it takes a superuser"
	}
	for i := range s.ways {
		w := &s.ways[i]
		if v.has(HostsslOnly, w) && w.client.IsValid() && !w.client.IsLoopback() {
			return "over a network it would take back that connections have to be encrypted; switch that on where it is off: ssl = on at the server, or no sslmode: disable in homeserver.yaml"
		}
	}
	for _, a := range p.additions {
		if file := s.fileOf(a.before); s.localPath(file) == "" {
			return file + " is not on this machine, or not shown to be that server's: run synapse-doctor where it is, or name it with --hba-file"
		}
	}
	return ""
}

// sharedWith is another database of the homeserver whose login is the same role of the same server with another password.
func (s *seen) sharedWith() string {
	for _, d := range s.target.Databases {
		same := d.Engine == doctor.Postgres && d.Settings["user"] == s.database.Settings["user"] && d.SystemID == s.database.SystemID
		if d != s.database && same && d.Settings["password"] != s.database.Settings["password"] {
			return d.Label
		}
	}
	return ""
}

// fileOf is the file into which a line goes that is to stand before the record.
func (s *seen) fileOf(before *record) string {
	if before == nil {
		return s.rules.Path
	}
	return before.File
}

// localPath is a file of the server's as this machine has it; empty when it does not.
func (s *seen) localPath(file string) string {
	switch {
	case s.local == "":
		return ""
	case file == s.server.hbaFile:
		return s.local
	case s.database.DataDir != "":
		return file
	}
	return ""
}

// offered reports whether the plan mends the fault.
func (p prescription) offered(f *fault) bool {
	switch {
	case p.why != "":
		return false
	case slices.Contains(recordFaults, f.code):
		return len(f.ways) > 0
	case f.code == NotReloaded:
		return p.reload
	case f.code == PasswordExpired:
		return p.lasting
	}
	return slices.Contains(passwordFaults, f.code) && p.rehash
}

// words are the remedy of one fault: what to do by hand, and why the doctor does not, where it does not.
func (p prescription) words(f *fault) string {
	var parts []string
	switch {
	case slices.Contains(recordFaults, f.code):
		parts = append(parts, p.recordWords(f))
		if f.code == PeerRule {
			parts = append(parts, p.peerWords())
		}
	case f.code == NotReloaded:
		parts = append(parts, "See that the server has no objection to the file, then have it load it:\n\n    SELECT * FROM pg_hba_file_rules WHERE error IS NOT NULL;\n    "+doctor.ReloadStatement+";")
	case f.code == PasswordExpired:
		parts = append(parts, "As an administrator:\n\n    ALTER ROLE "+identifier(p.seen.database.Settings["user"])+" VALID UNTIL 'infinity';")
	case f.code == NotConfigured:
		parts = append(parts, "Write the role's password under database: args: in homeserver.yaml. (A password file that only Synapse's user has is not seen from here.) If nobody knows it, synapse-doctor fix ident --set-password makes one and writes it to both sides.")
	default:
		parts = append(parts, "Give the role the password that is in homeserver.yaml (psql asks for it, so that it is in no history). With a new password in a container's variables nothing changes: they count only when its volume is made, which must not be deleted for that; run psql inside the container.\n\n    "+p.passwordCommand())
	}
	if p.why != "" && f.code != NotConfigured {
		parts = append(parts, "The doctor does not do it itself: "+p.why+".")
	}
	return strings.Join(parts, "\n\n")
}

func (p prescription) recordWords(f *fault) string {
	var lines, places []string
	for _, a := range p.additions {
		lines = append(lines, a.line)
		place := "at the end of " + p.seen.rules.Path
		if a.before != nil {
			place = "before " + a.before.where()
		}
		if !slices.Contains(places, place) {
			places = append(places, place)
		}
	}
	if len(lines) == 0 {
		return "Add a record for Synapse before the one that decides."
	}
	one := "this record"
	if len(lines) > 1 {
		one = "these records"
	}
	text := fmt.Sprintf("Add %s %s: the first record that matches decides, whatever stands below it. Then have the server load the file:\n\n    %s\n\n    %s;",
		one, strings.Join(places, " and "), strings.Join(lines, "\n    "), doctor.ReloadStatement)
	if f.code == HostsslOnly && p.seen.asked && !p.seen.server.ssl {
		text += "\n\nOr give the server a certificate and switch encryption on (ssl = on), so that the record which is there matches."
	}
	if f.code == HostsslOnly && p.seen.server.ssl {
		text += "\n\nOr let Synapse encrypt: no sslmode: disable under database: args: in homeserver.yaml."
	}
	if f.code == RejectRule {
		text += "\n\nSomebody has written the reject on purpose: ask them first."
	}
	if p.rehash {
		text += "\n\nThe role needs its password too:\n\n    " + p.passwordCommand()
	}
	return text
}

// passwordCommand has psql ask for the password, so that it is in no history, and keep it for SCRAM.
func (p prescription) passwordCommand() string {
	return `sudo -u postgres psql -c "SET password_encryption = 'scram-sha-256'" -c ` + shell(`\password `+identifier(p.seen.database.Settings["user"]))
}

// peerWords are the other way: Synapse goes on without a password, as the user of the system that it runs as.
func (p prescription) peerWords() string {
	s := p.seen
	role, system := s.database.Settings["user"], s.systemUser()
	line, ok := recordLine(s.database.Settings["dbname"], role, s.ways[0].client, "peer map=synapse")
	if !ok || s.ways[0].client.IsValid() {
		return ""
	}
	return fmt.Sprintf("Without a password: let the server know that the system's user %s is %s, with this line in pg_ident.conf\n\n    synapse    %s    %s\n\nand this record in the place of the one above:\n\n    %s\n\nOr let Synapse connect over TCP, where peer is not asked: host: 127.0.0.1 under database: args: in homeserver.yaml.",
		system, role, system, role, line)
}

// systemUser is the user as whom Synapse runs: the owner of its configuration, unless that is root's.
func (s *seen) systemUser() string {
	if u, err := user.LookupId(s.database.OSUser); err == nil {
		return u.Username
	}
	for _, file := range s.target.ConfigFiles {
		info, err := os.Stat(file)
		if err != nil {
			continue
		}
		if stat, ok := info.Sys().(*syscall.Stat_t); ok && stat.Uid != 0 {
			if u, err := user.LookupId(strconv.Itoa(int(stat.Uid))); err == nil {
				return u.Username
			}
		}
	}
	return "matrix-synapse"
}
