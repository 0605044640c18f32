package pgdb

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgconn/ctxwatch"
)

// Options are what the doctor adds to Synapse's settings.
type Options struct {
	ApplicationName string
	ReadOnly        bool          // the session defaults to read-only transactions
	ConnectTimeout  time.Duration // for each attempt; 0: the settings' connect_timeout, else 10 s
	OSUser          string        // sockets are connected to as this user of the operating system, a name or number; empty: the process's own
}

const defaultConnectTimeout = 10 * time.Second

// A session of the doctor never makes Synapse wait for long, and the server notices when a doctor has died.
const (
	lockTimeout   = "5s"
	checkInterval = "5s"
)

var past = time.Unix(1, 0)

// Connect opens one session: at the first endpoint that lets it in, in libpq's order. Like libpq, it goes on to the next
// one when nobody answers, when the server is only starting, or when it is not what target_session_attrs asks for; a
// server that says no is the end. Every failure is a *[ConnectError].
func Connect(ctx context.Context, s Settings, o Options) (*pgx.Conn, error) {
	endpoints, err := s.Endpoints(ctx)
	if err != nil {
		return nil, err
	}
	if s["load_balance_hosts"] == "random" {
		rand.Shuffle(len(endpoints), func(i, j int) { endpoints[i], endpoints[j] = endpoints[j], endpoints[i] })
	}
	var attempts []*ConnectError
	attempt := func(attrs string) (*pgx.Conn, error) {
		for _, e := range endpoints {
			conn, err := connectEndpoint(ctx, s, e, o, attrs)
			if err == nil {
				return conn, nil
			}
			attempts = append(attempts, err)
			if !err.TriesNext() || ctx.Err() != nil {
				break
			}
		}
		last := *attempts[len(attempts)-1]
		last.Attempts = attempts
		return nil, &last
	}
	attrs := s["target_session_attrs"]
	if attrs != "prefer-standby" {
		return attempt(attrs)
	}
	if conn, err := attempt("standby"); err == nil {
		return conn, nil
	}
	return attempt("any")
}

// TriesNext reports whether libpq would go on to the next endpoint after this failure.
func (e *ConnectError) TriesNext() bool {
	const cannotConnectNow = "57P03"
	return e.Phase == PhaseResolve || e.Phase == PhaseDial || e.SQLSTATE == cannotConnectNow || errors.Is(e, ErrWrongServer) || e.Timeout()
}

// ConnectEndpoint opens one session at this endpoint of the settings and nowhere else. Every failure is a *[ConnectError].
func ConnectEndpoint(ctx context.Context, s Settings, e Endpoint, o Options) (*pgx.Conn, error) {
	conn, err := connectEndpoint(ctx, s, e, o, s["target_session_attrs"])
	if err != nil {
		return nil, err
	}
	return conn, nil
}

func connectEndpoint(ctx context.Context, s Settings, e Endpoint, o Options, attrs string) (*pgx.Conn, *ConnectError) {
	a := &attempt{settings: s, endpoint: e, options: o, attrs: attrs}
	if e.failure != nil {
		return nil, a.fail(PhaseResolve, e.failure)
	}
	timeout, err := s.connectTimeout(o)
	if err != nil {
		return nil, a.fail(PhaseSettings, err)
	}
	if _, err := s.dialer(); err != nil && e.Socket == "" {
		return nil, a.fail(PhaseSettings, err)
	}
	enc, err := s.encryption(e)
	if err != nil {
		return nil, a.fail(PhaseSettings, err)
	}
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	conn, first := a.run(ctx, enc, enc.first)
	if first == nil || !enc.fallback || enc.config == nil || first.Phase != PhaseTLS && first.Phase != PhaseAuth || ctx.Err() != nil {
		return conn, first
	}
	conn, second := a.run(ctx, enc, !enc.first)
	if second == nil {
		return conn, nil
	}
	// Where pg_hba.conf lets a role in only one way, the refusal of the other way says nothing.
	const notAuthorized = "28000"
	if first.SQLSTATE == notAuthorized || second.Phase == PhaseAuth && second.SQLSTATE != notAuthorized {
		return nil, second
	}
	return nil, first
}

// connectTimeout is for the whole attempt: libpq's connect_timeout, of which 1 means 2 seconds and 0 for ever.
func (s Settings) connectTimeout(o Options) (time.Duration, error) {
	if o.ConnectTimeout > 0 {
		return o.ConnectTimeout, nil
	}
	n, err := s.number("connect_timeout", int(defaultConnectTimeout/time.Second))
	if err != nil || n <= 0 {
		return 0, err
	}
	return time.Duration(max(n, 2)) * time.Second, nil
}

