package wire

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	doctorv1 "github.com/synapse-doctor/synapse-doctor/proto/doctor/v1"
)

// Server answers the service for a source, which in a plugin is a [doctor.Local].
type Server struct {
	doctorv1.UnimplementedPluginServer
	source doctor.Source
}

// NewServer returns a server for src.
func NewServer(src doctor.Source) *Server { return &Server{source: src} }

func invalid(err error) error {
	return status.Error(codes.InvalidArgument, clip(err.Error(), maxErrorText))
}

// Describe implements the service.
func (s *Server) Describe(ctx context.Context, _ *doctorv1.DescribeRequest) (*doctorv1.DescribeResponse, error) {
	d, err := s.source.Describe(ctx)
	if err != nil {
		return nil, toStatus(err)
	}
	out, err := DescriptionTo(d)
	if err == nil {
		err = sendable(out)
	}
	if err != nil {
		return nil, toStatus(fmt.Errorf("description: %w", err))
	}
	return out, nil
}

// Check implements the service.
func (s *Server) Check(req *doctorv1.CheckRequest, stream grpc.ServerStreamingServer[doctorv1.CheckResponse]) error {
	target, err := TargetFrom(req.Target)
	if err != nil {
		return invalid(err)
	}
	deadline, err := durationFrom(req.Deadline)
	if err != nil {
		return invalid(err)
	}
	asked := map[string]bool{}
	for _, id := range req.Checks {
		if asked[id] {
			return invalid(fmt.Errorf("check %q is asked for twice", id))
		}
		asked[id] = true
	}
	events := &serverEvents{stream: stream, refused: map[string]error{}, progressed: map[string]time.Time{}}
	return toStatus(s.source.Check(stream.Context(), doctor.CheckRequest{Target: target, Checks: req.Checks, Deadline: deadline}, events))
}

// serverEvents sends what happens to the checks. A finding that can't be sent costs its own check, not the others'.
type serverEvents struct {
	mu         sync.Mutex // a stream has one sender at a time
	stream     grpc.ServerStreamingServer[doctorv1.CheckResponse]
	refused    map[string]error
	progressed map[string]time.Time
}

func (e *serverEvents) Found(check string, f doctor.Finding) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	found, err := FindingTo(f)
	msg := &doctorv1.CheckResponse{Check: check, Event: &doctorv1.CheckResponse_Found{Found: found}}
	if err == nil {
		err = sendable(msg)
	}
	if err != nil {
		if e.refused[check] == nil {
			e.refused[check] = fmt.Errorf("a finding %s could not be reported: %w", words(f.Code), err)
		}
		return nil
	}
	return e.stream.Send(msg)
}

// progressEvery bounds how often a check's progress is sent: a check may call it for every row.
const progressEvery = 50 * time.Millisecond

func (e *serverEvents) Progress(check string, p doctor.Progress) {
	e.mu.Lock()
	defer e.mu.Unlock()
	now := time.Now()
	if last, ok := e.progressed[check]; ok && now.Sub(last) < progressEvery {
		return
	}
	e.progressed[check] = now
	_ = e.stream.Send(&doctorv1.CheckResponse{Check: check, Event: &doctorv1.CheckResponse_Progress{Progress: progressTo(p)}})
}

func (e *serverEvents) Measured(check string, m doctor.Measure) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	msg := &doctorv1.CheckResponse{Check: check, Event: &doctorv1.CheckResponse_Measured{Measured: measureTo(m)}}
	if err := sendable(msg); err != nil {
		if e.refused[check] == nil {
			e.refused[check] = fmt.Errorf("the measure %s could not be reported: %w", words(m.Name), err)
		}
		return nil
	}
	return e.stream.Send(msg)
}

func (e *serverEvents) Done(check string, o doctor.Outcome) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.refused[check]; err != nil {
		o = doctor.Outcome{Status: doctor.StatusUnknown, Reason: err.Error(), Duration: o.Duration}
	}
	o.Reason, o.Coverage = clip(o.Reason, maxReason), clip(o.Coverage, maxReason)
	done, err := outcomeTo(o)
	if err != nil {
		return fmt.Errorf("check %q: %w", check, err)
	}
	return e.stream.Send(&doctorv1.CheckResponse{Check: check, Event: &doctorv1.CheckResponse_Done{Done: done}})
}

// maxReason bounds the sentence that says why a check was skipped or is unknown.
const maxReason = 64 << 10

// Plan implements the service.
func (s *Server) Plan(req *doctorv1.PlanRequest, stream grpc.ServerStreamingServer[doctorv1.PlanResponse]) error {
	target, err := TargetFrom(req.Target)
	if err != nil {
		return invalid(err)
	}
	findings, err := each(req.Findings, FindingFrom)
	if err != nil {
		return invalid(err)
	}
	plans, err := s.source.Plan(stream.Context(), doctor.PlanRequest{Target: target, Check: req.Check, Findings: findings})
	if err != nil {
		return toStatus(err)
	}
	for _, p := range plans {
		out, err := PlanTo(p)
		if err != nil {
			return toStatus(err)
		}
		msg := &doctorv1.PlanResponse{Plan: out}
		if err := sendable(msg); err != nil {
			return toStatus(fmt.Errorf("plan %q: %w", p.ID, err))
		}
		if err := stream.Send(msg); err != nil {
			return err
		}
	}
	return nil
}

