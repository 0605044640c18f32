// Program misbehave is a plugin that does one thing wrong. The name of its file says which.
package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"
	"github.com/jackc/pgx/v5"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/plugins/host"
	"github.com/synapse-doctor/synapse-doctor/plugins/internal/wire"
	"github.com/synapse-doctor/synapse-doctor/plugins/sdk"
	doctorv1 "github.com/synapse-doctor/synapse-doctor/proto/doctor/v1"
)

func main() {
	if sdk.Launched() && strings.HasSuffix(os.Args[0], "built-in checks") {
		serve(check("self", fine))
	}
	mode := filepath.Base(os.Args[0])
	switch mode {
	case "host":
		beHost(os.Args[1], os.Args[2], os.Args[3])
	case "crash-at-start":
		fmt.Fprintln(os.Stderr, "\x1b[31mcan't load libacme.so\x1b[0m")
		os.Exit(3)
	case "silent-exit":
		os.Exit(0)
	case "hang-before-handshake":
		fmt.Fprintln(os.Stderr, "waiting for a licence server")
		sleep()
	case "ignore-everything":
		spawnSleeper()
		sleep()
	case "stop-before-handshake":
		stopSelf()
	case "hang-after-handshake":
		listen()
		announce(1, "grpc", cert(), "")
		sleep()
	case "closes-stdout":
		_ = syscall.Close(1)
		sleep()
	case "print-first":
		fmt.Println("Loading \x1b[1mACME\x1b[0m rules …")
	case "flood-first":
		flood(1 << 20)
		sleep()
	case "protocol-3":
		listen()
		announce(3, "grpc", cert(), "|acme|1.2")
		sleep()
	case "protocol-3-nameless":
		listen()
		announce(3, "grpc", cert(), "")
		sleep()
	case "netrpc":
		listen()
		announce(1, "netrpc", cert(), "")
		sleep()
	case "no-tls":
		servePlain(listen(), "")
	case "false-tls":
		servePlain(listen(), cert())
	case "wrong-cert": // announces another certificate than it has
		l := listen()
		mine, err := wire.NewCertificate()
		if err != nil {
			panic(err)
		}
		announce(1, "grpc", cert(), "")
		_ = grpc.NewServer(grpc.Creds(credentials.NewServerTLSFromCert(&mine))).Serve(l)
	case "elsewhere":
		fmt.Printf("1|1|unix|/tmp/elsewhere.sock|grpc|%s\n", cert())
		sleep()
	case "speaks-1-2": // a plugin of another time
		second := wire.Spoken[0]
		second.Number = 2
		plugin.Serve(&plugin.ServeConfig{
			HandshakeConfig:  wire.Handshake,
			VersionedPlugins: wire.Versions{wire.Spoken[0], second}.Plugins(source(check("fine", fine))),
			GRPCServer:       plugin.DefaultGRPCServer,
			Logger:           hclog.NewNullLogger(),
		})
		os.Exit(0)
	case "stock":
		serveStock(wire.NewServer(source(check("stock", fine))))
	}
	if strings.HasPrefix(mode, "lie-") {
		serveStock(&liar{mode: mode})
	}
	if mode == "greedy" {
		serve(greedy())
	}
	serve(
		check("fine", fine),
		check("panics", func(context.Context, *doctor.Target, doctor.Reporter) error { panic("acme \x1b[31mboom") }),
		check("panics-aside", func(context.Context, *doctor.Target, doctor.Reporter) error {
			go panic("boom aside")
			select {}
		}),
		check("exits", func(context.Context, *doctor.Target, doctor.Reporter) error {
			fmt.Fprintln(os.Stderr, "out of cheese")
			os.Exit(7)
			return nil
		}),
		check("stops", func(_ context.Context, _ *doctor.Target, r doctor.Reporter) error {
			r.Progress(doctor.Progress{Text: "stopping"})
			time.Sleep(20 * time.Millisecond) // the message leaves before the process stops
			stopSelf()
			return nil
		}),
		check("spins", func(_ context.Context, _ *doctor.Target, r doctor.Reporter) error {
			r.Progress(doctor.Progress{Text: "spinning"})
			for n := uint64(0); ; n++ {
				_ = n * n
			}
		}),
		check("floods", func(context.Context, *doctor.Target, doctor.Reporter) error {
			flood(4 << 20)
			fmt.Println(strings.Repeat("printed ", 1<<16))
			fmt.Fprintln(os.Stderr, strings.Repeat("and to stderr ", 1<<16))
			return nil
		}),
		check("spawns", func(context.Context, *doctor.Target, doctor.Reporter) error { return spawnSleeper() }),
		check("spawns-and-exits", func(context.Context, *doctor.Target, doctor.Reporter) error {
			_ = spawnSleeper()
			os.Exit(9)
			return nil
		}),
		check("looks-around", lookAround),
		check("finds-rubbish", func(_ context.Context, _ *doctor.Target, r doctor.Reporter) error {
			r.Find(doctor.Finding{Code: "finds-rubbish/fault", Severity: doctor.Warning, Summary: "latin \xe9", Object: doctor.Object{Kind: "table", Name: "t\xff"}})
			r.Find(doctor.Finding{Code: "finds-rubbish/fault", Summary: "no severity"})
			return nil
		}),
		working(),
	)
}

