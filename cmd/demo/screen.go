package main

import (
	"fmt"
	"io"
	"os"
)

// Everything that the demonstration itself says is one sentence above each scene, the command lines, and at the end what
// it saw for itself. It fits 80 columns and can be told from the doctor's words without colour: a scene begins with
// "==", a command line with "$". Bold only on a terminal, unless NO_COLOR forbids it.

type screen struct {
	out  io.Writer
	bold bool
}

func newScreen(out *os.File) *screen {
	info, err := out.Stat()
	terminal := err == nil && info.Mode()&os.ModeCharDevice != 0
	return &screen{out: out, bold: terminal && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"}
}

func (s *screen) scene(sentence string) { fmt.Fprintf(s.out, "\n%s\n", s.strong("== "+sentence)) }

func (s *screen) command(line string) { fmt.Fprintf(s.out, "\n%s\n\n", s.strong("$ "+line)) }

func (s *screen) list(items []string) {
	fmt.Fprintln(s.out)
	for _, item := range items {
		fmt.Fprintln(s.out, "   - "+item)
	}
}

func (s *screen) strong(text string) string {
	if !s.bold {
		return text
	}
	return "\x1b[1m" + text + "\x1b[0m"
}
