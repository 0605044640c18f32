package synapse

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"syscall"
)

// account is for whom the interpreter is started; nil stands for the user of this process. Whoever it is gets to see the
// database's password, so it must be somebody who could read it before: any user can make a process that looks like
// Synapse.
func (u Update) account(ctx context.Context) (*account, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	as := u.Python.as
	if u.User != "" {
		peer, err := accountNamed(u.User)
		if err != nil {
			return nil, &UpdateError{Reason: fmt.Sprintf("run %s as %s: %v", updateProgram, u.User, err), Err: err}
		}
		if as == nil || as.uid != peer.uid {
			// The interpreter's owner decides what it does, whoever runs it.
			if err := u.trusts(ctx, as); err != nil {
				return nil, err
			}
			as = peer
		}
	}
	if err := u.trusts(ctx, as); err != nil {
		return nil, err
	}
	return as, nil
}

// trusts returns an error unless the account may be handed the password.
func (u Update) trusts(ctx context.Context, as *account) error {
	if as == nil || as.uid == 0 || u.Python.named || u.Args["password"] == "" && u.Args["sslpassword"] == "" {
		return nil
	}
	for _, file := range u.Private {
		if as.may(ctx, "-w", file) {
			return nil
		}
	}
	if u.PasswordFile != "" && as.may(ctx, "-r", u.PasswordFile) {
		return nil
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return &UpdateError{Reason: fmt.Sprintf("%s (%s) would be run as %s, who has no right to see the database's password, so it is not run: where it is Synapse's all the same, name it with --synapse-python",
		u.Python.Path, u.Python.Found, as)}
}

// may asks the kernel, for whom folders and access lists count too. What can't be asked is no.
func (a *account) may(ctx context.Context, test, file string) bool {
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", `test "$1" "$2"`, "sh", test, file)
	cmd.Dir, cmd.Env = "/", []string{}
	cmd.SysProcAttr = alone()
	cmd.SysProcAttr.Credential = a.credential()
	return cmd.Run() == nil
}

// credential has the user's groups too, by which homeservers often read their configuration.
func (a *account) credential() *syscall.Credential {
	c := &syscall.Credential{Uid: a.uid, Gid: a.gid}
	u, err := user.LookupId(strconv.Itoa(int(a.uid)))
	if err != nil {
		return c
	}
	groups, err := u.GroupIds()
	if err != nil {
		return c
	}
	for _, group := range groups {
		if id, err := strconv.ParseUint(group, 10, 32); err == nil {
			c.Groups = append(c.Groups, uint32(id))
		}
	}
	return c
}

// accountNamed takes a name or a number.
func accountNamed(name string) (*account, error) {
	u, err := user.Lookup(name)
	if _, numeric := strconv.ParseUint(name, 10, 32); numeric == nil {
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
	return &account{uint32(uid), uint32(gid)}, nil
}