// attempt is one try at one endpoint, encrypted or not.
type attempt struct {
	settings Settings
	endpoint Endpoint
	options  Options
	attrs    string
}

func (a *attempt) fail(phase Phase, err error) *ConnectError {
	e := &ConnectError{Phase: phase, Endpoint: a.endpoint, User: a.settings["user"], Database: a.settings["dbname"], Err: innermost(err)}
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		e.SQLSTATE = pg.Code
	}
	return e
}

// phaseError marks where a dial failed, on its way through pgx. It has no Unwrap: pgx would find a timeout inside, and
// put an error of its own in its place.
type phaseError struct {
	phase Phase
	err   error
}

func (e *phaseError) Error() string { return e.err.Error() }

func (a *attempt) run(ctx context.Context, enc encryption, encrypt bool) (*pgx.Conn, *ConnectError) {
	config, err := a.config()
	if err != nil {
		return nil, a.fail(PhaseSettings, err)
	}
	// TLS is negotiated here and not by pgx, so that its failures are told apart.
	config.DialFunc = func(ctx context.Context, _, _ string) (net.Conn, error) {
		conn, err := a.settings.dial(ctx, a.endpoint, a.options.OSUser)
		if err != nil {
			return nil, &phaseError{PhaseDial, err}
		}
		if !encrypt {
			return conn, nil
		}
		secured, err := enc.negotiate(ctx, conn)
		if err != nil {
			conn.Close()
			return nil, &phaseError{PhaseTLS, err}
		}
		return secured, nil
	}
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return nil, a.startupError(err)
	}
	if err := a.begin(ctx, conn); err != nil {
		Close(conn)
		return nil, a.fail(PhaseSession, err)
	}
	return conn, nil
}

func (a *attempt) startupError(err error) *ConnectError {
	var marked *phaseError
	if errors.As(err, &marked) {
		return a.fail(marked.phase, marked.err)
	}
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "remote error" { // in TLS 1.3 a refused client certificate shows only here
		return a.fail(PhaseTLS, op)
	}
	e := a.fail(PhaseAuth, err)
	const invalidPassword = "28P01"
	if e.SQLSTATE == invalidPassword && a.settings.passwordFor(a.endpoint.host) == "" {
		e.SQLSTATE, e.Err = "", ErrNoPassword
		if _, ignored := a.settings.lookUpPassword(a.endpoint.host); ignored != "" {
			e.Err = fmt.Errorf("%w; %s", ErrNoPassword, ignored)
		}
	}
	return e
}

// config is what pgx needs to know. The host in it is only a label: dialling is done by the caller.
func (a *attempt) config() (*pgx.ConnConfig, error) {
	config, err := blankConfig()
	if err != nil {
		return nil, err
	}
	s, e := a.settings, a.endpoint
	config.Host, config.Port = e.Host, e.Port
	if e.Addr.IsValid() {
		config.Host = e.Addr.String()
	}
	config.Database, config.User, config.Password = s["dbname"], s["user"], s.passwordFor(e.host)
	config.LookupFunc = func(_ context.Context, host string) ([]string, error) { return []string{host}, nil }
	config.ChannelBinding, config.RequireAuth = s["channel_binding"], s["require_auth"]
	config.MinProtocolVersion, config.MaxProtocolVersion = s["min_protocol_version"], s["max_protocol_version"]
	config.RuntimeParams = map[string]string{"client_encoding": "UTF8"}
	if s["options"] != "" {
		config.RuntimeParams["options"] = s["options"]
	}
	if encoding := s["client_encoding"]; encoding != "" && encoding != "auto" {
		config.RuntimeParams["client_encoding"] = encoding
	}
	if name := cmp.Or(a.options.ApplicationName, s["application_name"], s["fallback_application_name"]); name != "" {
		config.RuntimeParams["application_name"] = name
	}
	// One round trip for each statement, and no named prepared statement, which a pooler would lose.
	config.DefaultQueryExecMode = pgx.QueryExecModeExec
	config.StatementCacheCapacity, config.DescriptionCacheCapacity = 0, 0
	// A statement whose context ends is cancelled on the server too.
	config.BuildContextWatcherHandler = func(conn *pgconn.PgConn) ctxwatch.Handler {
		return &pgconn.CancelRequestContextWatcherHandler{Conn: conn, DeadlineDelay: time.Second}
	}
	return config, nil
}

// blankConfig makes a configuration of pgx that owes nothing to the environment. pgx insists on parsing one itself, and
// looks at the environment for what the string does not say; so the string says everything.
func blankConfig() (*pgx.ConnConfig, error) {
	config, err := parsedBlank()
	if err != nil {
		return nil, err
	}
	return config.Copy(), nil
}

