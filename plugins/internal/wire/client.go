package wire

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	doctorv1 "github.com/synapse-doctor/synapse-doctor/proto/doctor/v1"
)

// Client answers the verbs of a [doctor.Source] by asking a plugin. It refuses what makes no sense; what makes sense but is
// too much is for its caller to stop.
type Client struct {
	name string
	rpc  doctorv1.PluginClient
	// StopWithin is how long an operation that was told to stop may go on; then Execute returns an *AbandonedError.
	StopWithin time.Duration
}

// NewClient returns a client of the plugin called name in messages.
func NewClient(name string, conn grpc.ClientConnInterface) *Client {
	return &Client{name: name, rpc: doctorv1.NewPluginClient(conn), StopWithin: time.Second}
}

func (c *Client) violation(format string, args ...any) error {
	return &ViolationError{c.name, doctor.CleanText(fmt.Sprintf(format, args...))}
}

// Describe asks what the plugin is.
func (c *Client) Describe(ctx context.Context) (doctor.Description, error) {
	out, err := c.rpc.Describe(ctx, &doctorv1.DescribeRequest{})
	if err != nil {
		return doctor.Description{}, fromStatus(ctx, err)
	}
	d, err := DescriptionFrom(out)
	if err != nil {
		return doctor.Description{}, c.violation("its description: %v", err)
	}
	return d, nil
}

// Check runs checks in the plugin.
func (c *Client) Check(ctx context.Context, req doctor.CheckRequest, events doctor.Events) error {
	target, err := TargetTo(req.Target)
	if err != nil {
		return err
	}
	msg := &doctorv1.CheckRequest{Target: target, Checks: req.Checks, Deadline: durationTo(req.Deadline)}
	if err := sendable(msg); err != nil {
		return fmt.Errorf("ask plugin %s to check: %w", c.name, err)
	}
	callCtx, cancel := context.WithCancel(ctx)
	defer cancel() // whatever ends this call ends the stream
	stream, err := c.rpc.Check(callCtx, msg)
	if err != nil {
		return fromStatus(ctx, err)
	}
	running := make(map[string]bool, len(req.Checks))
	for _, id := range req.Checks {
		running[id] = true
	}
	for {
		event, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fromStatus(ctx, err)
		}
		if err := c.event(event, running, events); err != nil {
			return err
		}
	}
	for _, id := range req.Checks {
		if running[id] {
			return c.violation("it never said that check %q is done", id)
		}
	}
	return nil
}

func (c *Client) event(msg *doctorv1.CheckResponse, running map[string]bool, events doctor.Events) error {
	id := msg.GetCheck()
	switch on, asked := running[id]; {
	case !asked:
		return c.violation("it answered for check %q, which it was not asked for", id)
	case !on:
		return c.violation("it went on about check %q after it had said that it is done", id)
	}
	switch e := msg.GetEvent().(type) {
	case *doctorv1.CheckResponse_Found:
		f, err := FindingFrom(e.Found)
		if err != nil {
			return c.violation("check %q: %v", id, err)
		}
		return events.Found(id, f)
	case *doctorv1.CheckResponse_Progress:
		events.Progress(id, progressFrom(e.Progress))
		return nil
	case *doctorv1.CheckResponse_Measured:
		m := measureFrom(e.Measured)
		m.Check = id
		return events.Measured(id, m)
	case *doctorv1.CheckResponse_Done:
		o, err := outcomeFrom(e.Done)
		if err != nil {
			return c.violation("check %q: %v", id, err)
		}
		running[id] = false
		return events.Done(id, o)
	}
	return c.violation("check %q: an event that is empty, or of a kind that this version does not know", id)
}

// maxPlans bounds the plans for one check.
const maxPlans = 1000

// Plan asks the plugin for plans.
func (c *Client) Plan(ctx context.Context, req doctor.PlanRequest) ([]doctor.Plan, error) {
	target, err := TargetTo(req.Target)
	if err != nil {
		return nil, err
	}
	findings, err := each(req.Findings, FindingTo)
	if err != nil {
		return nil, err
	}
	msg := &doctorv1.PlanRequest{Target: target, Check: req.Check, Findings: findings}
	if err := sendable(msg); err != nil {
		return nil, fmt.Errorf("ask plugin %s to plan: %w", c.name, err)
	}
	callCtx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.rpc.Plan(callCtx, msg)
	if err != nil {
		return nil, fromStatus(ctx, err)
	}
	var plans []doctor.Plan
	for {
		out, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return plans, nil
		}
		if err != nil {
			return nil, fromStatus(ctx, err)
		}
		p, err := PlanFrom(out.GetPlan())
		if err != nil {
			return nil, c.violation("%v", err)
		}
		if p.Check() != req.Check {
			return nil, c.violation("it was asked for plans of check %q and sent %q", req.Check, p.ID)
		}
		if plans = append(plans, p); len(plans) > maxPlans {
			return nil, c.violation("more than %d plans for check %q", maxPlans, req.Check)
		}
	}
}

