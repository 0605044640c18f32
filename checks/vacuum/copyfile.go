package vacuum

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
)

// copyPiece is how much is copied before the context is looked at; the kernel copies, where the file system can without
// moving a byte.
const copyPiece = 16 << 20

// copyFile copies a file that nobody writes to into a new one.
func (m *making) copyFile(ctx context.Context, from, to string) error {
	source, err := os.Open(from)
	if err != nil {
		return err
	}
	defer source.Close()
	info, err := source.Stat()
	if err != nil {
		return err
	}
	if err := m.create(to); err != nil {
		return err
	}
	target, err := os.OpenFile(to, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer target.Close()
	for done := int64(0); ; {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		n, err := io.CopyN(target, source, copyPiece)
		done += n
		m.progress("copying", done, info.Size())
		if errors.Is(err, io.EOF) {
			return target.Close()
		}
		if err != nil {
			return fmt.Errorf("copy %s: %w", from, err)
		}
	}
}

func (m *making) progress(text string, done, total int64) {
	m.host.Progress(doctor.Progress{Text: text, Done: done, Total: total, Unit: "bytes"})
}

// watch shows how a file grows, until the function that it returns is called.
func (m *making) watch(ctx context.Context, path string) (stop func()) {
	done, ended := make(chan struct{}), make(chan struct{})
	total := (m.state.Header.Pages - m.state.Header.FreePages) * int64(m.state.Header.PageSize)
	go func() {
		defer close(ended)
		for tick := time.NewTicker(500 * time.Millisecond); ; {
			select {
			case <-tick.C:
				if info, err := os.Stat(path); err == nil {
					m.progress("writing it anew", min(info.Size(), total), total)
				}
			case <-done:
				tick.Stop()
				return
			case <-ctx.Done():
				tick.Stop()
				return
			}
		}
	}()
	return func() { close(done); <-ended }
}
