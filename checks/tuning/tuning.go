// Package tuning is the check that the server's settings fit the machine and what Synapse does with it. It may import
// core/doctor, core/synapse and core/pgdb.
//
// Advice is a range with its arithmetic, never a number alone, and nothing is called too small that the server's own
// statistics don't show to be: a database that fits in the buffers has nothing to win. look.go asks the server, machine.go
// its machine, need.go what Synapse needs beside it; recommend.go computes the ranges, and judge.go and danger.go compare;
// plan.go changes what can be changed, and prove.go tries a configuration that needs a restart before that.
package tuning

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/synapse"
)

const checkID = "tuning"

// The codes of the check.
const (
	SharedBuffers       = "tuning/shared-buffers"
	EffectiveCacheSize  = "tuning/effective-cache-size"
	WorkMem             = "tuning/work-mem"
	MaintenanceWorkMem  = "tuning/maintenance-work-mem"
	AutovacuumWorkMem   = "tuning/autovacuum-work-mem"
	MaxConnections      = "tuning/max-connections"
	RandomPageCost      = "tuning/random-page-cost"
	IOConcurrency       = "tuning/effective-io-concurrency"
	MaxWALSize          = "tuning/max-wal-size"
	Checkpoints         = "tuning/checkpoints"
	JIT                 = "tuning/jit"
	HugePages           = "tuning/huge-pages"
	TransparentHuge     = "tuning/transparent-huge-pages"
	WorstCase           = "tuning/worst-case"
	NotCrashSafe        = "tuning/not-crash-safe"
	LateCommits         = "tuning/late-commits"
	HiddenCorruption    = "tuning/hidden-corruption"
	RestartPending      = "tuning/restart-pending"
	ConfigurationFaulty = "tuning/configuration-faulty"
	MachineUnknown      = "tuning/machine-unknown"
)

// The numbers that an administrator may see differently.
var (
	hitRatio = doctor.Threshold{ID: "tuning/hit-ratio", Title: "least share of the reads that shared_buffers should answer",
		Unit: "percent", Default: 99, Min: 50, Max: 100}
	temporaryFiles = doctor.Threshold{ID: "tuning/temporary-files", Title: "temporary files written in a day from which on work_mem is called small",
		Unit: "bytes", Default: 1 << 30, Min: 1 << 20, Max: 1 << 50}
	forcedCheckpoints = doctor.Threshold{ID: "tuning/forced-checkpoints", Title: "share of checkpoints that the log's size forces from which on max_wal_size is called small",
		Unit: "percent", Default: 25, Min: 1, Max: 100}
	jitShare = doctor.Threshold{ID: "tuning/jit-share", Title: "share of the statements' time that is spent compiling from which on jit is advised against",
		Unit: "percent", Default: 5, Min: 1, Max: 100}
)

// Check is the check tuning.
var Check = doctor.Check{
	ID:    checkID,
	Title: "The server's settings fit its machine and its load",
	Why: "Values copied from elsewhere make a server slow, or have it killed when memory runs out; a few of them lose " +
		"the database in a crash.",
	Needs: doctor.NeedsPostgres,
	Codes: []doctor.Code{
		{ID: NotCrashSafe, Title: "a crash of the machine may destroy the database", Severity: doctor.Warning},
		{ID: HiddenCorruption, Title: "damaged pages are passed over in silence", Severity: doctor.Warning},
		{ID: WorstCase, Title: "the settings allow more memory than there is", Severity: doctor.Warning},
		{ID: ConfigurationFaulty, Title: "the server's configuration files have an error", Severity: doctor.Error},
		{ID: MaxConnections, Title: "max_connections does not fit what Synapse may open", Severity: doctor.Warning},
		{ID: SharedBuffers, Title: "shared_buffers does not fit the machine", Severity: doctor.Info},
		{ID: EffectiveCacheSize, Title: "effective_cache_size does not fit the machine", Severity: doctor.Info},
		{ID: WorkMem, Title: "work_mem does not fit the load", Severity: doctor.Info},
		{ID: MaintenanceWorkMem, Title: "maintenance_work_mem does not fit the tables", Severity: doctor.Info},
		{ID: AutovacuumWorkMem, Title: "autovacuum_work_mem does not fit the tables", Severity: doctor.Info},
		{ID: RandomPageCost, Title: "random_page_cost does not fit the disk", Severity: doctor.Info},
		{ID: IOConcurrency, Title: "effective_io_concurrency does not fit the disk", Severity: doctor.Info},
		{ID: MaxWALSize, Title: "the log's size forces checkpoints", Severity: doctor.Info},
		{ID: Checkpoints, Title: "checkpoints come too often, too seldom or at once", Severity: doctor.Info},
		{ID: JIT, Title: "compiling queries costs more than it should", Severity: doctor.Info},
		{ID: HugePages, Title: "huge pages are wanted and not there, or the reverse", Severity: doctor.Info},
		{ID: TransparentHuge, Title: "the kernel makes huge pages by itself", Severity: doctor.Info},
		{ID: LateCommits, Title: "a crash loses the last commits", Severity: doctor.Info},
		{ID: RestartPending, Title: "a changed setting waits for a restart", Severity: doctor.Info},
		{ID: MachineUnknown, Title: "the memory of the server's machine is not known", Severity: doctor.Info},
	},
	Thresholds: []doctor.Threshold{hitRatio, temporaryFiles, forcedCheckpoints, jitShare},
	Run:        run,
	Plan:       plan,
	Operations: map[string]doctor.OperationFunc{proveName: prove},
}

func run(ctx context.Context, t *doctor.Target, r doctor.Reporter) error {
	servers, err := look(ctx, t, hostMachine)
	var covered []string
	for _, s := range servers {
		for _, a := range s.judge() {
			r.Find(s.finding(a))
		}
		for _, m := range s.measures() {
			r.Measure(m)
		}
		covered = append(covered, s.covered())
	}
	if len(covered) > 0 {
		r.Covered(strings.Join(covered, "; "))
	}
	return err
}

// look reads what is to be known of each server that a database is on, once.
func look(ctx context.Context, t *doctor.Target, k kernel) ([]*server, error) {
	var config *synapse.Config
	var problems []error
	if len(t.ConfigFiles) > 0 {
		var err error
		if config, err = synapse.Load(t.ConfigFiles...); err != nil {
			problems = append(problems, err)
		}
	}
	var servers []*server
	for _, d := range t.Meeting(doctor.NeedsPostgres) {
		s := &server{target: t, db: d, kernel: k}
		if err := s.ask(ctx); err != nil {
			problems = append(problems, fmt.Errorf("database %s: %w", d.Label, err))
			continue
		}
		if i := slices.IndexFunc(servers, s.same); i >= 0 {
			servers[i].shares(s)
			continue
		}
		servers = append(servers, s)
	}
	for _, s := range servers {
		s.need(config)
		s.lookAtMachine()
	}
	return servers, errors.Join(problems...)
}
