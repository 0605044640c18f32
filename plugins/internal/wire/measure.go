package wire

import (
	"fmt"
	"math"
	"time"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	doctorv1 "github.com/synapse-doctor/synapse-doctor/proto/doctor/v1"
)

func measureTo(m doctor.Measure) *doctorv1.Measure {
	out := &doctorv1.Measure{Check: words(m.Check), Database: words(m.Database), Object: &doctorv1.Object{Kind: words(m.Object.Kind), Name: words(m.Object.Name)},
		Name: words(m.Name), Value: m.Value, Unit: words(m.Unit)}
	if !m.At.IsZero() {
		out.At = m.At.Unix()
	}
	return out
}

func measureFrom(m *doctorv1.Measure) doctor.Measure {
	out := doctor.Measure{Check: m.GetCheck(), Database: m.GetDatabase(), Object: doctor.Object{Kind: m.GetObject().GetKind(), Name: m.GetObject().GetName()},
		Name: m.GetName(), Value: m.GetValue(), Unit: m.GetUnit()}
	if at := m.GetAt(); at != 0 {
		out.At = time.Unix(at, 0)
	}
	return out
}

func earlierTo(e doctor.Earlier) []*doctorv1.Measure {
	var out []*doctorv1.Measure
	for _, m := range e.Measures {
		out = append(out, measureTo(m))
	}
	return out
}

func earlierFrom(list []*doctorv1.Measure) doctor.Earlier {
	var measures []doctor.Measure
	for _, m := range list {
		measures = append(measures, measureFrom(m))
	}
	return doctor.NewEarlier(measures)
}

func thresholdsTo(list []doctor.Threshold) []*doctorv1.Threshold {
	var out []*doctorv1.Threshold
	for _, t := range list {
		out = append(out, &doctorv1.Threshold{Id: t.ID, Title: t.Title, Unit: t.Unit, Default: t.Default, Min: t.Min, Max: t.Max})
	}
	return out
}

func thresholdsFrom(list []*doctorv1.Threshold) []doctor.Threshold {
	var out []doctor.Threshold
	for _, t := range list {
		out = append(out, doctor.Threshold{ID: t.GetId(), Title: t.GetTitle(), Unit: t.GetUnit(), Default: t.GetDefault(), Min: t.GetMin(), Max: t.GetMax()})
	}
	return out
}

func machineTo(m doctor.Machine) *doctorv1.Machine {
	if m == (doctor.Machine{}) {
		return nil
	}
	return &doctorv1.Machine{Memory: m.Memory, Cpus: int64(m.CPUs), Disk: string(m.Disk)}
}

func machineFrom(m *doctorv1.Machine) (doctor.Machine, error) {
	if m == nil {
		return doctor.Machine{}, nil
	}
	if m.Memory < 0 || m.Cpus < 0 || m.Cpus > math.MaxInt32 {
		return doctor.Machine{}, fmt.Errorf("a machine with %d bytes of memory and %d CPUs", m.Memory, m.Cpus)
	}
	out := doctor.Machine{Memory: m.Memory, CPUs: int(m.Cpus)}
	if m.Disk != "" {
		var err error
		if out.Disk, err = doctor.ParseDisk(m.Disk); err != nil {
			return doctor.Machine{}, err
		}
	}
	return out, nil
}
