package wire

import (
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	doctorv1 "github.com/synapse-doctor/synapse-doctor/proto/doctor/v1"
)

// filler makes values of the vocabulary with something in every field, so that a field that the wire forgets is noticed
// on the day it is added.
type filler struct{ *rand.Rand }

var words4 = []string{"", "main", "sequence/behind-table", "línea\n    SELECT 1;", "\u202e\x1b[31m", "%s '\"; --", strings.Repeat("long ", 300)}

func pick[T any](r filler, list ...T) T { return list[r.IntN(len(list))] }

func (r filler) fill(v reflect.Value) {
	switch v.Interface().(type) {
	case doctor.Severity:
		v.Set(reflect.ValueOf(pick(r, doctor.Info, doctor.Warning, doctor.Error)))
	case doctor.Risk:
		v.Set(reflect.ValueOf(pick(r, doctor.Safe, doctor.Careful, doctor.Dangerous)))
	case doctor.Status:
		v.Set(reflect.ValueOf(pick(r, doctor.StatusOK, doctor.StatusSkipped, doctor.StatusUnknown)))
	case doctor.Engine:
		v.Set(reflect.ValueOf(pick(r, doctor.Postgres, doctor.SQLite)))
	case doctor.Expectation:
		v.Set(reflect.ValueOf(pick(r, doctor.ExpectSynapse, doctor.ExpectEmpty, doctor.ExpectAbsent, doctor.ExpectNone)))
	case doctor.Requirement:
		v.Set(reflect.ValueOf(pick(r, doctor.RequireStopped, doctor.RequireAdmin, doctor.RequireDisk, doctor.RequireShut)))
	case doctor.SQLMode:
		v.Set(reflect.ValueOf(pick(r, doctor.ModeAlone, doctor.ModeGroup, doctor.ModeNone)))
	case doctor.Needs:
		v.SetUint(r.Uint64() & uint64(doctor.AllNeeds))
	case doctor.Value:
		v.Set(reflect.ValueOf(doctor.Value{V: pick[any](r, nil, "", "text", int64(math.MinInt64), int64(0), true, false, []byte{}, []byte{0, 255})}))
	case time.Duration:
		v.SetInt(r.Int64() - r.Int64())
	case doctor.Step:
		step := doctor.Step{Title: pick(r, words4...)}
		one := reflect.ValueOf(&step).Elem().Field(1 + r.IntN(5))
		one.Set(reflect.New(one.Type().Elem()))
		r.fill(one.Elem())
		v.Set(reflect.ValueOf(step))
	case doctor.ProbeStep:
		r.fields(v)
		if v.FieldByName("Holds").IsNil() && v.FieldByName("Login").IsNil() {
			v.FieldByName("Login").Set(reflect.ValueOf(&doctor.Login{}))
		}
	case doctor.Description:
		r.fields(v)
		v.FieldByName("Path").SetString("") // the host knows it
	case doctor.Finding:
		r.fields(v)
		v.FieldByName("Ignored").SetZero() // the host's administrator decides it
	case doctor.Earlier:
		var measures []doctor.Measure
		r.fill(reflect.ValueOf(&measures).Elem())
		v.Set(reflect.ValueOf(doctor.NewEarlier(measures)))
	case doctor.Machine:
		v.Set(reflect.ValueOf(doctor.Machine{Memory: r.Int64(), CPUs: r.IntN(1000), Disk: pick(r, doctor.DiskUnknown, doctor.DiskSSD, doctor.DiskHDD)}))
	case time.Time:
		v.Set(reflect.ValueOf(pick(r, time.Time{}, time.Unix(r.Int64N(1<<40)+1, 0))))
	case doctor.Outcome:
		r.fields(v)
		v.FieldByName("Reason").SetString("because")
	case doctor.OperationStep:
		r.fields(v)
		v.FieldByName("Name").SetString("rebuild")
	case []byte:
		v.SetBytes(pick(r, nil, []byte("sixteen bytes ok")))
	case []doctor.Splice:
		var list []doctor.Splice
		for at := int64(0); r.IntN(3) > 0; at += 10 + r.Int64N(100) {
			list = append(list, doctor.Splice{Offset: at, Old: []byte("old"), New: []byte("neu\x00\xff")})
		}
		v.Set(reflect.ValueOf(list))
	default:
		r.kind(v)
	}
}

func (r filler) fields(v reflect.Value) {
	for i := range v.NumField() {
		if v.Type().Field(i).IsExported() {
			r.fill(v.Field(i))
		}
	}
}

