package connection

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"

	"github.com/jackc/pgx/v5"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/pgdb"
)

// fault is the finding for a connection that failed. Where several attempts failed it is about the last, where libpq stopped.
func (e *examination) fault(ctx context.Context, c *pgdb.ConnectError) doctor.Finding {
	f := doctor.Finding{
		Severity: doctor.Error,
		Object:   doctor.Object{Kind: "address", Name: c.Endpoint.String()},
		Observed: c.Error(),
		Evidence: map[string]string{"phase": string(c.Phase)},
	}
	if c.SQLSTATE != "" {
		f.Evidence["sqlstate"] = c.SQLSTATE
	}
	switch c.Phase {
	case pgdb.PhaseSettings:
		f.Code = "connection/settings-invalid"
		f.Object = doctor.Object{Kind: "database", Name: e.database.Settings["dbname"]}
		f.Summary = "Synapse cannot connect with these settings."
		f.Expected = "settings that libpq accepts, and files that it can read"
		f.Remedy = "Correct the named setting under database: args: in homeserver.yaml, then restart Synapse."
	case pgdb.PhaseResolve:
		f.Code = "connection/name-not-resolved"
		f.Object.Name = c.Endpoint.Host
		f.Summary = fmt.Sprintf("The database server's name %s has no address.", c.Endpoint.Host)
		f.Expected = "a name that resolves to the server's address"
		f.Remedy = "Correct host under database: args: in homeserver.yaml, or the name in DNS or /etc/hosts (with Docker: the service's name, in a network that both containers share). See what the name resolves to:\n\n    getent ahosts " + shell(c.Endpoint.Host)
	case pgdb.PhaseDial:
		dialFault(&f, c)
	case pgdb.PhaseTLS:
		tlsFault(&f, c)
	default:
		e.serverFault(ctx, &f, c)
	}
	return f
}

func dialFault(f *doctor.Finding, c *pgdb.ConnectError) {
	at := c.Endpoint.String()
	f.Expected = "a PostgreSQL server that listens at " + at
	const whereItListens = "See whether the server runs and where it listens:\n\n    pg_lsclusters\n    ss -ltnx | grep -e 5432 -e PGSQL\n\n" +
		"Then start it, or correct host and port under database: args: in homeserver.yaml."
	switch {
	case c.Endpoint.Socket != "" && errors.Is(c.Err, fs.ErrNotExist):
		f.Code = "connection/no-socket"
		f.Summary = fmt.Sprintf("There is no socket %s.", at)
		f.Remedy = "Either the server does not run, or it puts its socket elsewhere, or Synapse is in a container that does not see it. Without host in the configuration, Synapse uses the socket. " + whereItListens
	case errors.Is(c.Err, syscall.ECONNREFUSED):
		f.Code = "connection/refused"
		f.Summary = fmt.Sprintf("Nothing listens at %s.", at)
		f.Remedy = whereItListens + " A server that listens at its socket only needs listen_addresses in postgresql.conf and a restart."
	case c.Timeout():
		f.Code = "connection/timed-out"
		f.Summary = fmt.Sprintf("Nothing answers at %s; Synapse freezes while it waits.", at)
		f.Remedy = "A firewall that drops packets, a wrong address or a machine that is down. Correct host under database: args: in homeserver.yaml, or let Synapse's machine through:\n\n    pg_isready -h " + shell(hostOf(c)) + fmt.Sprintf(" -p %d", c.Endpoint.Port)
	default:
		f.Code = "connection/unreachable"
		f.Summary = fmt.Sprintf("The server at %s cannot be reached.", at)
		f.Remedy = "The operating system gives the reason above: no route, or no permission to use the socket. " + whereItListens
	}
}

func hostOf(c *pgdb.ConnectError) string {
	if c.Endpoint.Addr.IsValid() {
		return c.Endpoint.Addr.String()
	}
	return c.Endpoint.Host
}

