// Package connection checks that Synapse gets into its database, and that it is Synapse's.
// It imports core/doctor, core/pgdb and core/synapse.
//
// Every way in which a connection fails is a finding of its own, told by the phase in which it failed and by SQLSTATE,
// never by message text: servers speak other languages.
package connection

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/pgdb"
)

// Check is the check connection.
var Check = doctor.Check{
	ID:    "connection",
	Title: "Synapse reaches its own database",
	Why:   "Synapse does not start without its database, and freezes when an address of the server does not answer.",
	Needs: doctor.NeedsPostgresEntry,
	Codes: []doctor.Code{
		{ID: "connection/settings-invalid", Title: "the connection settings cannot be used", Severity: doctor.Error},
		{ID: "connection/name-not-resolved", Title: "the server's name has no address", Severity: doctor.Error},
		{ID: "connection/refused", Title: "no server listens at the address", Severity: doctor.Error},
		{ID: "connection/no-socket", Title: "the server's socket is not there", Severity: doctor.Error},
		{ID: "connection/timed-out", Title: "the server does not answer", Severity: doctor.Error},
		{ID: "connection/unreachable", Title: "the server cannot be reached", Severity: doctor.Error},
		{ID: "connection/tls-not-offered", Title: "the server offers no TLS", Severity: doctor.Error},
		{ID: "connection/certificate-rejected", Title: "the server's certificate is not accepted", Severity: doctor.Error},
		{ID: "connection/tls-failed", Title: "no encrypted connection comes about", Severity: doctor.Error},
		{ID: "connection/no-password", Title: "the server asks for a password and none is configured", Severity: doctor.Error},
		{ID: "connection/password-refused", Title: "the server does not accept the password", Severity: doctor.Error},
		{ID: "connection/login-refused", Title: "the server does not let the role in", Severity: doctor.Error},
		{ID: "connection/no-role", Title: "the role does not exist", Severity: doctor.Error},
		{ID: "connection/role-cannot-login", Title: "the role may not log in", Severity: doctor.Error},
		{ID: "connection/no-database", Title: "the database does not exist", Severity: doctor.Error},
		{ID: "connection/no-connect-privilege", Title: "the role may not connect to the database", Severity: doctor.Error},
		{ID: "connection/too-many-connections", Title: "the server has no connection left", Severity: doctor.Error},
		{ID: "connection/server-not-ready", Title: "the server is starting up or shutting down", Severity: doctor.Error},
		{ID: "connection/server-error", Title: "the server ends the connection with an error", Severity: doctor.Error},
		{ID: "connection/wrong-server", Title: "no server is what target_session_attrs asks for", Severity: doctor.Error},
		{ID: "connection/address-fails", Title: "one of the server's addresses does not work", Severity: doctor.Warning},
		{ID: "connection/standby", Title: "the server is a standby", Severity: doctor.Error},
		{ID: "connection/transaction-pooling", Title: "a pooler changes the session between transactions", Severity: doctor.Warning},
		{ID: "connection/not-synapse", Title: "the database is not Synapse's", Severity: doctor.Error},
		{ID: "connection/other-server-name", Title: "the database is another homeserver's", Severity: doctor.Error},
	},
	Run: run,
}

func run(ctx context.Context, t *doctor.Target, r doctor.Reporter) error {
	var errs []error
	for _, d := range t.Meeting(doctor.NeedsPostgresEntry) {
		e := examination{target: t, database: d, reporter: r, reported: map[doctor.FindingKey]bool{}}
		errs = append(errs, e.run(ctx))
	}
	return errors.Join(errs...)
}

// examination is the check of one database.
type examination struct {
	target   *doctor.Target
	database *doctor.Database
	reporter doctor.Reporter
	reported map[doctor.FindingKey]bool
}

// find reports a fault once, however many addresses show it.
func (e *examination) find(f doctor.Finding) {
	f.Database = e.database.Label
	if !e.reported[f.Key()] {
		e.reported[f.Key()] = true
		e.reporter.Find(f)
	}
}

func (e *examination) run(ctx context.Context) error {
	if e.database.Settings == nil {
		return errors.New("no login was handed to this plugin")
	}
	endpoints, err := e.database.Settings.Endpoints(ctx)
	if failure, ok := errors.AsType[*pgdb.ConnectError](err); ok {
		e.find(e.fault(ctx, failure))
		return nil
	}
	if err != nil {
		return err
	}
	if len(endpoints) == 1 {
		return e.single(ctx)
	}
	return e.each(ctx, endpoints)
}

// single uses the session that the other checks use too.
func (e *examination) single(ctx context.Context) error {
	err := e.database.Read(ctx, func(tx pgx.Tx) error { return e.session(ctx, tx) })
	if failure, ok := errors.AsType[*pgdb.ConnectError](err); ok && ctx.Err() == nil {
		e.find(e.fault(ctx, failure))
		return nil
	}
	return err
}

// each tries every address on its own: 127.0.0.1 and ::1 meet different servers and different lines of pg_hba.conf.
func (e *examination) each(ctx context.Context, endpoints []pgdb.Endpoint) error {
	conns, failures := make([]*pgx.Conn, len(endpoints)), make([]*pgdb.ConnectError, len(endpoints))
	var wg sync.WaitGroup
	for i, endpoint := range endpoints {
		wg.Go(func() {
			var err error
			conns[i], err = pgdb.ConnectEndpoint(ctx, e.database.Settings, endpoint, e.options())
			failures[i], _ = errors.AsType[*pgdb.ConnectError](err)
		})
	}
	wg.Wait()
	working := -1
	for i := len(conns) - 1; i >= 0; i-- {
		if conns[i] != nil {
			defer pgdb.Close(conns[i])
			working = i
		}
	}
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	e.judge(ctx, failures, working)
	if working < 0 {
		return nil
	}
	tx, err := conns[working].BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly})
	if err != nil {
		return err
	}
	return e.session(ctx, tx) // the transaction ends with its session
}

// judge reports the addresses that failed. Synapse gets in when libpq comes past all failures before the working one;
// what it never comes to, or comes past, costs time at most.
func (e *examination) judge(ctx context.Context, failures []*pgdb.ConnectError, working int) {
	stopped := working < 0
	for i, failure := range failures {
		switch {
		case failure == nil:
		case stopped || i < working && !failure.TriesNext():
			e.find(e.fault(ctx, failure))
			stopped = stopped || working >= 0
		case errors.Is(failure, pgdb.ErrWrongServer): // target_session_attrs picks among servers: that is its purpose
		default:
			e.find(addressFails(failure, i < working))
		}
	}
}

// patience bounds an attempt: the doctor does not wait for ever where Synapse would.
const patience = 10 * time.Second

func (e *examination) options() pgdb.Options {
	o := e.database.Options()
	o.ReadOnly = true
	if n, err := strconv.Atoi(e.database.Settings["connect_timeout"]); err == nil && (n <= 0 || n > int(patience/time.Second)) {
		o.ConnectTimeout = patience
	}
	return o
}
