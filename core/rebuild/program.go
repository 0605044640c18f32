package rebuild

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
)

// programs are the pg_dump and the pg_restore that carry the schema.
type programs struct {
	dump, restore string
	major         int
}

// timeoutsKnown is the major version whose pg_restore sets transaction_timeout first, which no older server knows.
const timeoutsKnown = 17

// findPrograms looks for a pg_dump of the server's major version, else of the next one that can talk to it: $PATH first, then
// next to the server's own programs, then where the packages of the distributions put them.
func findPrograms(ctx context.Context, serverVersion int, dataDir string) (programs, error) {
	server := serverVersion / 10000
	var found []programs
	for _, dir := range programDirs(dataDir) {
		p := programs{dump: filepath.Join(dir, "pg_dump"), restore: filepath.Join(dir, "pg_restore")}
		major, err := majorOf(ctx, p.dump)
		if ctx.Err() != nil {
			return programs{}, context.Cause(ctx)
		}
		if err != nil {
			continue
		}
		if other, err := majorOf(ctx, p.restore); err != nil || other != major {
			continue
		}
		p.major = major
		if major == server {
			return p, nil
		}
		if major > server && (server >= timeoutsKnown || major < timeoutsKnown) {
			found = append(found, p)
		}
	}
	if ctx.Err() != nil {
		return programs{}, context.Cause(ctx)
	}
	if len(found) == 0 {
		return programs{}, doctor.Unchanged("pg_dump and pg_restore of PostgreSQL %d are needed to carry the schema, and were not found: install the client programs of that version (Debian: postgresql-client-%[1]d)", server)
	}
	return slices.MinFunc(found, func(a, b programs) int { return a.major - b.major }), nil
}

func programDirs(dataDir string) []string {
	dirs := filepath.SplitList(os.Getenv("PATH"))
	if dataDir != "" {
		if dir := serverBinDir(dataDir); dir != "" {
			dirs = append(dirs, dir)
		}
	}
	for _, pattern := range []string{"/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/usr/lib/postgresql*/bin", "/usr/local/pgsql*/bin", "/opt/*/pgsql*/bin"} {
		more, _ := filepath.Glob(pattern) // the patterns are well-formed
		dirs = append(dirs, more...)
	}
	return slices.DeleteFunc(dirs, func(dir string) bool { return !filepath.IsAbs(dir) })
}

// serverBinDir is where the running server's program is; empty when that can't be seen.
func serverBinDir(dataDir string) string {
	lock, err := os.ReadFile(filepath.Join(dataDir, "postmaster.pid"))
	if err != nil {
		return ""
	}
	pid, _, _ := strings.Cut(string(lock), "\n")
	if _, err := strconv.Atoi(pid); err != nil {
		return ""
	}
	exe, err := os.Readlink(filepath.Join("/proc", pid, "exe"))
	if err != nil {
		return ""
	}
	return filepath.Dir(exe)
}

var versionPattern = regexp.MustCompile(`\(PostgreSQL\) (\d+)`)

// majorOf asks a program for its major version. Debian's wrapper, which picks a version by rules of its own, is none.
func majorOf(ctx context.Context, program string) (int, error) {
	real, err := filepath.EvalSymlinks(program)
	if err != nil {
		return 0, err
	}
	if filepath.Base(real) == "pg_wrapper" {
		return 0, errors.New("it is a wrapper")
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, program, "--version").Output()
	if err != nil {
		return 0, err
	}
	m := versionPattern.FindSubmatch(out)
	if m == nil {
		return 0, fmt.Errorf("%s --version said %q", program, out)
	}
	return strconv.Atoi(string(m[1]))
}

// programError is a program that ended with an error.
type programError struct {
	program string
	said    string
	err     error
}

func (e *programError) Error() string {
	if e.said == "" {
		return fmt.Sprintf("%s: %v", e.program, e.err)
	}
	return fmt.Sprintf("%s: %s", e.program, e.said)
}

func (e *programError) Unwrap() error { return e.err }

// workplace is a directory for the schema's dump, of this call alone. Only its user reads it; it holds no rows.
type workplace struct {
	dir     string
	account *syscall.Credential // as whom the programs run; nil: as this process
}

// newWorkplace makes the directory anew: one that a killed call has left is removed first.
func (k *task) newWorkplace() (*workplace, error) {
	w := &workplace{}
	if name := k.admin.OSUser; name != "" {
		account, err := accountOf(name)
		if err != nil {
			return nil, fmt.Errorf("run pg_dump as %s: %w", name, err)
		}
		if int(account.Uid) != os.Geteuid() {
			w.account = account
		}
	}
	w.dir = filepath.Join(w.temporary(), "synapse-doctor-"+k.p.fresh)
	if err := w.remove(); err != nil {
		return nil, err
	}
	if err := os.Mkdir(w.dir, 0o700); err != nil {
		return nil, fmt.Errorf("make a directory for the schema: %w", err)
	}
	if w.account != nil {
		if err := os.Chown(w.dir, int(w.account.Uid), int(w.account.Gid)); err != nil {
			return nil, fmt.Errorf("make a directory for the schema: %w", err)
		}
	}
	return w, nil
}

