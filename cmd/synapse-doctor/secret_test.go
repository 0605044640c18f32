package main

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"unicode"

	"github.com/rogpeppe/go-internal/testscript"
)

// The planted secrets. What is searched for are their random parts, which every way of quoting leaves as they are; the
// password has one at both ends of the characters that quoting changes, so that half a mask is seen too.
var (
	passwordHead, passwordTail = rand.Text(), rand.Text()
	plantedPassword            = passwordHead + `p%4'"\ $ä` + passwordTail
	plantedKey                 = rand.Text()
)

func plantedSecrets() []string {
	secrets := []string{passwordHead, passwordTail, plantedKey}
	return append(secrets,
		// Encoded whole: the first 15 bytes encode alike whatever follows them.
		base64.StdEncoding.EncodeToString([]byte(plantedPassword[:15])), hex.EncodeToString([]byte(passwordTail)))
}

// leaks returns the part of text in which a secret stands, also where a table has wrapped it.
func (s *scene) leaks(text string) string {
	joined := strings.Map(func(r rune) rune {
		if unicode.IsLetter(r) || unicode.IsDigit(r) {
			return r
		}
		return -1
	}, text)
	for _, secret := range s.secrets {
		for _, t := range []string{text, joined} {
			if i := strings.Index(t, secret); i >= 0 {
				return "…" + t[max(0, i-100):min(len(t), i+len(secret)+100)] + "…"
			}
		}
	}
	return ""
}

// searchSecrets looks through everything that the program has printed in a script and left in its directories.
// The administrator's own files hold the secrets, and so do their backups.
func (s *scene) searchSecrets() {
	for _, run := range s.said {
		for name, text := range map[string]string{"stdout": run.stdout, "stderr": run.stderr} {
			if leak := s.leaks(text); leak != "" {
				s.t.Errorf("a secret is in the %s of synapse-doctor %q: %s", name, run.args, leak)
			}
		}
	}
	err := filepath.WalkDir(s.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(s.dir, path)
		if err != nil {
			return err
		}
		if d.IsDir() && (name == adminDir || strings.HasPrefix(name, "state/") && d.Name() == "backups") {
			return filepath.SkipDir
		}
		if !d.Type().IsRegular() {
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if leak := s.leaks(string(text)); leak != "" {
			s.t.Errorf("a secret is in the file %s: %q", name, leak)
		}
		return nil
	})
	if err != nil {
		s.t.Error(err)
	}
	if s.own {
		if leak := s.leaks(s.server.Log()); leak != "" {
			s.t.Errorf("a secret is in the server's log: %s", leak)
		}
	}
}

// noSecretCommand looks at a running program and its plugins, or with "plugins" at these alone, as any user of the machine
// can, and at their environment.
func noSecretCommand(_ *testscript.TestScript, s *scene, args []string) error {
	p, err := s.program(args)
	if err != nil {
		return err
	}
	if len(p.plugins) == 0 {
		return fmt.Errorf("plugins %s first", args[0])
	}
	pids := p.plugins
	if len(args) < 2 || args[1] != "plugins" {
		pids = append([]int{p.cmd.Process.Pid}, pids...)
	}
	for _, pid := range pids {
		for _, what := range []string{"cmdline", "environ", "comm"} {
			text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, what))
			if err != nil {
				return err
			}
			if leak := s.leaks(string(text)); leak != "" {
				return fmt.Errorf("a secret is in the %s of process %d: %q", what, pid, leak)
			}
		}
	}
	return nil
}

func owner(info os.FileInfo) string {
	stat := info.Sys().(*syscall.Stat_t)
	return fmt.Sprintf("%d:%d", stat.Uid, stat.Gid)
}
