package conformance

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/plugins/host"
	"github.com/synapse-doctor/synapse-doctor/plugins/internal/wire"
)

// points are in the order in which an author mends them. plugin.proto says what each rests on.
var points = []point{
	{"bare-start", "started by hand, it says what it is and exits with status 1",
		"Without SYNAPSE_DOCTOR_PLUGIN in the environment: one sentence to stderr, nothing to stdout, exit status 1. Run the file by hand to see all that it says.", bareStart},
	{"first-line", "its first line of stdout is the handshake, within 5 seconds",
		"Print nothing to stdout before the handshake: point the language's own output at stderr first. Load what is slow to load later. When it ends before, run it by hand: it says why.", firstLine},
	{"tls", "it speaks TLS and lets in nobody but its host",
		"Demand and verify the one client certificate in PLUGIN_CLIENT_CERT, with TLS 1.3, and put your own into the sixth field of the handshake.", onlyTheHost},
	{"health", "its health is SERVING",
		`Serve grpc.health.v1.Health, with SERVING for the service "plugin".`, func(ctx context.Context, k *kit) error { return k.with(ctx, health) }},
	{"future-version", "it copes with hosts that speak newer versions of the protocol",
		"Choose the highest version that both speak from PLUGIN_PROTOCOL_VERSIONS, which has no order; announce your own when they share none.", futureVersion},
	{"describe", "its description is valid, and always the same",
		"Ids are lower-case words joined by hyphens, unique, and begin a check's codes; they never change. See DescribeResponse in plugin.proto.", describes},
	{"done", "each check ends with exactly one Done",
		"Whatever happens in a check, send one Done, as the last event of it: STATUS_UNKNOWN with the reason when it failed.", endsOnce},
	{"not-found", "a check that it does not have is NOT_FOUND",
		"Answer Check and Plan with the gRPC status NOT_FOUND when you don't know the id.", notFound},
	{"cancel", "a check that is given up ends within a second",
		"Watch the call's context, cancel the query that is running, and close the connection. Keep to the deadline in CheckRequest as well.", cancels},
	{"at-once", "all checks run at the same time, and twice at the same time",
		"Keep no state between calls without a lock, and do not let calls wait for one another.", atOnce},
	{"message-size", "no message is larger than 4 MiB",
		"Report each finding in a message of its own, with bounded evidence: a hundred rows tell no more than ten.", messageSize},
	{"shutdown", "Shutdown ends it within 2 seconds, and its socket is gone",
		"Serve plugin.GRPCController; its Shutdown stops serving, removes the socket and exits, whatever still runs.", shutsDown},
	{"host-gone", "it ends within 2 seconds when its host is gone",
		"Read stdin in the background and exit at its end.", hostGone},
	{"bare-environment", "it works with nothing but PATH in its environment",
		"Depend on no HOME, LANG, TMPDIR or variable of your own: under systemd and in containers they are not there.", bareEnvironment},
	{"secrets-and-writes", "no password appears anywhere; checks and plans write nothing",
		"Leave the settings out of findings, errors, logs and the arguments and environment of programs that you start. What is to be changed is a step of a plan.", secretsAndWrites},
}

// with runs a point that needs nothing but a plugin that is connected to.
func (k *kit) with(ctx context.Context, try func(context.Context, *kit, *plugin) error) error {
	p, err := k.start(ctx)
	if err != nil {
		return err
	}
	defer p.close()
	return try(ctx, k, p)
}

func bareStart(ctx context.Context, k *kit) error {
	t, err := host.Try(k.file, host.TrialOptions{Env: host.Environ(), NoCookie: true})
	if err != nil {
		return err
	}
	defer t.Close()
	if !t.Ended(ctx, k.limit(startWithin)) {
		return fmt.Errorf("it was still running after %s", k.limit(startWithin))
	}
	stderr := strings.TrimSpace(t.Stderr())
	switch {
	case t.Stdout() != "":
		return fmt.Errorf("it printed %q to stdout", clip(t.Stdout()))
	case t.ExitStatus() != 1:
		return fmt.Errorf("its exit status was %d", t.ExitStatus())
	case len(strings.Fields(stderr)) < 4 || !utf8.ValidString(stderr):
		return fmt.Errorf("it said %q on stderr, which is no sentence", clip(stderr))
	case strings.Contains(stderr, "Traceback (most recent call last)") || strings.Contains(stderr, "goroutine 1 ["):
		return errors.New("it printed a stack trace, and not a sentence for people")
	}
	return nil
}

