package engine

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/pgdb"
)

// password is the one that a step means by a database's label: a new one where the plan writes one into a file, made
// once, else the configured one.
func (a *application) password(label string) (string, error) {
	if made := a.passwords[label]; made != "" {
		return made, nil
	}
	for _, s := range a.steps {
		if s.EditFile != nil && s.EditFile.Password == label {
			if a.passwords == nil {
				a.passwords = map[string]string{}
			}
			a.passwords[label] = rand.Text()
			a.engine.Redactor.Add(a.passwords[label])
			return a.passwords[label], nil
		}
	}
	d := a.engine.Target.Database(label)
	if d == nil || d.Settings["password"] == "" {
		return "", refuse("no password is configured for the database %s", label)
	}
	return d.Settings["password"], nil
}

// text is a statement as it is run.
func (a *application) text(q *doctor.SQLStep) (string, error) {
	if q.Verifier == nil {
		return q.Statement, nil
	}
	password, err := a.password(q.Verifier.Password)
	if err != nil {
		return "", err
	}
	verifier, err := pgdb.ScramVerifier(password, q.Verifier.Salt)
	if err != nil {
		return "", err
	}
	return strings.Replace(q.Statement, doctor.Masked, verifier, 1), nil
}

// unloggedQuery keeps a transaction's statements and arguments out of the server's log and statistics. Only a superuser may
// say so; for others the log holds a verifier, where the server logs statements.
const unloggedQuery = `SELECT set_config(s.name, v.value, true) FROM pg_settings s JOIN (VALUES
    ('log_statement', 'none'), ('log_min_duration_statement', '-1'), ('log_min_duration_sample', '-1'),
    ('log_min_error_statement', 'panic'), ('log_parameter_max_length', '0'), ('log_parameter_max_length_on_error', '0'),
    ('pg_stat_statements.track', 'none'), ('auto_explain.log_min_duration', '-1')) v(name, value) USING (name)
  WHERE (SELECT rolsuper FROM pg_roles WHERE rolname = current_user)`

// unlogged sees to that where one of the steps, or what undoes it, holds what the server keeps of a password.
func (a *application) unlogged(ctx context.Context, c conn, indexes []int) error {
	if !slices.ContainsFunc(indexes, func(i int) bool { return a.steps[i].SQL.Verifier != nil }) {
		return nil
	}
	if _, err := c.Exec(ctx, unloggedQuery); err != nil {
		return fmt.Errorf("keep the password out of the server's log: %w", err)
	}
	return nil
}

// withPassword is the step with the password that it writes.
func (a *application) withPassword(s *doctor.EditFileStep) (*doctor.EditFileStep, error) {
	password, err := "", error(nil)
	switch {
	case s.Password != "":
		password, err = a.password(s.Password)
	case s.Configured != "":
		password, err = a.quoted(s.Configured)
	default:
		return s, nil
	}
	if err != nil {
		return nil, err
	}
	out := *s
	out.Splices = nil
	for _, splice := range s.Splices {
		splice.New = []byte(strings.Replace(string(splice.New), doctor.Masked, password, 1))
		out.Splices = append(out.Splices, splice)
	}
	return &out, nil
}

// quoted is an entry's configured password as it stands between double quotes: YAML reads them as JSON does.
func (a *application) quoted(label string) (string, error) {
	d := a.engine.Target.Database(label)
	if d == nil || d.Settings["password"] == "" {
		return "", refuse("no password is configured for the database %s", label)
	}
	text, err := json.Marshal(d.Settings["password"])
	if err != nil {
		return "", err
	}
	a.engine.Redactor.Add(string(text[1 : len(text)-1]))
	return string(text[1 : len(text)-1]), nil
}

// usePassword makes the password that a file now has, or has again, the one to log in with.
func (a *application) usePassword(label string, written bool) {
	d := a.engine.Target.Database(label)
	if d == nil || label == "" {
		return
	}
	d.Close() // its sessions go on, but new ones log in otherwise
	if written {
		a.former, d.Settings["password"] = d.Settings["password"], a.passwords[label]
		return
	}
	if a.passwords[label] != "" {
		d.Settings["password"] = a.former
		if a.former == "" {
			delete(d.Settings, "password")
		}
	}
}

// validateSecrets refuses a step whose secret has no place, or several, to stand in.
func validateSecrets(step doctor.Step) error {
	if q := step.SQL; q != nil && q.Verifier != nil {
		if n := strings.Count(q.Statement, doctor.Masked); n != 1 || len(q.Verifier.Salt) < 16 {
			return fmt.Errorf("has a password's verifier, but %d places for it, or too short a salt", n)
		}
	}
	if f := step.EditFile; f != nil && (f.Password != "" || f.Configured != "") {
		n := 0
		for _, s := range f.Splices {
			n += strings.Count(string(s.New), doctor.Masked)
		}
		if n != 1 || f.Password != "" && f.Configured != "" {
			return fmt.Errorf("writes a password, but has %d places for it", n)
		}
	}
	return nil
}
