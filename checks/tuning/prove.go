package tuning

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
)

// A server that does not start is the worst that a change of settings can do. So the server's own program tries the new
// configuration first, in a directory of its own that has no data: it reads the real files with the new lines behind them,
// says how much shared memory they ask for (postgres -C, 15 on), and has the kernel give it that much (--check, which initdb
// uses to find out what a machine can do). Neither touches the running server. What stays unproved is what only a start
// with the data does: listening at its addresses, and recovery.

const proveName = "prove"

// prefix begins the parameters that are settings.
const prefix = "set."

// provePatience bounds each of the two calls.
const provePatience = time.Minute

// binary is the program of the running server. Its name comes first in the file that holds how it was started.
func (s *server) binary() string {
	if s.db.DataDir == "" {
		return ""
	}
	words := optWords(s.db.DataDir)
	if len(words) == 0 || !filepath.IsAbs(words[0]) {
		return ""
	}
	info, err := os.Stat(words[0])
	if err != nil || !info.Mode().IsRegular() || info.Mode()&0o111 == 0 {
		return ""
	}
	return words[0]
}

// provable: the program is here, and this process may act as the server's user.
func (s *server) provable() bool {
	if s.binary() == "" {
		return false
	}
	_, err := accountOf(s.db.DataDir)
	return err == nil
}

func (s *server) try(advices []advice) doctor.Step {
	op := &doctor.OperationStep{Name: proveName, Params: map[string]string{"database": s.db.Label, "memory": strconv.FormatInt(s.machine.memory, 10)},
		Resumes: "it is tried again"}
	var flags []string
	for _, a := range advices {
		op.Params[prefix+a.name] = a.set
		flags = append(flags, fmt.Sprintf("-c %s=%s", a.name, a.set))
	}
	call := s.binary() + " %s -D A_DIRECTORY_WITHOUT_DATA -c config_file=… " + strings.Join(flags, " ")
	if s.major() >= 15 {
		op.Statements = append(op.Statements, fmt.Sprintf(call, "-C shared_memory_size"))
	}
	op.Statements = append(op.Statements, fmt.Sprintf(call, strings.Join(checkFlags(s.major()), " ")))
	return doctor.Step{Title: "Try whether the server would start with it, beside the one that runs", Operation: op}
}

// checkFlags have a server get its shared memory and end.
func checkFlags(major int) []string {
	if major < 15 {
		return []string{"--boot", "-x0"}
	}
	return []string{"--check"}
}

// optWords are the words of postmaster.opts: the program, and its arguments in double quotes.
func optWords(dir string) []string {
	text, err := os.ReadFile(filepath.Join(dir, "postmaster.opts"))
	if err != nil {
		return nil
	}
	program, rest, _ := strings.Cut(strings.TrimSpace(string(text)), ` "`)
	words := []string{strings.Trim(program, `"`)}
	if rest != "" {
		words = append(words, strings.Split(strings.TrimSuffix(rest, `"`), `" "`)...)
	}
	return words
}

// optSettings are the settings among the arguments of a server, as arguments that every mode of the program understands.
func optSettings(words []string) []string {
	var flags []string
	short := map[string]string{"-B": "shared_buffers", "-N": "max_connections"}
	for i := 1; i < len(words); i++ {
		w := words[i]
		next := func() string {
			if i++; i < len(words) {
				return words[i]
			}
			return ""
		}
		switch {
		case w == "-c":
			flags = append(flags, "-c", next())
		case strings.HasPrefix(w, "--") && strings.Contains(w, "="):
			flags = append(flags, "-c", strings.ReplaceAll(strings.SplitN(w[2:], "=", 2)[0], "-", "_")+"="+strings.SplitN(w, "=", 2)[1])
		case short[w] != "":
			flags = append(flags, "-c", short[w]+"="+next())
		}
	}
	return flags
}

// accountOf is the owner of a data directory, as whom its server runs; nil for this process's own user. The server's
// program refuses to run as root.
func accountOf(dataDir string) (*syscall.Credential, error) {
	info, err := os.Stat(dataDir)
	if err != nil {
		return nil, err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case !ok || stat.Uid == 0:
		return nil, errors.New("its owner is not known")
	case int(stat.Uid) == os.Geteuid():
		return nil, nil
	case os.Geteuid() != 0:
		return nil, fmt.Errorf("it belongs to user %d", stat.Uid)
	}
	account := &syscall.Credential{Uid: stat.Uid, Gid: stat.Gid}
	// Its other groups let it at files such as the key of Debian's certificate.
	if u, err := user.LookupId(strconv.Itoa(int(stat.Uid))); err == nil {
		groups, _ := u.GroupIds()
		for _, g := range groups {
			if id, err := strconv.ParseUint(g, 10, 32); err == nil {
				account.Groups = append(account.Groups, uint32(id))
			}
		}
	}
	return account, nil
}