func firstLine(ctx context.Context, k *kit) error {
	if k.mute != nil {
		return k.mute
	}
	t, err := host.Try(k.file, host.TrialOptions{Env: host.Environ()})
	if err != nil {
		return err
	}
	defer t.Close()
	g, err := k.greeting(ctx, t, k.limit(startWithin))
	switch {
	case err != nil:
		return err
	case g.Before != "":
		return fmt.Errorf("it printed %q to stdout before the handshake", clip(g.Before))
	}
	return nil
}

// greeting waits for the plugin to announce itself.
func (k *kit) greeting(ctx context.Context, t *host.Trial, within time.Duration) (host.Greeting, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, within, fmt.Errorf("it did not announce itself within %s", within))
	defer cancel()
	g, err := t.Greeting(ctx)
	if err != nil && t.Stdout() != "" {
		err = fmt.Errorf("%w; it printed %q to stdout", err, clip(t.Stdout()))
	}
	return g, err
}

func onlyTheHost(ctx context.Context, k *kit) error {
	return k.with(ctx, func(ctx context.Context, k *kit, p *plugin) error {
		if p.greeting.DER == nil {
			return errors.New("there is no certificate in its handshake")
		}
		stranger, err := wire.NewCertificate()
		if err != nil {
			return err
		}
		ours, err := p.tls(p.Certificate)
		if err != nil {
			return err
		}
		theirs, err := p.tls(stranger)
		if err != nil {
			return err
		}
		nobodys, err := p.tls()
		if err != nil {
			return err
		}
		for _, who := range []struct {
			name  string
			creds credentials.TransportCredentials
		}{
			{"without TLS", insecure.NewCredentials()},
			{"without a certificate", credentials.NewTLS(nobodys)},
			{"with another certificate than the host's", credentials.NewTLS(theirs)},
		} {
			if p.answers(ctx, who.creds, k.limit(endWithin)) == nil {
				return fmt.Errorf("it answered somebody %s", who.name)
			}
		}
		if err := p.answers(ctx, credentials.NewTLS(ours), k.limit(startWithin)); err != nil {
			return fmt.Errorf("it refused its host: %w", err)
		}
		return nil
	})
}

// answers asks for a service's health, whatever the answer.
func (p *plugin) answers(ctx context.Context, creds credentials.TransportCredentials, within time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	conn, err := p.dial(creds)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := healthy(ctx, conn); status.Code(err) == codes.Unavailable || status.Code(err) == codes.DeadlineExceeded {
		return err
	}
	return nil
}

func health(ctx context.Context, k *kit, p *plugin) error {
	ctx, cancel := context.WithTimeout(ctx, k.limit(startWithin))
	defer cancel()
	if err := healthy(ctx, p.conn); err != nil {
		return errors.New(status.Convert(err).Message())
	}
	return nil
}

// unknownVersion is a version of the protocol that no host speaks for a long time.
const unknownVersion = 99

func futureVersion(ctx context.Context, k *kit) error {
	if k.mute != nil {
		return errMute
	}
	usual, err := k.announces(ctx, "")
	if err != nil {
		return err
	}
	for _, offer := range []string{fmt.Sprintf("%d,%d", unknownVersion, usual), fmt.Sprintf("%d,%d", usual, unknownVersion), fmt.Sprint(unknownVersion)} {
		got, err := k.announces(ctx, offer)
		if err != nil {
			return fmt.Errorf("with PLUGIN_PROTOCOL_VERSIONS=%s: %w", offer, err)
		}
		if got != usual {
			return fmt.Errorf("with PLUGIN_PROTOCOL_VERSIONS=%s it announced version %d, not its own, %d", offer, got, usual)
		}
	}
	return nil
}

