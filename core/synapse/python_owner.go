package synapse

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// account is a user and a group of this machine.
type account struct{ uid, gid uint32 }

func (a account) String() string {
	id := strconv.Itoa(int(a.uid))
	if u, err := user.LookupId(id); err == nil {
		return u.Username
	}
	return id
}

// ownerOf is nil when it can't be told.
func ownerOf(path string) *account {
	info, err := os.Lstat(path)
	if err != nil {
		return nil
	}
	return accountOf(info)
}

func accountOf(info fs.FileInfo) *account {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return nil
	}
	return &account{stat.Uid, stat.Gid}
}

// runAs decides for whom the interpreter is started; nil stands for the user of this process. Nobody's code is run with
// rights that its author lacks: any user can make a virtualenv, and a process that looks like Synapse.
func runAs(c candidate, euid int) (*account, error) {
	t, err := trailOf(c.path)
	if err != nil {
		return nil, err
	}
	others := slices.DeleteFunc(t.owners, func(a account) bool { return a.uid == 0 || int(a.uid) == euid })
	switch {
	case euid != 0 && (len(others) == 0 || c.named):
		return nil, nil
	case euid != 0:
		return nil, fmt.Errorf("it belongs to %s, so it is not run for another user: run the doctor as root or as %[1]s", others[0])
	case c.runBy != nil && c.runBy.uid != 0:
		return c.runBy, nil // who runs it already
	case len(others) == 1:
		return &others[0], nil
	case len(others) > 1:
		return nil, fmt.Errorf("parts of it belong to several users (%s and %s), so it is not run", others[0], others[1])
	case t.shared != "":
		return nil, fmt.Errorf("a group may write to %s, so it is not run as root", t.shared)
	}
	return nil, nil
}

// trail is who decides what an interpreter does when it starts.
type trail struct {
	owners []account // each user once
	shared string    // something of root's that a group may write to
}

// trailOf looks at all folders, links and files that lead to the interpreter and to its installed modules.
func trailOf(python string) (trail, error) {
	var t trail
	resolved, err := filepath.EvalSymlinks(python)
	if err != nil {
		return t, err
	}
	paths := []string{python}
	for _, program := range []string{python, resolved} {
		prefix := filepath.Dir(filepath.Dir(program))
		paths = append(paths, filepath.Join(prefix, "pyvenv.cfg"))
		for _, modules := range []string{"lib*/*/site-packages", "lib*/*/dist-packages", "local/lib*/*/dist-packages"} {
			found, _ := filepath.Glob(filepath.Join(prefix, modules))
			paths = append(paths, found...)
		}
	}
	for _, path := range paths {
		if err := along(path, t.add); err != nil && (path == python || !errors.Is(err, fs.ErrNotExist)) {
			return t, err
		}
	}
	return t, nil
}

func (t *trail) add(at string, info fs.FileInfo) error {
	a := accountOf(info)
	if a == nil {
		return nil
	}
	if !slices.ContainsFunc(t.owners, func(o account) bool { return o.uid == a.uid }) {
		t.owners = append(t.owners, *a)
	}
	if info.Mode()&(fs.ModeSymlink|fs.ModeSticky) != 0 {
		return nil
	}
	if info.Mode().Perm()&0o002 != 0 {
		return fmt.Errorf("everyone may write to %s, so it is not run", at)
	}
	if a.uid == 0 && a.gid != 0 && info.Mode().Perm()&0o020 != 0 && !staff(a.gid) {
		t.shared = at
	}
	return nil
}

// staff reports whether it is the group to which Debian gives /usr/local, whose members count as good as root.
func staff(gid uint32) bool {
	g, err := user.LookupGroupId(strconv.Itoa(int(gid)))
	return err == nil && g.Name == "staff"
}

// along calls visit for everything that the path leads through, the links and what they lead to.
func along(path string, visit func(at string, info fs.FileInfo) error) error {
	rest := strings.Split(filepath.Clean(path), "/")
	at, links := "/", 0
	for len(rest) > 0 {
		next := filepath.Join(at, rest[0])
		rest = rest[1:]
		info, err := os.Lstat(next)
		if err != nil {
			return err
		}
		if err := visit(next, info); err != nil {
			return err
		}
		if info.Mode()&fs.ModeSymlink == 0 {
			at = next
			continue
		}
		if links++; links > 40 {
			return fmt.Errorf("%s: too many links", path)
		}
		target, err := os.Readlink(next)
		if err != nil {
			return err
		}
		if filepath.IsAbs(target) {
			at = "/"
		}
		rest = append(strings.Split(target, "/"), rest...)
	}
	return nil
}