// Execute implements the service.
func (s *Server) Execute(stream grpc.BidiStreamingServer[doctorv1.ExecuteRequest, doctorv1.ExecuteResponse]) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	start := first.GetStart()
	if start == nil {
		return invalid(errors.New("an operation begins with start"))
	}
	target, err := TargetFrom(start.Target)
	if err != nil {
		return invalid(err)
	}
	step, err := operationFrom(start.Step)
	if err != nil {
		return invalid(err)
	}
	ctx, cancel := context.WithCancelCause(stream.Context())
	defer cancel(nil)
	host := &operationHost{stream: stream, saved: make(chan *doctorv1.Saved, 1), rows: make(chan *doctorv1.Rows, 1), stop: make(chan struct{})}
	go host.listen(ctx, cancel)
	return toStatus(s.source.Execute(ctx, doctor.ExecuteRequest{Target: target, Check: start.Check, Step: step, Resume: start.Resume}, host))
}

// operationHost is the host as an operation sees it.
type operationHost struct {
	stream grpc.BidiStreamingServer[doctorv1.ExecuteRequest, doctorv1.ExecuteResponse]
	send   sync.Mutex // a stream has one sender at a time
	saving sync.Mutex // one save at a time
	number uint64
	saved  chan *doctorv1.Saved
	reads  sync.Mutex // one read of rows at a time
	rows   chan *doctorv1.Rows
	last   time.Time

	stop     chan struct{}
	stopOnce sync.Once
}

// listen hears the host until the call ends.
func (h *operationHost) listen(ctx context.Context, cancel context.CancelCauseFunc) {
	for {
		msg, err := h.stream.Recv()
		if errors.Is(err, io.EOF) {
			err = context.Canceled // the host hung up
		}
		if err != nil {
			cancel(err)
			return
		}
		switch m := msg.Message.(type) {
		case *doctorv1.ExecuteRequest_Saved:
			select {
			case h.saved <- m.Saved:
			case <-ctx.Done():
				return
			}
		case *doctorv1.ExecuteRequest_Rows:
			select {
			case h.rows <- m.Rows:
			case <-ctx.Done():
				return
			}
		case *doctorv1.ExecuteRequest_Cancel:
			cancel(context.Canceled)
		case *doctorv1.ExecuteRequest_Stop:
			h.stopOnce.Do(func() { close(h.stop) })
		default:
			cancel(errors.New("the host said something that this plugin does not know"))
			return
		}
	}
}

func (h *operationHost) Progress(p doctor.Progress) {
	h.send.Lock()
	defer h.send.Unlock()
	now := time.Now()
	if p.Note == "" && !h.last.IsZero() && now.Sub(h.last) < progressEvery {
		return
	}
	h.last = now
	_ = h.stream.Send(&doctorv1.ExecuteResponse{Message: &doctorv1.ExecuteResponse_Progress{Progress: progressTo(p)}})
}

func (h *operationHost) Stopping() <-chan struct{} { return h.stop }

func (h *operationHost) Document(name, text string) {
	if text = words(text); len(text) > maxDocument {
		text = strings.ToValidUTF8(text[:maxDocument-64], "") + "\n\n(the rest did not fit)\n"
	}
	h.send.Lock()
	defer h.send.Unlock()
	_ = h.stream.Send(&doctorv1.ExecuteResponse{Message: &doctorv1.ExecuteResponse_Document{Document: &doctorv1.Document{Name: words(name), Text: text}}})
}

func (h *operationHost) Save(ctx context.Context, resume string, rows []doctor.SavedRow) error {
	h.saving.Lock()
	defer h.saving.Unlock()
	h.number++
	save := &doctorv1.SaveRows{Number: h.number, Resume: resume}
	for _, r := range rows {
		save.Rows = append(save.Rows, &doctorv1.SavedRow{Table: r.Table, Json: r.JSON})
	}
	msg := &doctorv1.ExecuteResponse{Message: &doctorv1.ExecuteResponse_Save{Save: save}}
	if err := sendable(msg); err != nil {
		h.number--
		return fmt.Errorf("save %d rows: %w", len(rows), err)
	}
	h.send.Lock()
	err := h.stream.Send(msg)
	h.send.Unlock()
	if err != nil {
		return fmt.Errorf("save %d rows: %w", len(rows), err)
	}
	for {
		select {
		case answer := <-h.saved:
			switch {
			case answer.GetNumber() < h.number:
				continue // of a save that was given up
			case answer.GetNumber() > h.number:
				return fmt.Errorf("the host answered save %d, not %d", answer.GetNumber(), h.number)
			case answer.Error != "":
				return fmt.Errorf("the host could not save: %s", answer.Error)
			}
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-h.stream.Context().Done():
			return h.stream.Context().Err()
		}
	}
}

// Rows asks for page after page, so that each may take its time, and save, while no page is on its way.
func (h *operationHost) Rows(ctx context.Context, each func(doctor.SavedRow) error) error {
	h.reads.Lock()
	defer h.reads.Unlock()
	for first := true; ; first = false {
		h.send.Lock()
		err := h.stream.Send(&doctorv1.ExecuteResponse{Message: &doctorv1.ExecuteResponse_Read{Read: &doctorv1.ReadRows{First: first}}})
		h.send.Unlock()
		if err != nil {
			return fmt.Errorf("read the rows that were saved: %w", err)
		}
		var page *doctorv1.Rows
		select {
		case page = <-h.rows:
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-h.stream.Context().Done():
			return h.stream.Context().Err()
		}
		if page.Error != "" {
			return fmt.Errorf("the host could not read the rows that were saved: %s", page.Error)
		}
		for _, r := range page.Rows {
			if err := each(doctor.SavedRow{Table: r.GetTable(), JSON: r.GetJson()}); err != nil {
				return err
			}
		}
		if page.Last {
			return nil
		}
	}
}
