package main

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
)

// What is told on standard error while something long goes on, and how:
//
//   - on a terminal, after a second, a line that changes (progress_line.go); where several tables or indexes are worked on at
//     the same time, a view with a bar for each (progress_live.go). Both go away in the end;
//   - in a pipe nothing, but for what reads or writes row by row: a plain line every few seconds (progress_plain.go);
//   - with --format json in a pipe, an object a line and a second (progress_plain.go);
//   - a note, such as a warning of a port, at once and for good.

// progress shows how far something has come.
type progress struct {
	w    io.Writer
	view view

	mu     sync.Mutex
	now    moment
	pace   pace
	paused bool
	noted  map[string]bool

	stop func()        // ends the drawing
	done chan struct{} // it has ended
}

// moment is what a view shows.
type moment struct {
	what string // the last thing that was reported
	doctor.Progress
	took   time.Duration // since the program began to wait
	this   time.Duration // since that thing was first reported
	before int64         // how much of it was done then
	began  time.Time
	rows   float64 // a second, lately; 0 when not known
	units  float64 // of Unit a second, lately
}

// view is one way to show progress. Its methods are not called at the same time.
type view interface {
	// first and every are how long it waits before it shows something, and then each time.
	every() (first, then time.Duration)
	show(m moment)
	// note tells something for good.
	note(text string)
	erase()
}

// newProgress starts to show progress. End it before anything else is printed. Events: as JSON, where w is no terminal.
func newProgress(w io.Writer, events bool) *progress {
	p := &progress{w: w, now: moment{what: "examining"}, noted: map[string]bool{}, done: make(chan struct{})}
	switch {
	case isTerminal(w):
		p.view = &liveView{w: w}
	case events:
		p.view = &eventView{w: w}
	default:
		p.view = &plainView{w: w}
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
	if now.Note != "" && !p.noted[now.Note] {
		p.noted[now.Note] = true
		p.view.note(now.Note)
	}
	if p.now.what != what || p.now.Total != now.Total || now.Done < p.now.Done {
		p.now.began, p.now.before = time.Now(), now.Done
		p.pace = pace{}
	}
	p.now.what, p.now.Progress = what, now
	p.pace.add(time.Now(), now.Done, now.Rows)
}

// say tells something for good, above what is shown.
func (p *progress) say(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if v, ok := p.view.(*eventView); ok {
		v.note(text)
		return
	}
	p.view.erase()
	fmt.Fprintln(p.w, "synapse-doctor: "+text)
}

// applies tells in an event that a plan is being applied, and returns false where no events are told.
func (p *progress) applies(plan doctor.Plan) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	v, ok := p.view.(*eventView)
	if ok {
		v.write(event{Event: "plan", Step: doctor.Clean(plan.ID), Text: doctor.Clean(plan.Title)})
	}
	return ok
}

// pause takes what is shown away while a question is asked; resume allows it again.
func (p *progress) pause() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.paused = true
	p.view.erase()
}

func (p *progress) resume() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.paused = false
}

// end takes it away for good.
func (p *progress) end() {
	p.stop()
	<-p.done
}

func (p *progress) draw(ctx context.Context) {
	defer close(p.done)
	started := time.Now()
	first, then := p.view.every()
	wait := time.NewTimer(first)
	defer wait.Stop()
	for {
		select {
		case <-ctx.Done():
			p.mu.Lock()
			p.view.erase()
			p.mu.Unlock()
			return
		case <-wait.C:
			p.mu.Lock()
			if !p.paused {
				m := p.now
				m.took, m.this = time.Since(started), time.Since(p.now.began)
				m.units, m.rows = p.pace.rates()
				p.view.show(m)
			}
			p.mu.Unlock()
			wait.Reset(then)
		}
	}
}

// pace is how fast it went during the last seconds.
type pace struct{ samples []sample }

type sample struct {
	at         time.Time
	done, rows int64
}

const paceOver = 8 * time.Second

func (p *pace) add(now time.Time, done, rows int64) {
	if n := len(p.samples); n > 1 && now.Sub(p.samples[n-2].at) < paceOver/20 {
		p.samples[n-1] = sample{now, done, rows}
		return
	}
	p.samples = append(p.samples, sample{now, done, rows})
	for len(p.samples) > 2 && now.Sub(p.samples[1].at) > paceOver {
		p.samples = p.samples[1:]
	}
}

// rates are units and rows a second; 0 as long as they can't be told.
func (p *pace) rates() (units, rows float64) {
	if len(p.samples) < 2 {
		return 0, 0
	}
	first, last := p.samples[0], p.samples[len(p.samples)-1]
	took := last.at.Sub(first.at).Seconds()
	if took < 1 {
		return 0, 0
	}
	return max(0, float64(last.done-first.done)/took), max(0, float64(last.rows-first.rows)/took)
}

// left says how much longer it will take if it goes on like this; nothing as long as that can't be told.
func (m moment) left() string {
	done, todo := m.Done-m.before, m.Total-m.Done
	if m.this < 3*time.Second || todo <= 0 || done*20 < m.Total {
		return ""
	}
	left := time.Duration(float64(m.this) * float64(todo) / float64(done))
	return "about " + left.Round(time.Second).String() + " left"
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

// count is a number that nobody reads to the last digit.
func count(n float64) string {
	switch {
	case n >= 9.95e6:
		return fmt.Sprintf("%.0f M", n/1e6)
	case n >= 1e6:
		return fmt.Sprintf("%.1f M", n/1e6)
	case n >= 1e4:
		return fmt.Sprintf("%.0f k", n/1e3)
	}
	return fmt.Sprintf("%.0f", n)
}
