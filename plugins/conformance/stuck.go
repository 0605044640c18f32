package conformance

import (
	"net"
	"sync"

	"github.com/jackc/pgx/v5/pgproto3"
)

// stuckServer speaks as much of PostgreSQL's protocol as a login takes, and then answers no query: what a check meets when
// somebody holds a lock. It listens to requests to cancel, and knows who is still connected.
type stuckServer struct {
	listener net.Listener

	mu       sync.Mutex
	sessions map[uint32]net.Conn
	ever     int
	last     uint32
	changed  chan struct{} // closed when a session begins to wait, or ends
}

func newStuckServer() (*stuckServer, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &stuckServer{listener: l, sessions: map[uint32]net.Conn{}, changed: make(chan struct{})}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go s.serve(conn)
		}
	}()
	return s, nil
}

func (s *stuckServer) address() string { return s.listener.Addr().String() }

func (s *stuckServer) serve(conn net.Conn) {
	defer conn.Close()
	b := pgproto3.NewBackend(conn, conn)
	for {
		message, err := b.ReceiveStartupMessage()
		if err != nil {
			return
		}
		switch m := message.(type) {
		case *pgproto3.SSLRequest, *pgproto3.GSSEncRequest:
			if _, err := conn.Write([]byte{'N'}); err != nil {
				return
			}
			continue
		case *pgproto3.CancelRequest:
			s.cancel(m.ProcessID)
			return
		}
		break
	}
	number := s.begin(conn)
	defer s.end(number)
	b.Send(&pgproto3.AuthenticationOk{})
	for _, p := range [][2]string{{"server_version", "15.0"}, {"server_encoding", "UTF8"}, {"client_encoding", "UTF8"},
		{"standard_conforming_strings", "on"}, {"integer_datetimes", "on"}, {"DateStyle", "ISO, MDY"}, {"TimeZone", "UTC"}} {
		b.Send(&pgproto3.ParameterStatus{Name: p[0], Value: p[1]})
	}
	b.Send(&pgproto3.BackendKeyData{ProcessID: number, SecretKey: []byte{0, 0, 0, 1}})
	b.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
	if b.Flush() != nil {
		return
	}
	for {
		m, err := b.Receive()
		if err != nil {
			return
		}
		if _, bye := m.(*pgproto3.Terminate); bye {
			return
		}
	}
}

func (s *stuckServer) begin(conn net.Conn) uint32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last++
	s.ever++
	s.sessions[s.last] = conn
	s.tell()
	return s.last
}

func (s *stuckServer) end(number uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.sessions, number)
	s.tell()
}

// cancel ends a session's query with an error, as PostgreSQL does.
func (s *stuckServer) cancel(number uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if conn := s.sessions[number]; conn != nil {
		e := &pgproto3.ErrorResponse{Severity: "ERROR", SeverityUnlocalized: "ERROR", Code: "57014", Message: "canceling statement due to user request"}
		b, err := e.Encode(nil)
		if err == nil {
			b, err = (&pgproto3.ReadyForQuery{TxStatus: 'I'}).Encode(b)
		}
		if err == nil {
			_, _ = conn.Write(b)
		}
	}
}

func (s *stuckServer) tell() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// connected is how many sessions there are, and were; and what is closed when that changes.
func (s *stuckServer) connected() (now, ever int, changed <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.sessions), s.ever, s.changed
}

func (s *stuckServer) close() {
	s.listener.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, conn := range s.sessions {
		conn.Close()
	}
}