func tlsFault(f *doctor.Finding, c *pgdb.ConnectError) {
	at := c.Endpoint.String()
	_, badChain := errors.AsType[x509.UnknownAuthorityError](c.Err)
	_, badName := errors.AsType[x509.HostnameError](c.Err)
	_, invalid := errors.AsType[x509.CertificateInvalidError](c.Err)
	_, unverified := errors.AsType[*tls.CertificateVerificationError](c.Err)
	switch {
	case errors.Is(c.Err, pgdb.ErrTLSRefused):
		f.Code = "connection/tls-not-offered"
		f.Summary = fmt.Sprintf("The server at %s offers no TLS, but sslmode demands it.", at)
		f.Expected = "a server with ssl = on, or an sslmode that does without"
		f.Remedy = "Give the server a certificate and switch TLS on:\n\n    ALTER SYSTEM SET ssl = on;\n    SELECT pg_reload_conf();\n\nOr, where the network between Synapse and the server is trusted, set sslmode: prefer under database: args: in homeserver.yaml."
	case badChain || badName || invalid || unverified:
		f.Code = "connection/certificate-rejected"
		f.Summary = fmt.Sprintf("The certificate of the server at %s is not accepted.", at)
		f.Expected = "a certificate that is valid, for this name, and issued by an authority in sslrootcert"
		f.Remedy = "Look at the certificate, then renew it, use the name that it is for as host, or name its authority's file as sslrootcert under database: args: in homeserver.yaml:\n\n    openssl s_client -starttls postgres -connect " + shell(at) + " </dev/null | openssl x509 -noout -subject -issuer -dates -ext subjectAltName"
	case c.Timeout():
		f.Code = "connection/timed-out"
		f.Summary = fmt.Sprintf("Something accepts connections at %s, but does not answer; Synapse freezes while it waits.", at)
		f.Expected = "a PostgreSQL server that answers"
		f.Remedy = "The server is stopped or overloaded, or it is no PostgreSQL server. See what listens there:\n\n    ss -ltnp | grep " + fmt.Sprint(c.Endpoint.Port)
	default:
		f.Code = "connection/tls-failed"
		f.Summary = fmt.Sprintf("No encrypted connection to %s comes about.", at)
		f.Expected = "a server and settings that agree on TLS"
		f.Remedy = "The server's log says more. Things to compare: the versions of TLS that both sides allow, and the client certificate that the server demands (sslcert and sslkey under database: args: in homeserver.yaml)."
	}
}