// announces is the version of the protocol that it says it speaks.
func (k *kit) announces(ctx context.Context, versions string) (int, error) {
	t, err := host.Try(k.file, host.TrialOptions{Env: host.Environ(), Versions: versions})
	if err != nil {
		return 0, err
	}
	defer t.Close()
	g, err := k.greeting(ctx, t, k.limit(2*startWithin))
	return g.Protocol, err
}

func describes(ctx context.Context, k *kit) error {
	var first doctor.Description
	for n := range 2 { // processes
		err := k.with(ctx, func(ctx context.Context, k *kit, p *plugin) error {
			for m := range 2 { // calls
				ctx, cancel := context.WithTimeoutCause(ctx, k.limit(startWithin), errors.New("it did not answer"))
				defer cancel()
				d, err := p.asked.Describe(ctx)
				switch {
				case err != nil:
					return err
				case n == 0 && m == 0:
					first = d
					if err := host.ValidateDescription(d); err != nil {
						return err
					}
					if len(d.Checks) == 0 {
						return errors.New("it has no check")
					}
				case !reflect.DeepEqual(d, first) && n == 0:
					return errors.New("asked twice, it described itself in two ways")
				case !reflect.DeepEqual(d, first):
					return errors.New("started again, it described itself in another way")
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// checkWithin is how long one check may take on the small database of a test.
const checkWithin = 20 * time.Second

func endsOnce(ctx context.Context, k *kit) error {
	return k.with(ctx, func(ctx context.Context, k *kit, p *plugin) error {
		checks, err := p.describe(ctx)
		if err != nil {
			return err
		}
		var wrong []error
		var unknown []string
		for _, c := range checks {
			done, err := p.endsAlone(ctx, k, c.ID, checks)
			if err != nil {
				wrong = append(wrong, err)
				continue
			}
			k.sound[c.ID] = done.Status
			if done.Status == doctor.StatusUnknown {
				unknown = append(unknown, fmt.Sprintf("The check %q could not look: %s", c.ID, done.Reason))
			}
		}
		if len(wrong) == 0 && len(unknown) > 0 {
			return &note{strings.Join(unknown, "\n") + "\nThis database is small: that a table is not in it is no fault. Anything else is: see the check's own tests."}
		}
		return errors.Join(wrong...)
	})
}

// endsAlone runs one check by itself.
func (p *plugin) endsAlone(ctx context.Context, k *kit, id string, checks []doctor.CheckInfo) (doctor.Outcome, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, k.limit(checkWithin+5*time.Second), fmt.Errorf("it did not end within %s", k.limit(checkWithin)))
	defer cancel()
	t, err := p.check(ctx, k.stand.target(checks), k.limit(checkWithin), id)
	if err != nil {
		return doctor.Outcome{}, fmt.Errorf("check %q: %w", id, err)
	}
	return t.done[id], nil
}

// soundOnes are the checks of which the point about Done found nothing wrong.
func (k *kit) soundOnes(checks []doctor.CheckInfo) ([]string, error) {
	var sound []string
	for _, id := range ids(checks) {
		if _, ok := k.sound[id]; ok {
			sound = append(sound, id)
		}
	}
	if len(sound) == 0 {
		return nil, skipped("it needs a check that ends as it ought to: see that point")
	}
	return sound, nil
}

const unknownCheck = "no-such-check-of-any-plugin"

func notFound(ctx context.Context, k *kit) error {
	return k.with(ctx, func(ctx context.Context, k *kit, p *plugin) error {
		ctx, cancel := context.WithTimeoutCause(ctx, k.limit(startWithin), errors.New("it did not answer"))
		defer cancel()
		_, err := p.check(ctx, k.stand.refusing(nil), 0, unknownCheck)
		if !errors.Is(err, doctor.ErrNotFound) {
			return fmt.Errorf("asked to run the check %s, which it does not have, %s", unknownCheck, answered(err))
		}
		_, err = p.asked.Plan(ctx, doctor.PlanRequest{Target: k.stand.refusing(nil), Check: unknownCheck})
		if !errors.Is(err, doctor.ErrNotFound) {
			return fmt.Errorf("asked for plans of the check %s, which it does not have, %s", unknownCheck, answered(err))
		}
		return nil
	})
}

func answered(err error) string {
	if err == nil {
		return "it answered as if nothing were wrong"
	}
	return "it answered: " + err.Error()
}

func atOnce(ctx context.Context, k *kit) error {
	return k.with(ctx, func(ctx context.Context, k *kit, p *plugin) error {
		checks, err := p.describe(ctx)
		if err != nil {
			return err
		}
		sound, err := k.soundOnes(checks)
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeoutCause(ctx, k.limit(2*checkWithin), fmt.Errorf("they did not end within %s", k.limit(2*checkWithin)))
		defer cancel()
		calls := make(chan error)
		for range 2 {
			go func() {
				_, err := p.check(ctx, k.stand.target(checks), k.limit(2*checkWithin), sound...)
				calls <- err
			}()
		}
		if err := errors.Join(<-calls, <-calls); err != nil {
			return fmt.Errorf("all checks at once, twice: %w", err)
		}
		return nil
	})
}

// mostMessageOfAPlugin is a quarter of what a host takes: what is near the limit today is above it with the next, larger, homeserver.
const mostMessageOfAPlugin = 4 << 20

func messageSize(ctx context.Context, k *kit) error {
	return k.with(ctx, func(ctx context.Context, k *kit, p *plugin) error {
		checks, err := p.describe(ctx)
		if err != nil {
			return err
		}
		p.everything(ctx, k, k.stand.target(checks), checks)
		if p.heard.largest > mostMessageOfAPlugin {
			return fmt.Errorf("it sent a message of %.1f MiB", float64(p.heard.largest)/(1<<20))
		}
		return nil
	})
}

// everything runs each check, and asks for plans of what it finds. What goes wrong with that is for other points.
func (p *plugin) everything(ctx context.Context, k *kit, target *doctor.Target, checks []doctor.CheckInfo) {
	for _, c := range checks {
		ctx, cancel := context.WithTimeout(ctx, k.limit(checkWithin))
		t, _ := p.check(ctx, target, k.limit(checkWithin), c.ID)
		if c.Plans {
			_, _ = p.asked.Plan(ctx, doctor.PlanRequest{Target: target, Check: c.ID, Findings: t.found[c.ID]})
		}
		cancel()
	}
}

func shutsDown(ctx context.Context, k *kit) error {
	return k.with(ctx, func(ctx context.Context, k *kit, p *plugin) error {
		call, cancel := context.WithTimeout(ctx, k.limit(endWithin))
		defer cancel()
		err := p.conn.Invoke(call, "/plugin.GRPCController/Shutdown", &emptypb.Empty{}, &emptypb.Empty{})
		if status.Code(err) == codes.Unimplemented {
			return errors.New("it does not serve plugin.GRPCController")
		}
		return p.endsAndLeavesNothing(ctx, k)
	})
}

func hostGone(ctx context.Context, k *kit) error {
	return k.with(ctx, func(ctx context.Context, k *kit, p *plugin) error {
		_, _ = p.asked.Describe(ctx) // it is at work
		p.HangUp()
		return p.ends(ctx, k)
	})
}

func (p *plugin) ends(ctx context.Context, k *kit) error {
	if !p.Ended(ctx, k.limit(endWithin)) {
		return fmt.Errorf("it was still running %s later", k.limit(endWithin))
	}
	return nil
}

func (p *plugin) endsAndLeavesNothing(ctx context.Context, k *kit) error {
	if err := p.ends(ctx, k); err != nil {
		return err
	}
	if left := p.Left(); len(left) > 0 {
		return fmt.Errorf("it left %s in its directory", strings.Join(left, ", "))
	}
	return nil
}

// bareness is all that systemd gives a service.
var bareness = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}

func bareEnvironment(ctx context.Context, k *kit) error {
	p, err := k.startWith(ctx, host.TrialOptions{Env: bareness})
	if err != nil {
		return err
	}
	defer p.close()
	checks, err := p.describe(ctx)
	if err != nil {
		return err
	}
	sound, err := k.soundOnes(checks)
	if err != nil {
		return err
	}
	for _, id := range sound {
		done, err := p.endsAlone(ctx, k, id, checks)
		if err != nil {
			return err
		}
		if done.Status == doctor.StatusUnknown && k.sound[id] != doctor.StatusUnknown {
			return fmt.Errorf("check %q is unknown then: %s", id, done.Reason)
		}
	}
	return nil
}

func clip(s string) string {
	const most = 200
	if s = doctor.Clean(strings.TrimSpace(s)); len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}

func secretsAndWrites(ctx context.Context, k *kit) error {
	if k.mute != nil {
		return errMute
	}
	// An error is where passwords are told most often: so without a database, and with one.
	if err := k.leaks(ctx, k.stand.refusing); err != nil {
		return err
	}
	if k.stand.settings == nil {
		return skipped("what it writes could not be looked at, since %s: %s", k.stand.without, howToGive)
	}
	if len(k.stand.password) < shortestPassword {
		return skipped("the password of --dsn is too short to be told from other words: at least %d characters", shortestPassword)
	}
	if k.stand.noisy {
		return skipped("somebody else writes on the server of --dsn: %s", howToGive)
	}
	if err := k.leaks(ctx, k.stand.target); err != nil {
		return err
	}
	// All that has been run so far counts: what writes once may not write again.
	now, err := k.stand.next(ctx)
	if err != nil {
		return err
	}
	if now != k.stand.first {
		return errors.New("a check or a plan wrote to the database, or tried to (or somebody else did, on a server that is not for this alone)")
	}
	return nil
}

// shortestPassword is what does not occur in other words by chance.
const shortestPassword = 12

// leaks runs everything and looks for the password in all that comes of it, and for files that are there afterwards.
func (k *kit) leaks(ctx context.Context, at func([]doctor.CheckInfo) *doctor.Target) error {
	env := []string{"HOME=" + k.stand.dir + "/home", "TMPDIR=" + k.stand.dir + "/tmp"}
	for _, v := range host.Environ() {
		if !strings.HasPrefix(v, "HOME=") && !strings.HasPrefix(v, "TMPDIR=") {
			env = append(env, v)
		}
	}
	p, err := k.startWith(ctx, host.TrialOptions{Env: env})
	if err != nil {
		return err
	}
	defer p.close()
	checks, err := p.describe(ctx)
	if err != nil {
		return err
	}
	p.heard.mu.Lock()
	p.heard.secrets = k.stand.secrets
	p.heard.mu.Unlock()
	before, err := tree(k.stand.dir)
	if err != nil {
		return err
	}
	processes := watchProcesses(p.PID(), k.stand.secrets)
	p.everything(ctx, k, at(checks), checks)
	seen := processes.stop()
	p.heard.mu.Lock()
	leaks := append(seen, p.heard.leaks...)
	p.heard.mu.Unlock()
	p.HangUp()
	p.Ended(ctx, k.limit(endWithin)) // then all that it has printed is read
	if text := p.Stdout(); k.stand.secrets.String(text) != text {
		leaks = append(leaks, "its stdout")
	}
	if text := p.Stderr(); k.stand.secrets.String(text) != text {
		leaks = append(leaks, "its stderr")
	}
	if len(leaks) > 0 {
		return fmt.Errorf("the password that it was handed is in %s", strings.Join(unique(leaks), " and in "))
	}
	after, err := tree(k.stand.dir)
	if err != nil {
		return err
	}
	if changed := differences(before, after); len(changed) > 0 {
		return fmt.Errorf("a check or a plan changed files: %s", strings.Join(changed, ", "))
	}
	return nil
}
