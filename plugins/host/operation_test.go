package host_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
)

// keeper is a host that keeps what an operation saves.
type keeper struct {
	kept     []string
	rows     []doctor.SavedRow
	progress func()
	refuse   error
	stopping chan struct{}
	written  []string
}

func (k *keeper) Stopping() <-chan struct{} { return k.stopping }

func (k *keeper) Document(name, text string) { k.written = append(k.written, name+": "+text) }

func (k *keeper) Progress(doctor.Progress) {
	if k.progress != nil {
		k.progress()
	}
}

func (k *keeper) Save(_ context.Context, resume string, rows []doctor.SavedRow) error {
	if k.refuse != nil && len(k.kept) == 2 {
		return k.refuse
	}
	k.kept = append(k.kept, fmt.Sprint(resume, rows))
	k.rows = append(k.rows, rows...)
	return nil
}

func (k *keeper) Rows(_ context.Context, each func(doctor.SavedRow) error) error {
	for _, r := range k.rows {
		if err := each(r); err != nil {
			return err
		}
	}
	return k.refuse
}

func operation(name string) doctor.ExecuteRequest {
	return doctor.ExecuteRequest{Target: &doctor.Target{Writable: true}, Check: "works", Step: doctor.OperationStep{Name: name}}
}

func TestOperationSavesBeforeItGoesOnAndResumes(t *testing.T) {
	p := start(t, "good")
	k := &keeper{refuse: errors.New("disk full")}
	says(t, p.Execute(within(t), operation("copy"), k), "the host could not save: disk full")
	if len(k.kept) != 2 {
		t.Fatalf("kept %v", k.kept)
	}
	k.refuse = nil
	req := operation("copy")
	req.Resume = "2"
	if err := p.Execute(within(t), req, k); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(k.kept, " "); got != `1[{t {"n":0}}] 2[{t {"n":1}}] 3[{t {"n":2}}] 4[{t {"n":3}}] 5[{t {"n":4}}]` {
		t.Errorf("kept %s", got)
	}
}

// More than a page of rows, one of them larger than a page, read by an operation that saves between one and the next.
func TestOperationReadsBackWhatItHasSaved(t *testing.T) {
	p := start(t, "good")
	k := &keeper{}
	for n := range 2500 {
		k.rows = append(k.rows, doctor.SavedRow{Table: "t", JSON: fmt.Sprintf(`{"n":%d}`, n)})
	}
	k.rows[7].JSON = `{"n":7, "v":"` + strings.Repeat("x", 9<<20) + `"}`
	if err := p.Execute(within(t), operation("put-back"), k); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(k.kept, " "); got != "half[] whole 2500[] again 2500[]" {
		t.Errorf("kept %s", got)
	}
	k.kept, k.refuse = nil, errors.New("the disk is gone")
	says(t, p.Execute(within(t), operation("put-back"), k), "the disk is gone")
}

func TestOperationThatHasChangedNothingSaysSo(t *testing.T) {
	p := start(t, "good")
	err := p.Execute(within(t), operation("refuse"), &keeper{})
	if u, ok := errors.AsType[*doctor.UnchangedError](err); !ok || u.Reason != "the moon is full" {
		t.Errorf("%v", err)
	}
}

func TestOperationIsToldToStopAndHasStoppedWhenExecuteReturns(t *testing.T) {
	p := start(t, "good")
	ctx, cancel := context.WithCancelCause(within(t))
	cause := errors.New("the administrator gave up")
	if err := p.Execute(ctx, operation("wait"), &keeper{progress: func() { cancel(cause) }}); !errors.Is(err, cause) {
		t.Error(err)
	}
	if _, err := p.Describe(within(t)); err != nil || len(p.log.pids()) != 1 {
		t.Errorf("%v; started %d times: the process need not have been ended", err, len(p.log.pids()))
	}
	p.Close()
	if !strings.Contains(p.log.String(), "the operation has stopped") {
		t.Error("the operation was not told")
	}
}

func TestOperationThatIsAskedToStopSaysHowToGoOnAndHandsOverWhatItWrote(t *testing.T) {
	p := start(t, "good")
	k := &keeper{stopping: make(chan struct{})}
	k.progress = func() { close(k.stopping) }
	err := p.Execute(within(t), operation("chunks"), k)
	if s, ok := errors.AsType[*doctor.StoppedError](err); !ok || s.Hint != "Run it again." {
		t.Errorf("%v", err)
	}
	if got := strings.Join(k.written, "|"); got != "report.md: # Half|report.md: # Whole" {
		t.Errorf("written: %s", got)
	}
}

func TestOperationThatDoesNotStopIsEndedWithItsProcess(t *testing.T) {
	p := start(t, "good")
	ctx, cancel := context.WithCancelCause(within(t))
	cause := errors.New("the administrator gave up")
	err := p.Execute(ctx, operation("stuck"), &keeper{progress: func() { cancel(cause) }})
	says(t, err, "did not stop when told to, and its process was ended")
	if !errors.Is(err, cause) {
		t.Error("the cause is lost")
	}
	gone(t, func() []string { return groupMembers(p.log.pids()[0]) })
}

func TestOperationThatLiesIsEnded(t *testing.T) {
	p := start(t, "lie-save")
	says(t, p.Execute(within(t), operation("x"), &keeper{}), "save 7 came where 1 was due", "its process was ended")
}

func TestErrorsKeepTheirMeaningAcrossTheWire(t *testing.T) {
	p := start(t, "good")
	if err := p.Execute(within(t), operation("absent"), &keeper{}); !errors.Is(err, doctor.ErrNotFound) {
		t.Errorf("absent operation: %v", err)
	}
	if _, err := run(within(t), p, "absent"); !errors.Is(err, doctor.ErrNotFound) || !strings.Contains(err.Error(), `check "absent"`) {
		t.Errorf("absent check: %v", err)
	}
	plan := func(fs ...doctor.Finding) ([]doctor.Plan, error) {
		return p.Plan(within(t), doctor.PlanRequest{Target: &doctor.Target{}, Check: "works", Findings: fs})
	}
	_, err := plan()
	if reason, ok := doctor.SkipReason(err); !ok || reason != "there is nothing to plan" {
		t.Errorf("skip: %v", err)
	}
	_, err = plan(doctor.Finding{Code: "works/fault", Severity: doctor.Info, Summary: "boom"})
	if panicked, ok := errors.AsType[*doctor.PanicError](err); !ok || panicked.Value != "plan boom" || !strings.Contains(panicked.Stack, "main.go") {
		t.Errorf("panic: %v", err)
	}
	plans, err := plan(doctor.Finding{Code: "works/fault", Severity: doctor.Info})
	if err != nil || len(plans) != 1 || plans[0].Steps[0].Operation.Name != "copy" {
		t.Errorf("plan: %v, %v", plans, err)
	}
}
