package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/pflag"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/engine"
	"github.com/synapse-doctor/synapse-doctor/core/report"
)

const fixAbout = `Shows exactly what would mend what the checks find, and changes nothing. With --apply it does it, after asking,
proves that it worked, and keeps what synapse-doctor undo needs.

Exit codes: 0 nothing to do; 2 something to do; 1 could not complete.
With --apply: 0 applied and verified; 2 findings remain, or a plan was refused; 1 a plan failed.`

func runFix(ctx context.Context, args []string, s streams) (int, error) {
	var t targetFlags
	var o outputFlags
	var c consent
	f := newFlags("fix", "[CHECK|CODE …]", fixAbout, s)
	t.register(f)
	apply := f.Bool("apply", false, "do it, after asking")
	plans := f.StringArray("plan", nil, "choose the plan with this `ID` among alternatives; may be repeated")
	setPassword := f.Bool("set-password", false, "where homeserver.yaml has no password, make one and write it to both sides")
	c.register(f)
	failOn := f.String("fail-on", "warning", "exit 2 while findings of this `SEVERITY` or worse remain: info, warning, error")
	o.register(f, report.FixFormats())
	if err := parse(f, args); err != nil {
		return exitFailed, err
	}
	threshold, err := doctor.ParseSeverity(*failOn)
	if err != nil {
		return exitFailed, fmt.Errorf("--fail-on: %w", err)
	}
	e, formatter, err := t.openReport(ctx, f, &o, s)
	if err != nil {
		return exitFailed, err
	}
	defer e.close()
	if _, err := e.lookBack(ctx, ""); err != nil {
		return exitFailed, err
	}
	e.Target.SetPassword, e.Target.Applying = *setPassword, *apply
	c.begin(s, e, o)
	r, err := e.Fix(ctx, engine.FixOptions{
		Selection: engine.Selection{Wanted: f.Args(), Skip: t.skip},
		Preferred: *plans,
		Apply:     *apply,
		Consent:   c.ask,
	})
	if r == nil {
		return exitFailed, err
	}
	e.progress.end()
	if !*apply {
		tellInterrupted(e.StateDir, s.err)
	}
	if err := errors.Join(err, o.write(s, func(w io.Writer) error { return formatter.Fix(w, r) })); err != nil {
		return exitFailed, err
	}
	return fixCode(r, threshold, *apply, f.NArg() > 0), nil
}

// fixCode is the exit code of a fix.
func fixCode(r *doctor.FixReport, threshold doctor.Severity, apply, asked bool) int {
	last := r.Before
	if r.After != nil {
		last = r.After
	}
	code := checkCode(last, threshold, asked)
	for _, p := range r.Plans {
		if !p.Chosen {
			continue
		}
		switch {
		case p.Status == doctor.PlanFailed:
			return exitFailed
		case p.Status == doctor.PlanRefused, p.Status == doctor.PlanPlanned && !apply, p.Status == doctor.PlanManual && !apply:
			code = max(code, exitFindings)
			if checkCode(last, threshold, asked) == exitFailed {
				return exitFailed
			}
		}
	}
	return code
}

// consent asks before something is changed, or knows the answer from the command line.
type consent struct {
	yes          bool
	yesDangerous bool

	s       streams
	session *session
	opts    report.Options
	undo    bool // the plan is to be put back, not applied
}

func (c *consent) register(f *pflag.FlagSet) {
	f.BoolVarP(&c.yes, "yes", "y", false, "agree to every safe or careful plan without being asked")
	f.BoolVar(&c.yesDangerous, "yes-dangerous", false, "agree to every plan without being asked")
}

func (c *consent) begin(s streams, e *session, o outputFlags) {
	c.s, c.session = s, e
	c.opts = o.options(s.err)
	c.opts.Redact = e.assembled.redactor
}

// ask shows the plan and takes yes for an answer; for a dangerous one, the name of the database. A plan that the command
// line has agreed to is shown all the same: what was done to a database ought to be in somebody's log. Among events it is one.
func (c *consent) ask(ctx context.Context, p doctor.PlanResult) error {
	if err := c.answer(ctx, p); err != nil {
		return err
	}
	finishTheWork()
	return nil
}

func (c *consent) answer(ctx context.Context, p doctor.PlanResult) error {
	agreed := c.yesDangerous || c.yes && p.Plan.Risk < doctor.Dangerous
	c.session.progress.pause()
	defer c.session.progress.resume()
	if agreed && c.session.progress.applies(p.Plan) {
		return nil // the report has the plan
	}
	if agreed || isTerminal(c.s.in) {
		if err := report.Plans(c.s.err, []doctor.PlanResult{p}, c.opts); err != nil {
			return fmt.Errorf("show the plan: %w", err)
		}
		fmt.Fprintln(c.s.err)
	}
	if agreed {
		return nil
	}
	if !isTerminal(c.s.in) {
		flag := "--yes"
		if p.Plan.Risk == doctor.Dangerous {
			flag = "--yes-dangerous"
		}
		return &engine.Refusal{Reason: fmt.Sprintf("nobody could be asked, since standard input is not a terminal: %s agrees to it", flag)}
	}
	want, verb := "yes", "Apply"
	if c.undo {
		verb = "Undo"
	}
	question := verb + " this plan? Type yes: "
	if p.Plan.Risk == doctor.Dangerous {
		want = p.Plan.Database
		if d := c.session.assembled.target.Database(p.Plan.Database); d != nil && d.Settings["dbname"] != "" {
			want = d.Settings["dbname"]
		}
		question = fmt.Sprintf("This is dangerous. %s Type the name of the database, %s: ", question[:strings.Index(question, "?")+1], want)
	}
	fmt.Fprint(c.s.err, question)
	answer, err := readLine(ctx, c.s.in)
	if err != nil {
		return err
	}
	if answer = strings.TrimSpace(answer); answer == want || want == "yes" && strings.EqualFold(answer, "y") {
		return nil
	}
	return &engine.Refusal{Reason: "you did not agree to it"}
}

// readLine reads an answer and gives up when ctx ends.
func readLine(ctx context.Context, in io.Reader) (string, error) {
	type result struct {
		line string
		err  error
	}
	got := make(chan result, 1)
	go func() {
		line, err := bufio.NewReader(in).ReadString('\n')
		if errors.Is(err, io.EOF) {
			err = nil
		}
		got <- result{line, err}
	}()
	select {
	case <-ctx.Done():
		return "", context.Cause(ctx)
	case r := <-got:
		return r.line, r.err
	}
}
