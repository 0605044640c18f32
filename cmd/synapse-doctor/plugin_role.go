package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/pflag"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/engine"
	"github.com/synapse-doctor/synapse-doctor/core/pgdb"
)

// readerRole is the role that plugins of third parties read the database as.
const readerRole = "synapse_doctor_reader"

// readRole makes the reading role on the homeserver's server and returns the connection string for it, and what drops it
// again. The password is made here, and what reaches the server is its SCRAM verifier.
func (a *addFlags) readRole(ctx context.Context, s streams) (dsn string, drop func() error, err error) {
	assembled, err := a.target.assemble(pflag.NewFlagSet("", pflag.ContinueOnError))
	if err != nil {
		return "", nil, err
	}
	defer assembled.target.Close()
	e := engine.New(engine.Options{Version: version(), Target: assembled.target, FindAdmin: a.target.admin() == "", Redactor: assembled.redactor})
	main, admin, err := e.Administrator(ctx)
	if err != nil {
		return "", nil, fmt.Errorf("a role can't be made without an administrator's connection: %w: give one with --admin-dsn @FILE, or make the role yourself and give --read-dsn @FILE", err)
	}
	password := rand.Text()
	assembled.redactor.Add(password)
	salt := make([]byte, 16)
	rand.Read(salt)
	verifier, err := pgdb.ScramVerifier(password, salt)
	if err != nil {
		return "", nil, err
	}
	name := pgx.Identifier{readerRole}.Sanitize()
	statements := []string{
		"CREATE ROLE " + name + " LOGIN PASSWORD '" + doctor.Masked + "'",
		"GRANT pg_read_all_data TO " + name,
		"GRANT CONNECT ON DATABASE " + pgx.Identifier{main.Settings["dbname"]}.Sanitize() + " TO " + name,
	}
	fmt.Fprintf(s.err, "\nOn %s, as the administrator:\n\n", doctor.Clean(main.Where()))
	for _, statement := range statements {
		fmt.Fprintf(s.err, "    %s;\n", doctor.Clean(statement))
	}
	if err := a.agreeToRole(ctx, s); err != nil {
		return "", nil, err
	}
	if err := makeRole(ctx, admin, statements, verifier); err != nil {
		return "", nil, err
	}
	settings := pgdb.Settings{"user": readerRole, "password": password}
	for _, k := range []string{"host", "hostaddr", "port", "dbname", "sslmode", "sslrootcert"} {
		if main.Settings[k] != "" {
			settings[k] = main.Settings[k]
		}
	}
	drop = func() error { return dropRole(context.WithoutCancel(ctx), admin, main.Settings["dbname"]) }
	c, err := pgdb.Connect(ctx, settings, main.Options())
	if err != nil {
		dropErr := drop()
		return "", nil, errors.Join(fmt.Errorf("the role %s was made, could not log in, and was dropped again: %w. pg_hba.conf must let it in, such as: host %s %s 127.0.0.1/32 scram-sha-256",
			readerRole, err, main.Settings["dbname"], readerRole), dropErr)
	}
	pgdb.Close(c)
	return dsnOf(settings), drop, nil
}

// agreeToRole asks. It returns errNotAgreed when nobody agrees.
func (a *addFlags) agreeToRole(ctx context.Context, s streams) error {
	if a.yes {
		return nil
	}
	fmt.Fprint(s.err, "\nMake this role? Type yes: ")
	answer, err := readLine(ctx, s.in)
	if err != nil {
		return err
	}
	if answer = strings.TrimSpace(answer); !strings.EqualFold(answer, "yes") && !strings.EqualFold(answer, "y") {
		return errNotAgreed
	}
	return nil
}

var errNotAgreed = errors.New("nobody agreed to the role")

// unlogged keeps the verifier out of the server's log. Only a superuser may say so.
const unlogged = `SELECT set_config(s.name, v.value, true) FROM pg_settings s JOIN (VALUES
    ('log_statement', 'none'), ('log_min_duration_statement', '-1'), ('log_min_duration_sample', '-1'),
    ('log_min_error_statement', 'panic'), ('pg_stat_statements.track', 'none'), ('auto_explain.log_min_duration', '-1')) v(name, value) USING (name)
  WHERE (SELECT rolsuper FROM pg_roles WHERE rolname = current_user)`

func makeRole(ctx context.Context, admin *doctor.Database, statements []string, verifier string) error {
	c, err := pgdb.Connect(ctx, admin.Settings, admin.Options())
	if err != nil {
		return fmt.Errorf("connect as the administrator: %w", err)
	}
	defer pgdb.Close(c)
	return pgx.BeginFunc(ctx, c, func(tx pgx.Tx) error {
		var exists bool
		if err := tx.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)`, readerRole).Scan(&exists); err != nil {
			return fmt.Errorf("look for the role %s: %w", readerRole, err)
		}
		if exists {
			return fmt.Errorf("there is a role %s already: give its connection with --read-dsn @FILE, or drop it first", readerRole)
		}
		if _, err := tx.Exec(ctx, unlogged); err != nil {
			return fmt.Errorf("keep the password out of the server's log: %w", err)
		}
		for _, statement := range statements {
			if _, err := tx.Exec(ctx, strings.Replace(statement, doctor.Masked, verifier, 1)); err != nil {
				return fmt.Errorf("make the role %s: %w", readerRole, err)
			}
		}
		return nil
	})
}

func dropRole(ctx context.Context, admin *doctor.Database, database string) error {
	c, err := pgdb.Connect(ctx, admin.Settings, admin.Options())
	if err != nil {
		return fmt.Errorf("connect as the administrator: %w", err)
	}
	defer pgdb.Close(c)
	name := pgx.Identifier{readerRole}.Sanitize()
	for _, statement := range []string{"REVOKE CONNECT ON DATABASE " + pgx.Identifier{database}.Sanitize() + " FROM " + name, "DROP ROLE " + name} {
		if _, err := c.Exec(ctx, statement); err != nil {
			return fmt.Errorf("drop the role %s again: %w", readerRole, err)
		}
	}
	return nil
}

// dsnOf writes settings as a connection string.
func dsnOf(s pgdb.Settings) string {
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(s)) {
		parts = append(parts, k+"='"+strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(s[k])+"'")
	}
	return strings.Join(parts, " ")
}