// serverFault is for everything that the server itself answered.
func (e *examination) serverFault(ctx context.Context, f *doctor.Finding, c *pgdb.ConnectError) {
	role, database := doctor.Object{Kind: "role", Name: c.User}, doctor.Object{Kind: "database", Name: c.Database}
	switch {
	case errors.Is(c.Err, pgdb.ErrNoPassword):
		f.Code, f.Object = "connection/no-password", role
		f.Summary = fmt.Sprintf("The server asks for a password of %s, and none is configured.", c.User)
		f.Expected = "the role's password under database: args: in homeserver.yaml"
		f.Remedy = "Add password under database: args: in homeserver.yaml. If nobody knows it, give the role a new one as an administrator; psql asks for it:\n\n    sudo -u postgres psql -c " + shell(`\password `+identifier(c.User))
	case c.SQLSTATE == "28P01" || c.SQLSTATE == "28000":
		e.loginFault(ctx, f, c)
	case c.SQLSTATE == "3D000":
		f.Code, f.Object = "connection/no-database", database
		f.Summary = fmt.Sprintf("The database %s does not exist.", c.Database)
		f.Expected = "the database that Synapse's data is in"
		f.Remedy = "See which databases there are, and correct dbname under database: args: in homeserver.yaml:\n\n    sudo -u postgres psql -l\n\nOnly for a new homeserver, create it (before PostgreSQL 15 without LOCALE_PROVIDER libc):\n\n    " +
			fmt.Sprintf("CREATE DATABASE %s OWNER %s ENCODING 'UTF8' LOCALE_PROVIDER libc LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0;", identifier(c.Database), identifier(c.User))
	case c.SQLSTATE == "42501":
		f.Code, f.Object = "connection/no-connect-privilege", database
		f.Summary = fmt.Sprintf("%s may not connect to the database %s.", c.User, c.Database)
		f.Expected = "the privilege CONNECT"
		f.Remedy = "As an administrator:\n\n    " + fmt.Sprintf("GRANT CONNECT ON DATABASE %s TO %s;", identifier(c.Database), identifier(c.User))
	case c.SQLSTATE == "53300":
		f.Code = "connection/too-many-connections"
		f.Summary = fmt.Sprintf("The server at %s, or a limit of the role or the database, allows no further connection.", c.Endpoint)
		f.Expected = "max_connections above what all of Synapse's processes (cp_max each) and other programs use"
		f.Remedy = "See who holds the connections:\n\n    SELECT datname, usename, application_name, client_addr, state, count(*) FROM pg_stat_activity GROUP BY 1, 2, 3, 4, 5 ORDER BY 6 DESC;\n\nThen lower cp_max under database: args: in homeserver.yaml, or raise max_connections in postgresql.conf and restart the server. " +
			"The limits of role and database:\n\n    SELECT rolname, rolconnlimit FROM pg_roles WHERE rolconnlimit >= 0;\n    SELECT datname, datconnlimit FROM pg_database WHERE datconnlimit >= 0;\n\nA database with the limit 0 was shut on purpose. A doctor does that while it mends one: where its run was interrupted, synapse-doctor fix --apply goes on with it, and opens the database."
	case c.SQLSTATE == "57P03" || c.SQLSTATE == "57P01" || c.SQLSTATE == "57P02":
		f.Code = "connection/server-not-ready"
		f.Summary = fmt.Sprintf("The server at %s is starting up, shutting down or recovering.", c.Endpoint)
		f.Expected = "a server that accepts connections"
		f.Remedy = "After a crash it replays its log, which may take minutes: wait, and look at its progress in its log. Do not restart it meanwhile; it would begin again.\n\n    tail -f /var/log/postgresql/*.log"
	case errors.Is(c.Err, pgdb.ErrWrongServer):
		f.Code = "connection/wrong-server"
		f.Summary = fmt.Sprintf("The server at %s is not what target_session_attrs=%s asks for.", c.Endpoint, e.database.Settings["target_session_attrs"])
		f.Expected = "a server of that kind among the configured hosts; Synapse needs a primary (read-write)"
		f.Remedy = "Correct host or target_session_attrs under database: args: in homeserver.yaml, or promote the right server. On each server, true is a standby:\n\n    SELECT pg_is_in_recovery();"
	case c.Timeout():
		f.Code = "connection/timed-out"
		f.Summary = fmt.Sprintf("Something accepts connections at %s, but does not answer; Synapse freezes while it waits.", c.Endpoint)
		f.Expected = "a PostgreSQL server that answers"
		f.Remedy = "The server is stopped or overloaded, or it is no PostgreSQL server. See what listens there:\n\n    ss -ltnxp | grep " + fmt.Sprint(c.Endpoint.Port)
	default:
		f.Code = "connection/server-error"
		f.Summary = fmt.Sprintf("The server at %s does not let Synapse in.", c.Endpoint)
		f.Expected = "a session"
		f.Remedy = "The answer above is the server's, or that of a pooler before it. Its log says more. The settings that reach the server are user, dbname, options, client_encoding and application_name under database: args: in homeserver.yaml."
	}
}

const roleQuery = `SELECT rolcanlogin FROM pg_roles WHERE rolname = $1`

