package main

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// wantFiles wants a directory to hold these files and no other: nothing half written, nothing temporary.
func wantFiles(t *testing.T, dir string, want map[string]string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		text, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if wanted, ok := want[e.Name()]; !ok || string(text) != wanted {
			t.Errorf("%s holds %q", e.Name(), text)
		}
	}
	if len(entries) != len(want) {
		t.Errorf("there are %v", entries)
	}
}

func mode(t *testing.T, path string) os.FileMode {
	t.Helper()
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Mode()
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := writeFile(path, text); err != nil {
		t.Fatal(err)
	}
}

func TestAReportReplacesAFileAndKeepsItsMode(t *testing.T) {
	dir := t.TempDir()
	old, fresh, ordinary := filepath.Join(dir, "old"), filepath.Join(dir, "new"), filepath.Join(dir, "ordinary")
	write(t, old, "longer than what comes")
	if err := os.Chmod(old, 0o604); err != nil {
		t.Fatal(err)
	}
	write(t, old, "report")
	write(t, fresh, "report")
	if err := os.WriteFile(ordinary, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	wantFiles(t, dir, map[string]string{"old": "report", "new": "report", "ordinary": ""})
	if mode(t, old) != 0o604 || mode(t, fresh) != mode(t, ordinary) {
		t.Errorf("modes %v, %v", mode(t, old), mode(t, fresh))
	}
}

func TestAReportGoesThroughALink(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "file"), "longer than what comes")
	for _, name := range []string{"file", "not-yet"} {
		link := filepath.Join(dir, "to-"+name)
		if err := os.Symlink(name, link); err != nil {
			t.Fatal(err)
		}
		write(t, link, "report")
		if mode(t, link)&fs.ModeSymlink == 0 {
			t.Errorf("the link to %s was replaced", name)
		}
	}
	wantFiles(t, dir, map[string]string{"file": "report", "to-file": "report", "not-yet": "report", "to-not-yet": "report"})
}

func TestAReportGoesIntoAPipe(t *testing.T) {
	dir := t.TempDir()
	pipe := filepath.Join(dir, "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	reader, err := os.OpenFile(pipe, os.O_RDWR, 0) // both ways, so that nobody waits to open it
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	write(t, pipe, "report")
	got := make([]byte, len("report"))
	if _, err := io.ReadFull(reader, got); err != nil || string(got) != "report" {
		t.Errorf("%q, %v", got, err)
	}
	if mode(t, pipe)&fs.ModeNamedPipe == 0 {
		t.Error("the pipe was replaced")
	}
}

func TestAReportThatCannotBeWrittenLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	if err := writeFile(filepath.Join(dir, "none", "report"), "report"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error %v", err)
	}
	if err := writeFile(dir, "report"); err == nil {
		t.Error("a directory was written to")
	}
	wantFiles(t, dir, nil)
}
