package engine

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
)

// holder is what the lock file says of the run that holds it. It is emptied when the run has settled everything, so that
// a recorded holder without a lock is the mark of a run that was killed.
type holder struct {
	Run     string    `json:"run"`
	PID     int       `json:"pid"`
	Command string    `json:"command"`
	Started time.Time `json:"started"`
	Target  string    `json:"target"` // for people
	// Recorded: a plan of the run is in the journal, so that a kill leaves something to settle.
	Recorded bool `json:"recorded"`
}

// lock is the file that keeps a second doctor of this machine from the same target.
type lock struct {
	file   *os.File
	holder holder
	last   holder // that left its mark; empty when the last run ended well
}

// killed is the run that held the lock and was killed; empty when the last one ended well.
func (l *lock) killed() string { return l.last.Run }

// lockKey names the lock of a plan's target: the server's identity and the database, or the files that it edits.
func (e *Engine) lockKey(p doctor.Plan) string {
	for _, d := range e.Target.Databases {
		if d.Label == p.Database && d.Engine == doctor.Postgres {
			return serverKey(d) + "/" + d.Settings["dbname"]
		}
	}
	var files []string
	for _, s := range p.Steps {
		if s.EditFile == nil {
			continue
		}
		path, err := filepath.EvalSymlinks(s.EditFile.Path)
		if err != nil {
			path = s.EditFile.Path
		}
		files = append(files, path)
	}
	key := onlyFiles + strings.Join(files, ":")
	if needsAdmin(p) { // files and roles of one server, which another configuration would not lead to
		for _, d := range e.Target.Databases {
			if d.Engine == doctor.Postgres && concerns(p, d.Label) {
				return serverKey(d) + "/" + key
			}
		}
	}
	return key
}

// serverKey is the server's identity. It must be the same before and after a fix that lets Synapse in.
func serverKey(d *doctor.Database) string {
	if d.SystemID != "" {
		return d.SystemID
	}
	host, port := address(d)
	return fmt.Sprintf("%s:%d", host, port)
}

// onlyFiles begins the key of a plan that changes no database. It can be settled whatever the target is.
const onlyFiles = "files/"

func lockPath(stateDir, key string) string {
	sum := sha256.Sum256([]byte(key))
	return filepath.Join(stateDir, "locks", hex.EncodeToString(sum[:8])+".lock")
}

// busy is a target that another doctor is at work on.
type busy struct{ Refusal }

func (b *busy) Unwrap() error { return &b.Refusal }

func busyWith(format string, args ...any) error { return &busy{Refusal{fmt.Sprintf(format, args...)}} }

// acquire takes the lock of a target, or says who holds it.
func acquire(stateDir, key string, h holder) (*lock, error) {
	path := lockPath(stateDir, key)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("make the lock: %w", err)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("make the lock: %w", err)
	}
	if err := flock(f); err != nil {
		defer f.Close()
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		var other holder
		if json.NewDecoder(f).Decode(&other) != nil {
			return nil, busyWith("another synapse-doctor is at work on %s", h.Target)
		}
		return nil, busyWith("another synapse-doctor is at work on %s: run %s (%s), process %d, since %s",
			h.Target, other.Run, other.Command, other.PID, other.Started.Local().Format(time.DateTime))
	}
	l := &lock{file: f, holder: h}
	if json.NewDecoder(f).Decode(&l.last) != nil || !l.last.Recorded {
		l.last = holder{}
	}
	if l.last.Recorded {
		return l, nil // its mark stays until it is settled
	}
	if err := l.write(h); err != nil {
		f.Close()
		return nil, err
	}
	return l, nil
}

// record leaves the mark that tells of this run if it is killed from here on.
func (l *lock) record() error {
	l.holder.Recorded = true
	return l.write(l.holder)
}

func (l *lock) write(h holder) error {
	text, err := json.Marshal(h)
	if err == nil {
		err = l.file.Truncate(0)
	}
	if err == nil {
		_, err = l.file.WriteAt(append(text, '\n'), 0)
	}
	if err == nil {
		err = l.file.Sync()
	}
	if err != nil {
		return fmt.Errorf("write the lock %s: %w", l.file.Name(), err)
	}
	return nil
}

// flock waits a moment, since a check that looks for interrupted runs holds the lock for an instant.
func flock(f *os.File) error {
	var err error
	for range 10 {
		if err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); !errors.Is(err, syscall.EWOULDBLOCK) {
			return err
		}
		time.Sleep(10 * time.Millisecond)
	}
	return err
}

