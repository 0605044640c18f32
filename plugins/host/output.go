package host

import (
	"bufio"
	"errors"
	"io"
	"log/slog"
	"strings"
	"sync"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
)

// What a plugin prints is read without end, so that it never blocks, and kept within bounds, so that it never fills
// memory, the disk or a terminal.
const (
	maxFirstLine = 64 << 10 // of stdout; a handshake has less than 4 KiB
	maxLine      = 4 << 10  // of anything else; the rest of the line is left out
	maxTail      = 8 << 10  // of stderr
	maxLogged    = 1 << 20  // in the debug log, for each process and stream
)

// tail keeps the end of what was written, and the line in which a Go program says that it dies.
type tail struct {
	mu    sync.Mutex
	lines []string
	size  int
	fatal string
}

func (t *tail) add(line string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if strings.HasPrefix(line, "panic: ") || strings.HasPrefix(line, "fatal error: ") {
		t.fatal = line
	}
	t.lines = append(t.lines, line)
	t.size += len(line) + 1
	for t.size > maxTail && len(t.lines) > 1 {
		t.size -= len(t.lines[0]) + 1
		t.lines = t.lines[1:]
	}
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	text := strings.Join(t.lines, "\n")
	if t.fatal != "" && !strings.Contains(text, t.fatal) {
		text = t.fatal + "\n…\n" + text
	}
	return text
}

// lines calls fn with each line, clean and cut to maxLine, until r ends.
func lines(r io.Reader, fn func(string)) {
	in := bufio.NewReaderSize(r, maxLine)
	for {
		line, err := in.ReadSlice('\n')
		if text := doctor.CleanText(strings.TrimRight(string(line), "\r\n")); text != "" {
			fn(text)
		}
		for errors.Is(err, bufio.ErrBufferFull) {
			_, err = in.ReadSlice('\n')
		}
		if err != nil {
			return
		}
	}
}

// logged writes lines to the debug log up to a bound.
func logged(log *slog.Logger, stream string) func(string) {
	size := 0
	return func(line string) {
		if size > maxLogged {
			return
		}
		if size += len(line); size > maxLogged {
			line = "(more is left out)"
		}
		log.Debug(line, "stream", stream)
	}
}

// firstLine reads a line of at most maxFirstLine bytes, without its end.
func firstLine(in *bufio.Reader) (line string, complete bool) {
	var b strings.Builder
	for b.Len() < maxFirstLine {
		part, err := in.ReadSlice('\n')
		b.Write(part)
		if err == nil {
			return strings.TrimRight(b.String(), "\r\n"), true
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			break
		}
	}
	return b.String(), false
}
