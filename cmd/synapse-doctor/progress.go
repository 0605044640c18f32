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
	began  time.Time // when that was first reported
	before int64     // how much of it was done then
	shown  bool
	paused bool

	stop func()        // ends the drawing
	done chan struct{} // it has ended
}

const (
	progressAfter = time.Second
	progressEvery = 200 * time.Millisecond
	progressWidth = 76
	longWhat      = 24 // a longer name gives way to what is being done in it
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
	if p.what != what || p.now.Total != now.Total || now.Done < p.now.Done {
		p.began, p.before = time.Now(), now.Done
	}
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
				fmt.Fprintf(p.w, "\r\x1b[K%s", p.line(time.Since(started), time.Since(p.began)))
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

// line tells the last thing that was reported, which has been going on for this while, and how long all has taken.
func (p *progress) line(took, this time.Duration) string {
	text := p.what
	switch {
	case p.now.Text == "":
	case len(text) > longWhat:
		text = p.now.Text
	default:
		text += ": " + p.now.Text
	}
	end := " … " + took.Round(time.Second).String()
	if p.now.Total > 0 {
		end = fmt.Sprintf(" %d %% of %s%s%s", 100*p.now.Done/p.now.Total, amount(p.now.Total, p.now.Unit), end, p.left(this))
	}
	if r, room := []rune(text), progressWidth-len([]rune(end)); len(r) > room {
		text = string(r[:room-1]) + "…"
	}
	return text + end
}

// left says how much longer it will take if it goes on like this; nothing as long as that can't be told.
func (p *progress) left(took time.Duration) string {
	done, todo := p.now.Done-p.before, p.now.Total-p.now.Done
	if took < 3*time.Second || todo <= 0 || done*20 < p.now.Total {
		return ""
	}
	left := time.Duration(float64(took) * float64(todo) / float64(done))
	return ", about " + left.Round(time.Second).String() + " left"
}

// amount is a number of units; bytes are told in larger ones.
func amount(n int64, unit string) string {
	if unit != "bytes" {
		return fmt.Sprintf("%d %s", n, unit)
	}
	for _, u := range []string{"bytes", "kB", "MB"} {
		if n < 10240 {
			return fmt.Sprintf("%d %s", n, u)
		}
		n /= 1024
	}
	return fmt.Sprintf("%d GB", n)
}