// release gives the lock up. A run that leaves something to settle keeps its mark in the file.
func (l *lock) release(settled bool) {
	if settled {
		l.file.Truncate(0)
		l.file.Sync()
	}
	l.file.Close()
}

// Interrupted is a run that was killed while it applied a fix.
type Interrupted struct {
	Run     string
	Target  string
	Started time.Time
}

// FindInterrupted looks for killed runs in a state directory. It writes nothing.
func FindInterrupted(stateDir string) []Interrupted {
	paths, _ := filepath.Glob(filepath.Join(stateDir, "locks", "*.lock"))
	var found []Interrupted
	for _, path := range paths {
		f, err := os.Open(path)
		if err != nil {
			continue
		}
		var h holder
		if json.NewDecoder(f).Decode(&h) == nil && h.Recorded && syscall.Flock(int(f.Fd()), syscall.LOCK_SH|syscall.LOCK_NB) == nil {
			found = append(found, Interrupted{Run: h.Run, Target: h.Target, Started: h.Started})
		}
		f.Close()
	}
	return found
}

// forgetHolders empties the lock files that nobody holds, the given paths excepted.
func forgetHolders(stateDir string, except map[string]bool) error {
	paths, _ := filepath.Glob(filepath.Join(stateDir, "locks", "*.lock"))
	for _, path := range paths {
		if except[path] {
			continue
		}
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			return fmt.Errorf("open the lock %s: %w", path, err)
		}
		if syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil {
			err = f.Truncate(0)
		}
		f.Close()
		if err != nil {
			return fmt.Errorf("empty the lock %s: %w", path, err)
		}
	}
	return nil
}

// advisoryKey is the advisory lock that keeps doctors of other machines from the same database: "syndoc" in ASCII.
const advisoryKey int64 = 0x73796e646f63

// lockDatabase takes the advisory lock for the life of the session.
func lockDatabase(ctx context.Context, c conn) error {
	var got bool
	if err := c.QueryRow(ctx, `SELECT pg_try_advisory_lock($1)`, advisoryKey).Scan(&got); err != nil {
		return fmt.Errorf("take the advisory lock: %w", err)
	}
	if got {
		return nil
	}
	var who string
	err := c.QueryRow(ctx, `SELECT coalesce(string_agg(format('%s (process %s of the server)', a.application_name, a.pid), ', '), '')
		FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
		AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
		AND (l.classid::bigint << 32) | l.objid::bigint = $1`, advisoryKey).Scan(&who)
	if err != nil || who == "" {
		who = "another synapse-doctor"
	}
	return busyWith("%s is at work on this database", who)
}

// holdsLock must hold in every transaction: behind a pooler that hands each one to another session, it does not.
const holdsLock = `SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND granted AND pid = pg_backend_pid()
  AND (classid::bigint << 32) | objid::bigint = $1)`

// unlockDatabase gives the advisory lock up before the session ends. The server ends a session some time after its client
// has closed it, and until then the next plan, or the next run, would be refused because of this one.
func unlockDatabase(ctx context.Context, c conn) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), unlockPatience)
	defer cancel()
	c.Exec(ctx, `SELECT pg_advisory_unlock($1) WHERE (`+holdsLock+`)`, advisoryKey) // at the latest it goes with the session
}

const unlockPatience = 2 * time.Second

// endLeftovers ends the sessions that a run left on the server when it was killed.
func endLeftovers(ctx context.Context, d *doctor.Database, run string) error {
	if err := asLogin(ctx, d, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
		WHERE application_name = $1 AND pid <> pg_backend_pid() AND usename = session_user`, doctor.ApplicationName(run))
		return err
	}); err != nil {
		return fmt.Errorf("end what run %s left on the server: %w", run, err)
	}
	var left string
	for range waits {
		if err := asLogin(ctx, d, func(tx pgx.Tx) error {
			return tx.QueryRow(ctx, `SELECT coalesce(string_agg(pid::text, ', '), '') FROM pg_stat_activity
			WHERE application_name = $1 AND pid <> pg_backend_pid() AND usename = session_user`,
				doctor.ApplicationName(run)).Scan(&left)
		}); err != nil {
			return fmt.Errorf("wait for what run %s left on the server: %w", run, err)
		}
		if left == "" {
			return nil
		}
		if err := sleep(ctx, wait); err != nil {
			return err
		}
	}
	return refuse("what run %s left on the server does not end: process %s of the server", run, left)
}

// How long the engine waits for what ends by itself: half a minute.
const (
	wait  = 50 * time.Millisecond
	waits = 600
)

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}
