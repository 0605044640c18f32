package engine

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
)

// Document keeps a text of an operation as a file of the state directory that only its owner may read: it may name users
// and rooms.
func (h *operationHost) Document(name, text string) {
	e := h.a.engine
	path, err := e.keepDocument(h.a.record.Run, name, text)
	if err != nil {
		e.Notice(e.reason(fmt.Errorf("the report of %s could not be kept: %w", h.a.steps[h.step].Title, err)))
		return
	}
	h.a.results[h.step].Note = "its report is " + path
}

func (e *Engine) keepDocument(run, name, text string) (path string, err error) {
	name = filepath.Base(e.clean(name))
	if name == "." || name == string(filepath.Separator) || strings.HasPrefix(name, ".") {
		return "", fmt.Errorf("%q is no file name", name)
	}
	dir := filepath.Join(e.StateDir, "reports")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	path = filepath.Join(dir, run+"-"+name)
	f, err := os.CreateTemp(dir, ".report-*") // mode 0600
	if err != nil {
		return "", err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	if _, err = f.WriteString(doctor.CleanText(e.Redactor.String(text))); err != nil {
		return "", err
	}
	if err = f.Sync(); err != nil {
		return "", err
	}
	if err = f.Close(); err != nil {
		return "", err
	}
	return path, os.Rename(f.Name(), path)
}