// loginFault is for a refused login. The server does not tell a stranger why; an administrator's connection tells a
// part, and pg_hba.conf the rest, which is the concern of the check ident.
func (e *examination) loginFault(ctx context.Context, f *doctor.Finding, c *pgdb.ConnectError) {
	f.Object = doctor.Object{Kind: "role", Name: c.User}
	if e.target.Admin != nil {
		var canLogin bool
		err := e.target.Admin.Read(ctx, func(tx pgx.Tx) error { return tx.QueryRow(ctx, roleQuery, c.User).Scan(&canLogin) })
		switch {
		case errors.Is(err, pgx.ErrNoRows):
			f.Code = "connection/no-role"
			f.Summary = fmt.Sprintf("The role %s does not exist.", c.User)
			f.Expected = "the role that owns Synapse's database"
			f.Remedy = "See who owns the database, and correct user under database: args: in homeserver.yaml:\n\n    sudo -u postgres psql -l\n\nOnly if the role is really missing, create it; this asks for its password:\n\n    sudo -u postgres createuser --pwprompt " + shell(c.User)
			return
		case err == nil && !canLogin:
			f.Code = "connection/role-cannot-login"
			f.Summary = fmt.Sprintf("The role %s may not log in.", c.User)
			f.Expected = "the attribute LOGIN"
			f.Remedy = "As an administrator:\n\n    " + fmt.Sprintf("ALTER ROLE %s LOGIN;", identifier(c.User))
			return
		case err != nil: // the login failed all the same, which is said below
			f.Evidence["admin"] = err.Error()
		}
	}
	if c.SQLSTATE == "28P01" {
		f.Code = "connection/password-refused"
		f.Summary = fmt.Sprintf("The server at %s does not accept the password of %s.", c.Endpoint, c.User)
		f.Expected = "a role that exists, with the configured password"
		f.Remedy = "The password is wrong, the role has none or does not exist, or it is stored in a form that pg_hba.conf does not take; the server tells them apart only in its log, in the line DETAIL. Setting the configured password again cures all but a missing role; psql asks for it:\n\n    sudo -u postgres psql -c " + shell(`\password `+identifier(c.User)) + "\n\n" +
			"With Docker, changing POSTGRES_PASSWORD afterwards has no effect: the password is set when the volume is created. Never delete the volume for this. With --admin-dsn, the check ident tells which cause it is."
		return
	}
	f.Code = "connection/login-refused"
	f.Summary = fmt.Sprintf("The server at %s does not let %s in, without looking at a password.", c.Endpoint, c.User)
	if c.Endpoint.Socket != "" {
		f.Expected = "a line in pg_hba.conf that lets the role in through the socket"
		f.Remedy = "Through the socket, pg_hba.conf mostly asks for peer: the operating system's user must have the role's name, and Synapse's has not. Simplest is TCP with a password: set host: 127.0.0.1 and password under database: args: in homeserver.yaml. "
	} else {
		f.Expected = "a line in pg_hba.conf that asks the role for its password from this address"
		f.Remedy = "The first line of pg_hba.conf that matches decides; it says ident or reject, or no line matches this address, role, database and encryption (hostssl lines match encrypted connections only), or the role may not log in. The line wanted is:\n\n    " +
			fmt.Sprintf("host  %s  %s  %s  scram-sha-256\n\n", hbaName(c.Database), hbaName(c.User), hbaAddress(c))
	}
	f.Remedy += "As root, or with --admin-dsn, the check ident names the line that decides. The server's log does too. Where pg_hba.conf is:\n\n    SHOW hba_file;"
}

func hbaAddress(c *pgdb.ConnectError) string {
	addr := c.Endpoint.Addr
	switch {
	case !addr.IsLoopback():
		return "ADDRESS-OF-SYNAPSE/32"
	case addr.Is6():
		return "::1/128"
	}
	return "127.0.0.1/32"
}

// addressFails is for an address that fails while another one works.
func addressFails(c *pgdb.ConnectError, before bool) doctor.Finding {
	f := doctor.Finding{
		Code:     "connection/address-fails",
		Severity: doctor.Warning,
		Object:   doctor.Object{Kind: "address", Name: c.Endpoint.String()},
		Observed: c.Error(),
		Expected: "a server at every address of the configured host, or only addresses that have one",
		Evidence: map[string]string{"phase": string(c.Phase)},
	}
	switch {
	case c.Timeout():
		f.Summary = fmt.Sprintf("Nothing answers at %s, though another address of the server works.", c.Endpoint)
		if before {
			f.Summary = fmt.Sprintf("Nothing answers at %s, which Synapse tries first: each new connection waits for it.", c.Endpoint)
		}
	case c.Phase == pgdb.PhaseDial && errors.Is(c.Err, syscall.ECONNREFUSED), c.Phase == pgdb.PhaseDial && c.Endpoint.Addr.IsLoopback():
		f.Severity = doctor.Info
		f.Summary = fmt.Sprintf("Nothing listens at %s, but another address of the server works. That costs nothing.", c.Endpoint)
	default:
		f.Summary = fmt.Sprintf("%s does not work, though another address of the server does; Synapse depends on the other one.", c.Endpoint)
	}
	f.Remedy = "Name the address that works as host under database: args: in homeserver.yaml, and restart Synapse. So that a silent server costs seconds and not minutes, add a limit too:\n\n    connect_timeout: 10"
	if c.Endpoint.Addr.IsLoopback() {
		f.Remedy = strings.Replace(f.Remedy, "Name the address that works", "Name 127.0.0.1 (or ::1, whichever works)", 1)
	}
	return f
}