// temporary is a directory for temporary files in which the account can get at its own: root's may be closed to it.
func (w *workplace) temporary() string {
	if w.account == nil {
		return os.TempDir()
	}
	for _, dir := range []string{os.TempDir(), "/tmp", "/var/tmp"} {
		if w.reaches(dir) {
			return dir
		}
	}
	return os.TempDir()
}

// reaches reports whether the account may pass through the directory and all above it.
func (w *workplace) reaches(dir string) bool {
	for {
		info, err := os.Stat(dir)
		if err != nil {
			return false
		}
		stat, ok := info.Sys().(*syscall.Stat_t)
		if !ok {
			return false
		}
		passes := info.Mode().Perm()&0o001 != 0
		switch {
		case stat.Uid == w.account.Uid:
			passes = info.Mode().Perm()&0o100 != 0
		case stat.Gid == w.account.Gid:
			passes = info.Mode().Perm()&0o010 != 0
		}
		if !passes {
			return false
		}
		above := filepath.Dir(dir)
		if above == dir {
			return true
		}
		dir = above
	}
}

// remove removes the directory. What somebody else has put in its place is not touched.
func (w *workplace) remove() error {
	info, err := os.Lstat(w.dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !info.IsDir() || !ok || int(stat.Uid) != os.Geteuid() && (w.account == nil || stat.Uid != w.account.Uid) {
		return fmt.Errorf("%s is there and not the doctor's: remove it, then run this again", w.dir)
	}
	return os.RemoveAll(w.dir)
}

func accountOf(name string) (*syscall.Credential, error) {
	u, err := user.Lookup(name)
	if _, numeric := strconv.Atoi(name); numeric == nil {
		u, err = user.LookupId(name)
	}
	if err != nil {
		return nil, err
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return nil, err
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return nil, err
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
}

// run runs one of PostgreSQL's programs on a database. It gets its connection from a file in the workplace and the password
// in its environment, never as an argument. It ends with ctx, and when this process dies.
func (k *task) run(ctx context.Context, w *workplace, out io.Writer, database, program string, args ...string) error {
	service := filepath.Join(w.dir, "service")
	text, env := k.connection()
	if err := os.WriteFile(service, []byte(text), 0o600); err != nil {
		return err
	}
	if w.account != nil {
		if err := os.Chown(service, int(w.account.Uid), int(w.account.Gid)); err != nil {
			return err
		}
	}
	cmd := exec.CommandContext(ctx, program, append(args, "--no-password")...)
	cmd.Dir = w.dir
	cmd.Env = append(env, "PGSERVICEFILE="+service, "PGSERVICE=doctor", "PGDATABASE="+database, "LC_ALL=C", "PATH="+os.Getenv("PATH"))
	cmd.SysProcAttr = childAttributes()
	cmd.SysProcAttr.Credential = w.account
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) } // its helpers too
	cmd.WaitDelay = 5 * time.Second
	said := &tail{}
	cmd.Stdout, cmd.Stderr = out, said
	ended := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // the kernel's "parent" is the thread
		defer runtime.UnlockOSThread()
		ended <- cmd.Run()
	}()
	err := <-ended
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		return &programError{filepath.Base(program), said.String(), err}
	}
	return nil
}

// connection is the administrator's connection as a service file, and what goes into the environment instead. The service
// says nothing of the database, which a file could not name exactly.
func (k *task) connection() (file string, env []string) {
	var b strings.Builder
	b.WriteString("[doctor]\n")
	for name, value := range k.admin.Settings {
		switch name {
		case "dbname", "application_name", "fallback_application_name", "options", "client_encoding", "service", "servicefile":
		case "password":
			env = append(env, "PGPASSWORD="+value)
		default:
			if value != "" && !strings.ContainsAny(value, "\r\n") {
				fmt.Fprintf(&b, "%s=%s\n", name, value)
			}
		}
	}
	options := strings.TrimSpace(k.admin.Settings["options"] + " -c statement_timeout=0 -c idle_in_transaction_session_timeout=0" + k.memory)
	return b.String(), append(env, "PGAPPNAME="+k.admin.Options().ApplicationName, "PGOPTIONS="+options)
}

// tail keeps the last lines of what a program says.
type tail struct{ bytes.Buffer }

const tailBytes = 4000

func (t *tail) Write(p []byte) (int, error) {
	n, err := t.Buffer.Write(p)
	if over := t.Len() - tailBytes; over > 0 {
		t.Next(over)
	}
	return n, err
}

// String is one line: what the program said first is what went wrong.
func (t *tail) String() string {
	return strings.Join(strings.Fields(strings.ToValidUTF8(t.Buffer.String(), "?")), " ")
}