// Execute has the plugin perform an operation. When ctx ends, the plugin is told to stop and has StopWithin to do so:
// when Execute returns anything but an *AbandonedError, the operation has ended.
func (c *Client) Execute(ctx context.Context, req doctor.ExecuteRequest, host doctor.OperationHost) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	target, err := TargetTo(req.Target)
	if err != nil {
		return err
	}
	start := &doctorv1.ExecuteRequest{Message: &doctorv1.ExecuteRequest_Start{Start: &doctorv1.ExecuteStart{
		Target: target, Check: req.Check, Step: operationTo(req.Step), Resume: req.Resume,
	}}}
	if err := sendable(start); err != nil {
		return fmt.Errorf("ask plugin %s to execute %q: %w", c.name, req.Step.Name, err)
	}
	callCtx, abandon := context.WithCancel(context.WithoutCancel(ctx))
	defer abandon()
	stream, err := c.rpc.Execute(callCtx)
	if err != nil {
		return fromStatus(ctx, err)
	}
	var sending sync.Mutex
	send := func(m *doctorv1.ExecuteRequest) {
		sending.Lock()
		defer sending.Unlock()
		_ = stream.Send(m) // Recv says why
	}
	defer context.AfterFunc(ctx, func() {
		t := time.AfterFunc(c.StopWithin, abandon)
		context.AfterFunc(callCtx, func() { t.Stop() })
		send(&doctorv1.ExecuteRequest{Message: &doctorv1.ExecuteRequest_Cancel{Cancel: &doctorv1.Cancel{}}})
	})()
	send(start)
	go func() {
		select {
		case <-host.Stopping():
			send(&doctorv1.ExecuteRequest{Message: &doctorv1.ExecuteRequest_Stop{Stop: &doctorv1.Stop{}}})
		case <-callCtx.Done():
		}
	}()
	saves := uint64(0)
	saved := pages{host: host}
	defer saved.close()
	for {
		msg, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil && callCtx.Err() != nil:
			return &AbandonedError{context.Cause(ctx)}
		case err != nil:
			return fromStatus(ctx, err)
		}
		switch m := msg.GetMessage().(type) {
		case *doctorv1.ExecuteResponse_Progress:
			host.Progress(progressFrom(m.Progress))
		case *doctorv1.ExecuteResponse_Save:
			if saves++; m.Save.GetNumber() != saves {
				return &AbandonedError{c.violation("save %d came where %d was due", m.Save.GetNumber(), saves)}
			}
			rows := make([]doctor.SavedRow, 0, len(m.Save.Rows))
			for _, r := range m.Save.Rows {
				rows = append(rows, doctor.SavedRow{Table: r.GetTable(), JSON: r.GetJson()})
			}
			answer := &doctorv1.Saved{Number: saves}
			if err := host.Save(ctx, m.Save.Resume, rows); err != nil {
				answer.Error = clip(err.Error(), maxErrorText)
			}
			send(&doctorv1.ExecuteRequest{Message: &doctorv1.ExecuteRequest_Saved{Saved: answer}})
		case *doctorv1.ExecuteResponse_Read:
			send(&doctorv1.ExecuteRequest{Message: &doctorv1.ExecuteRequest_Rows{Rows: saved.page(ctx, m.Read.GetFirst())}})
		case *doctorv1.ExecuteResponse_Document:
			if len(m.Document.GetText()) > maxDocument {
				return &AbandonedError{c.violation("a document of more than %d MiB", maxDocument>>20)}
			}
			host.Document(m.Document.GetName(), m.Document.GetText())
		default:
			return &AbandonedError{c.violation("a message that is empty, or of a kind that this version does not know")}
		}
	}
}

// maxDocument is the largest text that an operation may hand over.
const maxDocument = 8 << 20

// pages hands a host's saved rows over a page at a time.
type pages struct {
	host doctor.OperationHost
	next func() (doctor.SavedRow, error, bool)
	stop func()
	held *doctor.SavedRow // did not fit into the last page
}

// A page of saved rows ends with the row that makes it this large.
const (
	pageRows  = 1000
	pageBytes = 1 << 20
)

func (p *pages) page(ctx context.Context, first bool) *doctorv1.Rows {
	if first || p.next == nil {
		p.close()
		p.next, p.stop = iter.Pull2(func(yield func(doctor.SavedRow, error) bool) {
			done := errors.New("no more rows are wanted")
			err := p.host.Rows(ctx, func(r doctor.SavedRow) error {
				if !yield(r, nil) {
					return done
				}
				return nil
			})
			if err != nil && !errors.Is(err, done) {
				yield(doctor.SavedRow{}, err)
			}
		})
	}
	out := &doctorv1.Rows{}
	for size := 0; len(out.Rows) < pageRows && size < pageBytes; {
		r, err, more := p.pull()
		if err != nil {
			return &doctorv1.Rows{Error: clip(err.Error(), maxErrorText)}
		}
		if !more {
			out.Last = true
			break
		}
		if size > 0 && size+len(r.JSON) > MaxMessage/2 {
			p.held = &r
			break
		}
		out.Rows = append(out.Rows, &doctorv1.SavedRow{Table: r.Table, Json: r.JSON})
		size += len(r.JSON) + len(r.Table)
	}
	return out
}

func (p *pages) pull() (doctor.SavedRow, error, bool) {
	if r := p.held; r != nil {
		p.held = nil
		return *r, nil, true
	}
	return p.next()
}

func (p *pages) close() {
	if p.stop != nil {
		p.stop()
	}
	p.held = nil
}