// greedy wants more than it was given: it writes in its check, and plans to change what it did not declare.
func greedy() doctor.Check {
	c := check("greedy", func(ctx context.Context, t *doctor.Target, r doctor.Reporter) error {
		saw := map[string]string{}
		for _, v := range os.Environ() {
			name, _, _ := strings.Cut(v, "=")
			saw["env"] += " " + name
		}
		for _, d := range t.Meeting(doctor.NeedsSynapse) {
			err := d.Read(ctx, func(tx pgx.Tx) error {
				_, err := tx.Exec(ctx, `DELETE FROM users`)
				return err
			})
			saw["write"] = fmt.Sprint(err)
		}
		r.Find(doctor.Finding{Code: "greedy/fault", Severity: doctor.Warning, Summary: "there is more to be had", Observed: "some",
			Expected: "all", Remedy: "take it", Object: doctor.Object{Kind: "table", Name: "users"}, Fixable: true, Evidence: saw})
		return nil
	})
	c.Needs, c.Changes = doctor.NeedsSynapse, doctor.Effects{Tables: []string{"rooms"}}
	c.Plan = func(_ context.Context, t *doctor.Target, fs []doctor.Finding) ([]doctor.Plan, error) {
		return []doctor.Plan{{ID: "greedy/take", Title: "Take it", Covers: []doctor.FindingKey{fs[0].Key()}, Risk: doctor.Safe, Expects: doctor.ExpectSynapse,
			Database: "main", Irreversible: "it is gone", Steps: []doctor.Step{{Title: "Take", SQL: &doctor.SQLStep{
				Database: "main", Mode: doctor.ModeAlone, MaxRows: 100, Statement: `DELETE FROM users`}}}}}, nil
	}
	return c
}

func check(id string, run func(context.Context, *doctor.Target, doctor.Reporter) error) doctor.Check {
	return doctor.Check{
		ID: id, Title: "Title of " + id, Why: "Because.", Run: run,
		Codes: []doctor.Code{{ID: id + "/fault", Title: "a fault", Severity: doctor.Warning}},
	}
}

func source(checks ...doctor.Check) *doctor.Local {
	return &doctor.Local{PluginName: "acme", Version: "1.2", Checks: checks}
}

func serve(checks ...doctor.Check) {
	sdk.Serve(sdk.Plugin{Name: "acme", Version: "1.2", Checks: checks})
}

func fine(_ context.Context, t *doctor.Target, r doctor.Reporter) error {
	r.Find(doctor.Finding{Code: "fine/fault", Severity: doctor.Warning, Summary: "seen for " + t.ServerName})
	return nil
}

func sleep() { time.Sleep(time.Hour) }

// stopSelf does not return: threads go on for a moment after the signal.
func stopSelf() {
	_ = syscall.Kill(os.Getpid(), syscall.SIGSTOP)
	sleep()
}

// flood writes one line without end to the descriptor, past os.Stdout.
func flood(n int) {
	b := []byte(strings.Repeat("x", 1<<16))
	for range n / len(b) {
		_, _ = syscall.Write(1, b)
	}
}

// spawnSleeper leaves a child that keeps every descriptor it was given.
func spawnSleeper() error {
	c := exec.Command("sleep", "1000")
	c.Stdout, c.Stderr = os.NewFile(1, "stdout"), os.NewFile(2, "stderr")
	return c.Start()
}