func (r filler) kind(v reflect.Value) {
	switch v.Kind() {
	case reflect.Struct:
		r.fields(v)
	case reflect.String:
		v.SetString(pick(r, words4...))
	case reflect.Bool:
		v.SetBool(r.IntN(2) == 0)
	case reflect.Float64:
		v.SetFloat(pick(r, 0, -1.5, math.MaxFloat64, r.Float64()))
	case reflect.Int64:
		v.SetInt(r.Int64())
	case reflect.Int:
		v.SetInt(0) // Description.Protocol, which the host knows
	case reflect.Pointer:
		if r.IntN(4) > 0 {
			v.Set(reflect.New(v.Type().Elem()))
			r.fill(v.Elem())
		}
	case reflect.Slice:
		for range r.IntN(4) {
			e := reflect.New(v.Type().Elem()).Elem()
			if e.Kind() == reflect.Pointer {
				e.Set(reflect.New(e.Type().Elem()))
				r.fill(e.Elem())
			} else {
				r.fill(e)
			}
			v.Set(reflect.Append(v, e))
		}
	case reflect.Map:
		if n := r.IntN(4); n > 0 {
			v.Set(reflect.MakeMap(v.Type()))
			for i := range n {
				e := reflect.New(v.Type().Elem()).Elem()
				r.fill(e)
				v.SetMapIndex(reflect.ValueOf(fmt.Sprint("key ", i)), e)
			}
		}
	default:
		panic("no rule for " + v.Type().String())
	}
}

func roundTrip[D any, P interface {
	*M
	proto.Message
}, M any](t *testing.T, to func(D) (P, error), from func(P) (D, error)) {
	t.Helper()
	for seed := range uint64(300) {
		var in D
		(filler{rand.New(rand.NewPCG(seed, 7))}).fill(reflect.ValueOf(&in).Elem())
		msg, err := to(in)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		b, err := proto.Marshal(msg)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		back := P(new(M))
		if err := proto.Unmarshal(b, back); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		out, err := from(back)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if !reflect.DeepEqual(in, out) {
			t.Fatalf("seed %d:\n in %+v\nout %+v", seed, in, out)
		}
	}
}

func TestNothingIsLostOnTheWay(t *testing.T) {
	t.Run("target", func(t *testing.T) {
		roundTrip(t, func(x doctor.Target) (*doctorv1.Target, error) { return TargetTo(&x) },
			func(m *doctorv1.Target) (doctor.Target, error) {
				x, err := TargetFrom(m)
				if err != nil {
					return doctor.Target{}, err
				}
				return *x, nil
			})
	})
	t.Run("finding", func(t *testing.T) { roundTrip(t, FindingTo, FindingFrom) })
	t.Run("measure", func(t *testing.T) {
		roundTrip(t, func(m doctor.Measure) (*doctorv1.Measure, error) { return measureTo(m), nil },
			func(m *doctorv1.Measure) (doctor.Measure, error) { return measureFrom(m), nil })
	})
	t.Run("plan", func(t *testing.T) { roundTrip(t, PlanTo, PlanFrom) })
	t.Run("description", func(t *testing.T) { roundTrip(t, DescriptionTo, DescriptionFrom) })
	t.Run("outcome", func(t *testing.T) { roundTrip(t, outcomeTo, outcomeFrom) })
	t.Run("progress", func(t *testing.T) {
		roundTrip(t, func(p doctor.Progress) (*doctorv1.Progress, error) { return progressTo(p), nil },
			func(m *doctorv1.Progress) (doctor.Progress, error) { return progressFrom(m), nil })
	})
	t.Run("operation", func(t *testing.T) {
		roundTrip(t, func(o doctor.OperationStep) (*doctorv1.OperationStep, error) { return operationTo(o), nil }, operationFrom)
	})
}

