// Package ident examines how the server decides whether to let Synapse in: which record of pg_hba.conf matches each way
// in which Synapse connects, and whether the role's password satisfies it. It imports core/doctor, core/pgdb and
// core/synapse.
//
// The records are read as the server reads them (hba.go, token.go, match.go); where the server can be asked, its own
// view of the file is compared, and a difference makes the check unknown. The order of reading: look.go asks, judge.go
// concludes, finding.go says it, plan.go answers.
package ident

import (
	"context"
	"errors"
	"fmt"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
)

// The faults. An administrator may rely on each.
const (
	IdentRule        = "ident/ident-rule"
	PeerRule         = "ident/peer-rule"
	RejectRule       = "ident/reject-rule"
	NoRule           = "ident/no-rule"
	OtherMethod      = "ident/other-method"
	HostsslOnly      = "ident/hostssl-only"
	TrustRule        = "ident/trust-rule"
	TrustElsewhere   = "ident/trust-elsewhere"
	FileError        = "ident/file-error"
	NotReloaded      = "ident/not-reloaded"
	HashMismatch     = "ident/hash-mismatch"
	NoRolePassword   = "ident/role-without-password"
	PasswordExpired  = "ident/password-expired"
	WrongPassword    = "ident/wrong-password"
	NotConfigured    = "ident/password-not-configured"
	LoginNotExplored = "ident/login-refused"
)

// Check is the check ident.
var Check = doctor.Check{
	ID:    "ident",
	Title: "The server lets Synapse in, and only with its password",
	Why: "One line of pg_hba.conf decides about each connection. Where it is the wrong one Synapse does not start; where it " +
		"is trust, anybody can be Synapse.",
	Needs: doctor.NeedsConfig | doctor.NeedsPostgresEntry,
	Codes: []doctor.Code{
		{ID: IdentRule, Title: "an ident record decides about Synapse's connection", Severity: doctor.Error},
		{ID: PeerRule, Title: "a peer record decides about Synapse's connection", Severity: doctor.Error},
		{ID: RejectRule, Title: "a reject record decides about Synapse's connection", Severity: doctor.Error},
		{ID: NoRule, Title: "no record is for Synapse's connection", Severity: doctor.Error},
		{ID: OtherMethod, Title: "a record asks for what Synapse cannot give", Severity: doctor.Error},
		{ID: HostsslOnly, Title: "a record is only for encrypted connections, and Synapse's is not", Severity: doctor.Error},
		{ID: TrustRule, Title: "a trust record lets anybody in without a password", Severity: doctor.Error},
		{ID: FileError, Title: "pg_hba.conf has an error", Severity: doctor.Error},
		{ID: HashMismatch, Title: "the password is kept in another form than the record asks for", Severity: doctor.Error},
		{ID: NoRolePassword, Title: "the role has no password", Severity: doctor.Error},
		{ID: PasswordExpired, Title: "the role's password has expired", Severity: doctor.Error},
		{ID: WrongPassword, Title: "the configured password is not the role's", Severity: doctor.Error},
		{ID: NotConfigured, Title: "the server asks for a password and none is configured", Severity: doctor.Error},
		{ID: LoginNotExplored, Title: "the server refuses the login, and the reason could not be seen", Severity: doctor.Error},
		{ID: TrustElsewhere, Title: "a trust record lets others in without a password", Severity: doctor.Info},
		{ID: NotReloaded, Title: "pg_hba.conf was changed and not loaded since", Severity: doctor.Warning},
	},
	Run:  run,
	Plan: plan,
}

func run(ctx context.Context, t *doctor.Target, r doctor.Reporter) error {
	databases := t.Meeting(doctor.NeedsPostgresEntry)
	var errs []error
	var skipped *doctor.SkipError
	for _, d := range databases {
		found, err := examine(ctx, t, d)
		for _, f := range found {
			r.Find(f)
		}
		if skip, ok := errors.AsType[*doctor.SkipError](err); ok && (len(databases) == 1 || skipped == nil && len(errs) == 0) {
			skipped = skip
			continue
		}
		if err != nil && len(databases) > 1 {
			err = fmt.Errorf("database %s: %w", d.Label, err)
		}
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if skipped != nil && len(errs) == 0 {
		return skipped
	}
	if skipped != nil {
		return errors.New(skipped.Reason) // others were examined, and this one was not
	}
	return nil
}

// examine looks at the ways into one database.
func examine(ctx context.Context, t *doctor.Target, d *doctor.Database) ([]doctor.Finding, error) {
	s, err := look(ctx, t, d)
	if err != nil {
		return nil, err
	}
	v := judge(s)
	return v.findings(), v.unknown
}