func lookAround(_ context.Context, t *doctor.Target, r doctor.Reporter) error {
	stdin, _ := os.Readlink("/proc/self/fd/0")
	socket := "gone"
	if names, err := os.ReadDir(os.Getenv("PLUGIN_UNIX_SOCKET_DIR")); err == nil {
		socket = fmt.Sprint(len(names), " files")
	}
	cwd, _ := os.Getwd()
	password := ""
	if len(t.Databases) > 0 {
		password = t.Databases[0].Settings["password"]
	}
	r.Find(doctor.Finding{Code: "looks-around/fault", Severity: doctor.Info, Evidence: map[string]string{
		"environ": strings.Join(os.Environ(), "\n"), "args": strings.Join(os.Args, " "), "stdin": stdin,
		"sid": session(), "pgid": strconv.Itoa(syscall.Getpgrp()), "pid": strconv.Itoa(os.Getpid()), "socket": socket, "cwd": cwd,
		"handed": strconv.FormatBool(password != ""),
	}})
	return nil
}

func session() string {
	sid, _ := unix.Getsid(0)
	return strconv.Itoa(sid)
}

// working has operations.
func working() doctor.Check {
	c := check("works", fine)
	c.Plan = func(_ context.Context, _ *doctor.Target, fs []doctor.Finding) ([]doctor.Plan, error) {
		if len(fs) == 0 {
			return nil, doctor.Skip("there is nothing to plan")
		}
		if fs[0].Summary == "boom" {
			panic("plan boom")
		}
		return []doctor.Plan{{ID: "works/do", Risk: doctor.Safe, Expects: doctor.ExpectNone, Covers: []doctor.FindingKey{fs[0].Key()},
			Steps: []doctor.Step{{Operation: &doctor.OperationStep{Name: "copy"}}}}}, nil
	}
	c.Operations = map[string]doctor.OperationFunc{
		"copy": func(ctx context.Context, t *doctor.Target, s doctor.OperationStep, resume string, h doctor.OperationHost) error {
			from, _ := strconv.Atoi(resume)
			for i := from; i < 5; i++ {
				if err := h.Save(ctx, strconv.Itoa(i+1), []doctor.SavedRow{{Table: "t", JSON: fmt.Sprintf(`{"n":%d}`, i)}}); err != nil {
					return err
				}
			}
			return nil
		},
		"put-back": func(ctx context.Context, _ *doctor.Target, _ doctor.OperationStep, _ string, h doctor.OperationHost) error {
			for _, name := range []string{"whole", "again"} {
				n := 0
				if err := h.Rows(ctx, func(r doctor.SavedRow) error {
					if !strings.HasPrefix(r.JSON, fmt.Sprintf(`{"n":%d`, n)) {
						return fmt.Errorf("row %d is %.20s", n, r.JSON)
					}
					if n++; n == 1200 && name == "whole" {
						return h.Save(ctx, "half", nil)
					}
					return nil
				}); err != nil {
					return err
				}
				if err := h.Save(ctx, fmt.Sprintf("%s %d", name, n), nil); err != nil {
					return err
				}
			}
			return nil
		},
		"refuse": func(context.Context, *doctor.Target, doctor.OperationStep, string, doctor.OperationHost) error {
			return fmt.Errorf("refuse: %w", doctor.Unchanged("the moon is full"))
		},
		"wait": func(ctx context.Context, _ *doctor.Target, _ doctor.OperationStep, _ string, h doctor.OperationHost) error {
			h.Progress(doctor.Progress{Text: "waiting"})
			<-ctx.Done()
			fmt.Fprintln(os.Stderr, "the operation has stopped")
			return ctx.Err()
		},
		"chunks": func(ctx context.Context, _ *doctor.Target, _ doctor.OperationStep, _ string, h doctor.OperationHost) error {
			h.Document("report.md", "# Half")
			h.Progress(doctor.Progress{Text: "chunk"})
			select {
			case <-h.Stopping():
			case <-ctx.Done():
				return ctx.Err()
			}
			h.Document("report.md", "# Whole")
			return doctor.Stopped("Run it again.")
		},
		"stuck": func(_ context.Context, _ *doctor.Target, _ doctor.OperationStep, _ string, h doctor.OperationHost) error {
			h.Progress(doctor.Progress{Text: "stuck"})
			select {}
		},
	}
	return c
}

// The rest speaks the handshake by hand.

var socket string