func TestWhatMakesNoSenseIsAnError(t *testing.T) {
	step := func(s *doctorv1.Step) error { _, err := stepFrom(s); return err }
	sql := func(s *doctorv1.SqlStep) error { return step(&doctorv1.Step{Kind: &doctorv1.Step_Sql{Sql: s}}) }
	second := func(_ any, err error) error { return err }
	for want, err := range map[string]error{
		"database engine is missing":           second(databaseFrom(&doctorv1.Database{})),
		"database engine 9 is not known":       second(databaseFrom(&doctorv1.Database{Engine: 9})),
		"need 77 is not known":                 second(needsFrom([]doctorv1.Need{77})),
		"need is missing":                      second(needsFrom([]doctorv1.Need{0})),
		"the request has no target":            second(TargetFrom(nil)),
		"a database entry is missing":          second(TargetFrom(&doctorv1.Target{Databases: []*doctorv1.Database{nil}})),
		"severity is missing":                  second(FindingFrom(&doctorv1.Finding{})),
		"a plan is missing":                    second(PlanFrom(nil)),
		"risk is missing":                      second(PlanFrom(&doctorv1.PlannedFix{})),
		"requirement 5 is not known":           second(PlanFrom(&doctorv1.PlannedFix{Risk: 1, Expects: 1, Requires: []doctorv1.Requirement{5}})),
		"nothing to do":                        step(&doctorv1.Step{}),
		"transaction mode is missing":          sql(&doctorv1.SqlStep{}),
		"an argument has no value":             sql(&doctorv1.SqlStep{Mode: 1, Args: []*doctorv1.Value{{}}}),
		"a probe has nothing to look at":       step(&doctorv1.Step{Kind: &doctorv1.Step_Probe{}}),
		"an operation has no name":             step(&doctorv1.Step{Kind: &doctorv1.Step_Operation{}}),
		"the replacement at byte -1":           second(editFrom(&doctorv1.EditFileStep{Splices: []*doctorv1.Splice{{Offset: -1}}})),
		"the replacement at byte 4":            second(editFrom(&doctorv1.EditFileStep{Splices: []*doctorv1.Splice{{Old: []byte("12345")}, {Offset: 4}}})),
		"status unknown has no reason":         second(outcomeFrom(&doctorv1.Done{Status: 3})),
		`severity "severity(0)" is not`:        second(FindingTo(doctor.Finding{})),
		"needs 0x80000000 are not known":       second(needsTo(1 << 31)),
		"an argument is a float64":             second(valueTo(doctor.Value{V: 1.5})),
		"does not say exactly one thing to do": second(stepTo(doctor.Step{})),
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

func TestTextThatIsNotUTF8(t *testing.T) {
	f, err := FindingTo(doctor.Finding{Code: "a/b", Severity: doctor.Info, Summary: "a\xffb", Evidence: map[string]string{"k\xff": "\xff"}})
	if err != nil || sendable(f) != nil || f.Summary != "a\uFFFDb" {
		t.Errorf("a finding is not mended: %v, %v, %v", f, err, sendable(f))
	}
	p, err := PlanTo(doctor.Plan{ID: "a/b", Risk: doctor.Safe, Expects: doctor.ExpectNone, Steps: []doctor.Step{{Manual: &doctor.ManualStep{Text: "\xff"}}}})
	if err != nil || sendable(p) == nil {
		t.Error("a plan is sent with text that is not UTF-8")
	}
}

// FuzzMessages feeds any bytes that are a message to every conversion. What is accepted survives the way back.
func FuzzMessages(f *testing.F) {
	for seed := range uint64(20) {
		r := filler{rand.New(rand.NewPCG(seed, 1))}
		var plan doctor.Plan
		var target doctor.Target
		var finding doctor.Finding
		r.fill(reflect.ValueOf(&plan).Elem())
		r.fill(reflect.ValueOf(&target).Elem())
		r.fill(reflect.ValueOf(&finding).Elem())
		p, _ := PlanTo(plan)
		g, _ := TargetTo(&target)
		d, _ := FindingTo(finding)
		for _, m := range []proto.Message{p, g, d} {
			b, err := proto.Marshal(m)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(b)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		survives(t, b, PlanFrom, PlanTo)
		survives(t, b, TargetFrom, TargetTo)
		survives(t, b, FindingFrom, FindingTo)
		survives(t, b, DescriptionFrom, DescriptionTo)
		survives(t, b, outcomeFrom, outcomeTo)
	})
}

func survives[D any, P interface {
	*M
	proto.Message
}, M any](t *testing.T, b []byte, from func(P) (D, error), to func(D) (P, error)) {
	t.Helper()
	msg := P(new(M))
	if proto.Unmarshal(b, msg) != nil {
		return
	}
	first, err := from(msg)
	if err != nil {
		return
	}
	again, err := to(first)
	if err != nil {
		t.Fatalf("%T was accepted and can't be sent back: %v", first, err)
	}
	second, err := from(again)
	if err != nil {
		t.Fatalf("%T: %v", first, err)
	}
	if !reflect.DeepEqual(first, second) {
		t.Fatalf("%T changed:\n%+v\n%+v", first, first, second)
	}
}
