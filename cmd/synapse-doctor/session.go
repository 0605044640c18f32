package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/spf13/pflag"

	"github.com/synapse-doctor/synapse-doctor/core/config"
	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/engine"
	"github.com/synapse-doctor/synapse-doctor/core/report"
	"github.com/synapse-doctor/synapse-doctor/plugins/builtin"
	"github.com/synapse-doctor/synapse-doctor/plugins/host"
)

// pluginFlags say which plugins answer.
type pluginFlags struct {
	dev       []string
	dirs      []string
	inProcess bool

	// Which of the plugins of third parties are needed: those that have, by what was recorded of them, one of these checks or
	// codes, or every one.
	wanted []string
	every  bool
}

func (p *pluginFlags) register(f *pflag.FlagSet) {
	f.StringArrayVar(&p.dirs, "plugin-dir", nil, "look for the files of plugins in `DIR` first; may be repeated. Only those that synapse-doctor plugin add has recorded are run")
	f.StringArrayVar(&p.dev, "dev-plugin", nil, "also run the plugin in `FILE`, unverified: for its author; may be repeated")
	f.BoolVar(&p.inProcess, "in-process", false, "run the built-in checks in this process, for debugging")
}

func (p *pluginFlags) repeated() []string {
	var flags []string
	for _, dir := range p.dirs {
		flags = append(flags, "--plugin-dir", dir)
	}
	for _, file := range p.dev {
		flags = append(flags, "--dev-plugin", file)
	}
	return flags
}

// start begins to start the plugins' processes, in the background. A mistake in the doctor's configuration starts none.
func (p *pluginFlags) start(ctx context.Context, log *slog.Logger, notice io.Writer) (*config.Config, []doctor.Source, error) {
	conf, err := config.Load()
	if err != nil {
		return nil, nil, err
	}
	var guests []*host.Source
	for _, entry := range conf.Plugins {
		guest, err := p.installed(entry, log)
		if err != nil {
			return nil, nil, err
		}
		if p.needs(conf, entry) {
			guests = append(guests, guest)
		}
	}
	var sources []doctor.Source
	launch := func(s *host.Source) {
		s.Start(ctx)
		sources = append(sources, s)
	}
	if p.inProcess {
		sources = append(sources, &doctor.Local{PluginName: builtin.Name, Version: version(), Checks: builtin.Checks()})
	} else {
		launch(host.Builtin(host.Options{Log: log}))
	}
	for _, guest := range guests {
		launch(guest)
	}
	for _, file := range p.dev {
		fmt.Fprintf(notice, "synapse-doctor: DEVELOPMENT PLUGIN %s runs unverified, with Synapse's login to the database\n", doctor.Clean(file))
		launch(host.Dev(file, host.Options{Log: log}))
	}
	return conf, sources, nil
}

// closeAll ends the plugins at the same time: one that is stuck takes seconds to end.
func closeAll(sources []doctor.Source) {
	var wg sync.WaitGroup
	for _, s := range sources {
		wg.Go(func() { s.Close() })
	}
	wg.Wait()
}

// session is an engine with its plugins and its progress line.
type session struct {
	*engine.Engine
	assembled *assembled
	progress  *progress
	sources   []doctor.Source
	closing   sync.Once
}

// open starts the plugins, reads the configuration meanwhile, and makes the engine. Events: progress is told in JSON.
func (t *targetFlags) open(ctx context.Context, f *pflag.FlagSet, s streams, events bool) (*session, error) {
	level := slog.LevelWarn
	if t.verbose {
		level = slog.LevelDebug
	}
	log := slog.New(slog.NewTextHandler(s.err, &slog.HandlerOptions{Level: level}))
	conf, sources, err := t.plugins.start(ctx, log, s.err)
	if err != nil {
		return nil, err
	}
	a, err := t.assemble(f)
	if err != nil {
		closeAll(sources)
		return nil, err
	}
	state, err := t.state()
	if err != nil {
		closeAll(sources)
		return nil, err
	}
	for _, source := range sources {
		if terms := doctor.TermsOf(source); terms != nil {
			a.redactor.Add(terms.Reader["password"])
			a.redactor.Add(terms.Reader["sslpassword"])
		}
	}
	a.target.Thresholds = map[string]float64{}
	for _, set := range conf.Thresholds {
		a.target.Thresholds[set.ID] = set.Value
	}
	p := newProgress(s.err, events)
	s.stopper.Asked(func() {
		p.say("stopping as soon as what is being copied is whole; Ctrl-C once more stops at once")
	})
	out := &session{assembled: a, progress: p, sources: sources}
	out.Engine = engine.New(engine.Options{
		Version: version(), Target: a.target, Sources: sources, PIDFiles: a.pidFiles, StateDir: state, Timeout: a.timeout,
		FindAdmin: t.admin() == "",
		Redactor:  a.redactor, Log: log, Progress: p.update, Stopper: s.stopper,
		Notice: p.say, Ignored: ignoring(conf, time.Now()), Accept: accepting(conf, p.say), SourceOf: out.sourceOf(ctx, &t.plugins, conf, log),
	})
	return out, nil
}

// sourceOf finds the plugin that has a check by what was recorded of it, for a plan of an earlier run.
func (s *session) sourceOf(ctx context.Context, p *pluginFlags, conf *config.Config, log *slog.Logger) func(string) doctor.Source {
	return func(check string) doctor.Source {
		for _, entry := range conf.Plugins {
			if !slices.Contains(entry.Checks, check) {
				continue
			}
			guest, err := p.installed(entry, log)
			if err != nil {
				return nil
			}
			guest.Start(ctx)
			s.sources = append(s.sources, guest)
			return guest
		}
		return nil
	}
}

// openReport opens the session of a command that prints a report, and makes its formatter.
func (t *targetFlags) openReport(ctx context.Context, f *pflag.FlagSet, o *outputFlags, s streams) (*session, report.Formatter, error) {
	if _, err := o.formatter(t, nil, s); err != nil {
		return nil, nil, err // a misspelt format starts nothing
	}
	t.plugins.wanted, t.plugins.every = slices.Concat(f.Args(), t.skip), f.NArg() == 0
	e, err := t.open(ctx, f, s, o.format == "json")
	if err != nil {
		return nil, nil, err
	}
	formatter, err := o.formatter(t, e.assembled, s)
	if err != nil {
		e.close()
		return nil, nil, err
	}
	return e, formatter, nil
}

// close ends the plugins. Their processes are gone when it returns, however often it is called.
func (s *session) close() {
	s.closing.Do(func() {
		s.progress.end()
		closeAll(s.sources)
		s.assembled.target.Close()
	})
}

// tellInterrupted says on standard error which runs were killed and are not settled yet.
func tellInterrupted(stateDir string, w io.Writer) {
	for _, i := range engine.FindInterrupted(stateDir) {
		fmt.Fprintf(w, "synapse-doctor: run %s was interrupted while it changed %s; synapse-doctor fix --apply finishes or undoes it\n",
			doctor.Clean(i.Run), doctor.Clean(i.Target))
	}
}