// prove is the operation. It changes nothing, and an error means that the plan must not go on.
func prove(ctx context.Context, t *doctor.Target, step doctor.OperationStep, _ string, h doctor.OperationHost) error {
	d := t.Database(step.Params["database"])
	if d == nil || t.AdminIn(d) == nil || d.DataDir == "" {
		return doctor.Unchanged("the server can no longer be reached as when the plan was made")
	}
	trial := trial{dataDir: d.DataDir, set: map[string]string{}}
	for name, value := range step.Params {
		if setting, ok := strings.CutPrefix(name, prefix); ok {
			trial.set[setting] = value
		}
	}
	sound := false
	err := t.AdminIn(d).Read(ctx, func(tx pgx.Tx) error {
		if err := tx.QueryRow(ctx, noFaults).Scan(&sound); err != nil {
			return err
		}
		return tx.QueryRow(ctx, `SELECT current_setting('server_version_num')::int / 10000, current_setting('config_file')`).
			Scan(&trial.major, &trial.configFile)
	})
	if err != nil {
		return doctor.Unchanged("ask the server for its files: %v", err)
	}
	if !sound {
		return doctor.Unchanged("%s", faults)
	}
	need, err := trial.run(ctx)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		return doctor.Unchanged("the server would not start with it, beside the one that runs: %v", err)
	}
	if memory, _ := strconv.ParseInt(step.Params["memory"], 10, 64); memory > 0 && need > memory*3/4 {
		return doctor.Unchanged("the server would ask for %s of shared memory, and the machine has %s", about(need), about(memory))
	}
	if need > 0 {
		h.Progress(doctor.Progress{Text: fmt.Sprintf("the server starts with %s of shared memory", about(need))})
	}
	return nil
}

// trial is a start of the server's program in an empty directory.
type trial struct {
	dataDir, configFile string
	major               int
	set                 map[string]string
	account             *syscall.Credential
	dir                 string
	lock                *os.File
}

// run returns the shared memory that the server asks for; 0 before 15, which can't say it.
func (r *trial) run(ctx context.Context) (need int64, err error) {
	words := optWords(r.dataDir)
	if len(words) == 0 {
		return 0, errors.New("how it was started can't be read from postmaster.opts")
	}
	if r.account, err = accountOf(r.dataDir); err != nil {
		return 0, fmt.Errorf("%s: %w", r.dataDir, err)
	}
	if err := r.prepare(); err != nil {
		return 0, fmt.Errorf("make a directory to try it in: %w", err)
	}
	defer r.remove()
	flags := append([]string{"-D", r.dir, "-c", "config_file=" + r.configFile}, optSettings(words)...)
	// Certificates are in the data directory, and the huge pages that are reserved are the running server's.
	flags = append(flags, "-c", "data_directory="+r.dir, "-c", "ssl=off", "-c", "huge_pages=try")
	if r.major >= 15 {
		out, err := r.call(ctx, words[0], append([]string{"-C", "shared_memory_size"}, flags...))
		if err != nil {
			return 0, err
		}
		megabytes, err := strconv.ParseInt(strings.TrimSpace(out), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("postgres -C shared_memory_size said %q", out)
		}
		need = megabytes * mib
	}
	_, err = r.call(ctx, words[0], append(checkFlags(r.major), flags...))
	return need, err
}

// prepare makes a directory that the program takes for a cluster's: the version, the control file, two folders, and the
// real postgresql.auto.conf with the new lines at its end.
func (r *trial) prepare() (err error) {
	base := os.TempDir()
	if r.account != nil {
		base = "/tmp" // root's own may be closed to others
	}
	r.sweep(base)
	if err := r.makeDir(base); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			r.remove()
		}
	}()
	// The directory belongs to the server's user, who must not have root read another file for him, or write to one.
	real, err := os.OpenRoot(r.dataDir)
	if err != nil {
		return err
	}
	defer real.Close()
	auto, err := real.ReadFile("postgresql.auto.conf")
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	var b bytes.Buffer
	b.Write(auto)
	b.WriteString("\n")
	for _, name := range slices.Sorted(maps.Keys(r.set)) {
		fmt.Fprintf(&b, "%s = '%s'\n", name, strings.ReplaceAll(r.set[name], "'", "''"))
	}
	made := []string{"global", "pg_notify", "pg_dynshmem"}
	for _, name := range made {
		if err := os.Mkdir(filepath.Join(r.dir, name), 0o700); err != nil {
			return err
		}
	}
	files := map[string][]byte{"postgresql.auto.conf": b.Bytes()}
	for _, name := range []string{"PG_VERSION", "global/pg_control"} {
		if files[name], err = real.ReadFile(name); err != nil {
			return err
		}
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(r.dir, name), content, 0o600); err != nil {
			return err
		}
		made = append(made, name)
	}
	return r.give(append(made, "")) // the directory itself last: until then nobody else gets in
}

// give hands what was made to the server's user.
func (r *trial) give(names []string) error {
	if r.account == nil {
		return nil
	}
	for _, name := range names {
		if err := os.Chown(filepath.Join(r.dir, name), int(r.account.Uid), int(r.account.Gid)); err != nil {
			return err
		}
	}
	return nil
}

func (r *trial) call(ctx context.Context, program string, args []string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, provePatience)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = r.dir
	cmd.Env = []string{"LC_ALL=C", "PATH=" + os.Getenv("PATH")}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: r.account, Setsid: true} // the terminal is none of its
	cmd.WaitDelay = 5 * time.Second
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s: %w: %s", filepath.Base(program), err, firstLine(said.String()))
	}
	return out.String(), nil
}

// firstLine is what went wrong, without the time and the number of the process before it.
func firstLine(text string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(text), "\n")
	for _, word := range []string{"FATAL:", "ERROR:", "PANIC:", "LOG:"} {
		if _, rest, ok := strings.Cut(line, word); ok {
			return strings.TrimSpace(rest)
		}
	}
	return line
}