func listen() net.Listener {
	socket = filepath.Join(os.Getenv(plugin.EnvUnixSocketDir), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	return l
}

func cert() string {
	c, err := wire.NewCertificate()
	if err != nil {
		panic(err)
	}
	return base64.RawStdEncoding.EncodeToString(c.Certificate[0])
}

func announce(protocol int, transport, cert, more string) {
	fmt.Printf("1|%d|unix|%s|%s|%s|%s\n", protocol, socket, transport, cert, more)
}

func servePlain(l net.Listener, cert string) {
	s := grpc.NewServer()
	doctorv1.RegisterPluginServer(s, wire.NewServer(source()))
	announce(1, "grpc", cert, "")
	_ = s.Serve(l)
}

// serveStock serves as a plugin does that knows nothing of the sdk: with go-plugin alone and its P-521 certificates.
func serveStock(s doctorv1.PluginServer) {
	plugin.Serve(&plugin.ServeConfig{
		HandshakeConfig:  wire.Handshake,
		VersionedPlugins: map[int]plugin.PluginSet{1: {"doctor": &raw{server: s}}},
		GRPCServer: func(opts []grpc.ServerOption) *grpc.Server {
			return grpc.NewServer(append(opts, grpc.ForceServerCodecV2(unclean{encoding.GetCodecV2(proto.Name)}))...)
		},
		Logger: hclog.NewNullLogger(),
	})
	os.Exit(0)
}

// unclean writes bytes into messages that no library would let through: a mark becomes what is not UTF-8.
type unclean struct{ encoding.CodecV2 }

const notUTF8 = "(not UTF-8)"

func (u unclean) Marshal(v any) (mem.BufferSlice, error) {
	out, err := u.CodecV2.Marshal(v)
	if err != nil || !bytes.Contains(out.Materialize(), []byte(notUTF8)) {
		return out, err
	}
	return mem.BufferSlice{mem.SliceBuffer(bytes.ReplaceAll(out.Materialize(), []byte(notUTF8), bytes.Repeat([]byte{0xff}, len(notUTF8))))}, nil
}

type raw struct {
	plugin.NetRPCUnsupportedPlugin
	server doctorv1.PluginServer
}

func (r *raw) GRPCServer(_ *plugin.GRPCBroker, g *grpc.Server) error {
	doctorv1.RegisterPluginServer(g, r.server)
	return nil
}

func (r *raw) GRPCClient(context.Context, *plugin.GRPCBroker, *grpc.ClientConn) (any, error) {
	return nil, errors.New("no client")
}

// liar completes the handshake and then lies.
type liar struct {
	doctorv1.UnimplementedPluginServer
	mode string
}

func (l *liar) Describe(context.Context, *doctorv1.DescribeRequest) (*doctorv1.DescribeResponse, error) {
	c := &doctorv1.CheckInfo{Id: "honest", Title: "T", Why: "W"}
	c.Codes = []*doctorv1.Code{{Id: "honest/x", Title: "t", Severity: 2}}
	d := &doctorv1.DescribeResponse{Name: "liar", Version: "1", Checks: []*doctorv1.CheckInfo{c}}
	switch l.mode {
	case "lie-describe-hangs":
		select {}
	case "lie-describe-utf8":
		c.Title = notUTF8
	case "lie-describe-much":
		c.Changes = &doctorv1.Effects{Tables: make([]string, 100_000)}
	case "lie-describe-many":
		for range 200 {
			d.Checks = append(d.Checks, &doctorv1.CheckInfo{Id: "honest", Title: "T"})
		}
		d.Checks = d.Checks[:200]
	case "lie-describe-builtin":
		c.Id, c.Codes = "sequence", nil
	case "lie-duplicate-ids":
		d.Checks = append(d.Checks, c)
	case "lie-foreign-code":
		c.Codes = []*doctorv1.Code{{Id: "sequence/behind-table", Title: "t", Severity: 2}}
	case "lie-describe-escapes":
		c.Title = "\x1b]0;owned\x07T"
	case "lie-describe-enum":
		c.Needs = []doctorv1.Need{99}
	}
	return d, nil
}

func (l *liar) Check(req *doctorv1.CheckRequest, out grpc.ServerStreamingServer[doctorv1.CheckResponse]) error {
	finding := &doctorv1.Finding{Code: "honest/x", Severity: 2, Summary: "s", Observed: "o", Expected: "e", Remedy: "r", Object: &doctorv1.Object{Kind: "table", Name: "t"}}
	found := func(check string) *doctorv1.CheckResponse {
		return &doctorv1.CheckResponse{Check: check, Event: &doctorv1.CheckResponse_Found{Found: finding}}
	}
	done := &doctorv1.CheckResponse{Check: "honest", Event: &doctorv1.CheckResponse_Done{Done: &doctorv1.Done{Status: 1}}}
	switch l.mode {
	case "lie-foreign-finding":
		_ = out.Send(found("sequence"))
	case "lie-endless":
		for n := range 10_000_000 {
			finding.Object = &doctorv1.Object{Kind: "table", Name: strconv.Itoa(n)}
			if out.Send(found("honest")) != nil {
				return nil
			}
		}
	case "lie-other-code":
		finding.Code = "sequence/behind-table"
		_ = out.Send(found("honest"))
	case "lie-utf8":
		finding.Summary = notUTF8
		_ = out.Send(found("honest"))
	case "lie-terminal":
		bad := "\x1b[2J\x1b]0;owned\x07\u202eall is well"
		finding.Summary, finding.Observed, finding.Expected, finding.Remedy = bad, bad, bad, "run\n    rm "+bad
		finding.Object, finding.Evidence = &doctorv1.Object{Kind: bad, Name: bad}, map[string]string{bad: bad}
		_ = out.Send(found("honest"))
	case "lie-escapes":
		return fmt.Errorf("\x1b[2Jeverything\x1b[31m is fine\x07")
	case "lie-severity":
		finding.Severity = 17
		_ = out.Send(found("honest"))
	case "lie-empty-event":
		_ = out.Send(&doctorv1.CheckResponse{Check: "honest"})
	case "lie-status":
		_ = out.Send(&doctorv1.CheckResponse{Check: "honest", Event: &doctorv1.CheckResponse_Done{Done: &doctorv1.Done{Status: 42}}})
	case "lie-no-reason":
		_ = out.Send(&doctorv1.CheckResponse{Check: "honest", Event: &doctorv1.CheckResponse_Done{Done: &doctorv1.Done{Status: 3}}})
	case "lie-no-done":
		return nil
	case "lie-done-twice":
		_ = out.Send(done)
	case "lie-after-done":
		_ = out.Send(done)
		_ = out.Send(found("honest"))
	case "lie-huge":
		finding.Summary = strings.Repeat("x", 40<<20)
		_ = out.Send(found("honest"))
	case "lie-ignores-cancel":
		_ = out.Send(&doctorv1.CheckResponse{Check: "honest", Event: &doctorv1.CheckResponse_Progress{Progress: &doctorv1.Progress{Text: "x"}}})
		select {}
	}
	return out.Send(done)
}

func (l *liar) Plan(_ *doctorv1.PlanRequest, out grpc.ServerStreamingServer[doctorv1.PlanResponse]) error {
	p := &doctorv1.PlannedFix{Id: "honest/do", Risk: 1, Expects: 4, Steps: []*doctorv1.Step{{Title: "x"}}}
	switch l.mode {
	case "lie-foreign-plan":
		p.Id, p.Steps = "sequence/do", nil
	case "lie-risk":
		p.Risk = 9
	case "lie-no-plan":
		p = nil
	case "lie-endless-plans":
		p.Steps = nil
		for out.Send(&doctorv1.PlanResponse{Plan: p}) == nil {
		}
		return nil
	}
	return out.Send(&doctorv1.PlanResponse{Plan: p})
}

func (l *liar) Execute(s grpc.BidiStreamingServer[doctorv1.ExecuteRequest, doctorv1.ExecuteResponse]) error {
	return s.Send(&doctorv1.ExecuteResponse{Message: &doctorv1.ExecuteResponse_Save{Save: &doctorv1.SaveRows{Number: 7}}})
}

// beHost is a host that waits to be killed, or that goes on when told to: FILE is the plugin, or "self".
func beHost(file, check, dir string) {
	o := host.Options{SocketDir: dir}
	s := host.Dev(file, o)
	if file == "self" {
		fmt.Println("waiting")
		var line string
		_, _ = fmt.Scanln(&line)
		s = host.Builtin(o)
	}
	s.Start(context.Background())
	err := s.Check(context.Background(), doctor.CheckRequest{Target: &doctor.Target{}, Checks: []string{check}}, printer{})
	fmt.Println("ended:", err)
	_ = s.Close()
	os.Exit(0)
}

type printer struct{}

func (printer) Found(_ string, f doctor.Finding) error {
	fmt.Println("found", f.Evidence["pid"])
	return nil
}
func (printer) Progress(_ string, p doctor.Progress)   { fmt.Println("progress", p.Text) }
func (printer) Measured(string, doctor.Measure) error  { return nil }
func (printer) Done(id string, o doctor.Outcome) error { fmt.Println("done", id, o.Status); return nil }