const blank = "host=/ port=1 user=x password=x dbname=x passfile=/dev/null connect_timeout=0 sslmode=disable sslcert='' sslkey='' " +
	"sslrootcert='' sslpassword='' sslnegotiation='' sslcertmode=allow sslsni=1 target_session_attrs=any channel_binding=prefer require_auth='' " +
	"min_protocol_version='' max_protocol_version='' application_name='' options='' timezone='' " +
	"default_query_exec_mode=exec statement_cache_capacity=0 description_cache_capacity=0"

var parsedBlank = sync.OnceValues(parseBlank)

func parseBlank() (*pgx.ConnConfig, error) {
	if _, ok := os.LookupEnv("PGSERVICE"); !ok {
		return pgx.ParseConfig(blank)
	}
	// A service is looked up whatever the string says. It gets an empty one, from a pipe, for nothing is written to disk.
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	_, err = w.WriteString("[empty]\n")
	if err := errors.Join(err, w.Close()); err != nil {
		return nil, err
	}
	return pgx.ParseConfig(fmt.Sprintf("%s service=empty servicefile=/dev/fd/%d", blank, r.Fd()))
}

// begin sets up a new session, in one round trip, and sees whether it is what was asked for.
func (a *attempt) begin(ctx context.Context, conn *pgx.Conn) error {
	recovering, readOnly, err := a.setUp(ctx, conn, serverVersion(conn) >= 14)
	var pg *pgconn.PgError
	if errors.As(err, &pg) && pg.Code == "22023" { // the server's system cannot watch a client's connection
		recovering, readOnly, err = a.setUp(ctx, conn, false)
	}
	if err != nil {
		return err
	}
	var right bool
	switch a.attrs {
	case "", "any":
		right = true
	case "read-write":
		right = !recovering && !readOnly
	case "read-only":
		right = recovering || readOnly
	case "primary":
		right = !recovering
	case "standby":
		right = recovering
	default:
		return fmt.Errorf("target_session_attrs=%s is not one of libpq's", quote(a.attrs))
	}
	if !right {
		return fmt.Errorf("%w: %s", ErrWrongServer, a.attrs)
	}
	return nil
}

// setUp never sets anything through a pooler (which is known by answering with a process id of its own): in transaction
// mode the setting would stay with the pooled session and make Synapse's next transaction read-only.
func (a *attempt) setUp(ctx context.Context, conn *pgx.Conn, watchesClients bool) (recovering, readOnly bool, err error) {
	settings := [][2]string{{"lock_timeout", lockTimeout}}
	if watchesClients {
		settings = append(settings, [2]string{"client_connection_check_interval", checkInterval})
	}
	if a.settings["client_encoding"] != "" {
		settings = append(settings, [2]string{"client_encoding", "UTF8"})
	}
	if a.options.ReadOnly {
		settings = append(settings, [2]string{"default_transaction_read_only", "on"})
	}
	var sql strings.Builder
	sql.WriteString("SELECT pg_is_in_recovery(), current_setting('default_transaction_read_only') = 'on'")
	for _, kv := range settings {
		fmt.Fprintf(&sql, ", CASE WHEN pg_backend_pid() = %d THEN set_config('%s', '%s', false) END", int32(conn.PgConn().PID()), kv[0], kv[1])
	}
	rows, err := conn.Query(ctx, sql.String())
	if err != nil {
		return false, false, err
	}
	defer rows.Close()
	for rows.Next() {
		values := rows.RawValues()
		recovering, readOnly = isTrue(rows, values[0], 0), isTrue(rows, values[1], 1)
	}
	return recovering, readOnly, rows.Err()
}

// isTrue reads a boolean in either of the protocol's formats.
func isTrue(rows pgx.Rows, value []byte, column int) bool {
	if rows.FieldDescriptions()[column].Format == pgx.BinaryFormatCode {
		return len(value) == 1 && value[0] == 1
	}
	return string(value) == "t"
}

// serverVersion is the server's major version as it reported it; 0 when it did not.
func serverVersion(conn *pgx.Conn) int {
	text := conn.PgConn().ParameterStatus("server_version")
	if i := strings.IndexFunc(text, func(r rune) bool { return r < '0' || r > '9' }); i >= 0 {
		text = text[:i]
	}
	n, _ := strconv.Atoi(text) // an odd version is as good as none
	return n
}

// closePatience bounds how long the end of a transaction or session may take once its context has ended.
const closePatience = 2 * time.Second

// Close ends a session, and does not wait long for a server that does not answer.
func Close(conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), closePatience)
	defer cancel()
	_ = conn.Close(ctx) // it is gone either way
}
