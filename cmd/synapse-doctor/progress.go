package main

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
)

// progress shows on standard error what takes longer than a second. In a pipe it stays quiet.
type progress struct {
	w io.Writer

	mu     sync.Mutex
	what   string // the last thing that was reported
	now    doctor.Progress
	shown  bool
	paused bool

	stop func()        // ends the drawing
	done chan struct{} // it has ended
}

const (
	progressAfter = time.Second
	progressEvery = 200 * time.Millisecond
	progressWidth = 60
)

// newProgress starts to show progress if w is a terminal. End it before anything else is printed.
func newProgress(w io.Writer) *progress {
	p := &progress{w: w, what: "examining", done: make(chan struct{})}
	if !isTerminal(w) {
		p.stop = func() {}
		close(p.done)
		return p
	}
	ctx, cancel := context.WithCancel(context.Background())
	p.stop = cancel
	go p.draw(ctx)
	return p
}

// update is told by the engine how far something has come.
func (p *progress) update(what string, now doctor.Progress) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.what, p.now = what, now
}

// pause takes the line away while a question is asked; resume allows it again.
func (p *progress) pause() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.paused = true
	p.erase()
}

func (p *progress) resume() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.paused = false
}

// end takes the line away for good.
func (p *progress) end() {
	p.stop()
	<-p.done
}

func (p *progress) draw(ctx context.Context) {
	defer close(p.done)
	started := time.Now()
	wait := time.NewTimer(progressAfter)
	defer wait.Stop()
	for {
		select {
		case <-ctx.Done():
			p.mu.Lock()
			p.erase()
			p.mu.Unlock()
			return
		case <-wait.C:
			p.mu.Lock()
			if !p.paused {
				p.shown = true
				fmt.Fprintf(p.w, "\r\x1b[K%s", p.line(time.Since(started)))
			}
			p.mu.Unlock()
			wait.Reset(progressEvery)
		}
	}
}

func (p *progress) erase() {
	if p.shown {
		fmt.Fprint(p.w, "\r\x1b[K")
		p.shown = false
	}
}

// line tells the last thing that was reported, and how long all has taken.
func (p *progress) line(took time.Duration) string {
	text := p.what
	if p.now.Text != "" {
		text += ": " + p.now.Text
	}
	if p.now.Total > 0 {
		text += fmt.Sprintf(" %d of %d %s (%d %%)", p.now.Done, p.now.Total, p.now.Unit, 100*p.now.Done/p.now.Total)
	}
	if r := []rune(text); len(r) > progressWidth {
		text = string(r[:progressWidth-1]) + "…"
	}
	return fmt.Sprintf("%s … %s", text, took.Round(time.Second))
}
