package report

import (
	"time"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
)

var sampleTarget = doctor.TargetInfo{
	ServerName:  "example.org",
	ConfigFiles: []string{"/etc/matrix-synapse/homeserver.yaml", "/etc/matrix-synapse/conf.d/database.yaml"},
	Databases: []doctor.DatabaseInfo{{Label: "main", Engine: doctor.Postgres, Host: "db.example.org", Port: 5432,
		Database: "synapse", ServerVersion: "15.18"}},
}

var samplePlugins = []doctor.PluginInfo{{Name: "builtin", Version: "0.1.0", Protocol: 1, Path: "/usr/bin/synapse-doctor",
	Checks: []string{"connection", "version", "encoding", "sequence", "keepalives"}, Status: doctor.StatusOK}}

func soundReport() *doctor.Report {
	ok := func(id, title string) doctor.CheckResult {
		return doctor.CheckResult{ID: id, Title: title, Status: doctor.StatusOK, Duration: 12 * time.Millisecond}
	}
	return &doctor.Report{
		DoctorVersion: "0.1.0", StartedAt: time.Date(2026, 9, 12, 3, 4, 5, 6e8, time.FixedZone("", 7200)),
		Duration: 87 * time.Millisecond, Target: sampleTarget, Plugins: samplePlugins,
		Checks: []doctor.CheckResult{
			ok("connection", "Synapse can log in to its database"),
			ok("version", "The server and the schema suit Synapse"),
			{ID: "locale", Title: "Text is compared in the locale C", Status: doctor.StatusOK, Coverage: "251 of 251 indexes over text are in order"},
			ok("encoding", "The database stores UTF-8"),
			ok("sequence", "Every sequence is ahead of the rows it numbers"),
			{ID: "vacuum", Title: "The SQLite file was not vacuumed", Status: doctor.StatusSkipped,
				Reason: "no SQLite file is configured"},
			ok("keepalives", "A dead database connection is noticed"),
		},
	}
}

const setvalEvents = "SELECT setval('events_stream_seq', GREATEST((SELECT last_value FROM events_stream_seq), " +
	"(SELECT coalesce(max(stream_ordering), 1) FROM events), (SELECT coalesce(max(stream_id), 1) FROM stream_positions " +
	"WHERE stream_name = 'events')), true);"

var behindEvents = doctor.Finding{
	Code: "sequence/behind-table", Severity: doctor.Error, Database: "main",
	Object:   doctor.Object{Kind: "sequence", Name: "events_stream_seq"},
	Summary:  "The next number that events_stream_seq gives is already used by a row of events.",
	Observed: "the sequence is at 41", Expected: "at least 57, the largest stream_ordering in events",
	Remedy: "Stop Synapse and every worker. Then move the sequence forward; too far is harmless, gaps are normal:\n\n    " +
		setvalEvents + "\n\nStart Synapse again.",
	Fixable:  true,
	Evidence: map[string]string{"last_value": "41", "is_called": "true", "max(events.stream_ordering)": "57"},
}

var behindPosition = doctor.Finding{
	Code: "sequence/behind-stream-position", Severity: doctor.Error, Database: "main",
	Object:   doctor.Object{Kind: "sequence", Name: "sliding_sync_connection_positions_connection_position_seq"},
	Summary:  "Synapse refuses to start: stream_positions is ahead of the sequence.",
	Observed: "the sequence is at 10", Expected: "at least 14",
	Remedy:  "Let the doctor move it forward.",
	Fixable: true,
}

func sickReport() *doctor.Report {
	r := soundReport()
	r.Plugins = append(samplePlugins[:1:1], doctor.PluginInfo{Name: "room-names", Path: "/opt/plugins/room-names",
		Status: doctor.StatusUnknown, Reason: "it ended before it answered: exit status 2\npanic: \x1b[31mboom"})
	r.Checks = []doctor.CheckResult{
		{ID: "connection", Title: "Synapse can log in to its database", Status: doctor.StatusOK},
		{ID: "version", Title: "The server and the schema suit Synapse", Status: doctor.StatusInfo, Findings: []doctor.Finding{{
			Code: "version/background-updates", Severity: doctor.Info, Database: "main",
			Object:  doctor.Object{Kind: "table", Name: "background_updates"},
			Summary: "Synapse still has 3 background updates to do.", Observed: "3 rows", Expected: "0 rows, in the end",
			Remedy: "Leave Synapse running and look again later."}}},
		{ID: "encoding", Title: "The database stores UTF-8", Status: doctor.StatusOK},
		{ID: "sequence", Title: "Every sequence is ahead of the rows it numbers", Status: doctor.StatusError,
			Findings: []doctor.Finding{behindEvents, behindPosition}},
		{ID: "keepalives", Title: "A dead database connection is noticed", Status: doctor.StatusWarning,
			Findings: []doctor.Finding{{
				Code: "keepalives/not-set", Severity: doctor.Warning, Database: "main",
				Object:   doctor.Object{Kind: "file", Name: "/etc/matrix-synapse/conf.d/database.yaml:4"},
				Summary:  "A database connection that is silently dropped is noticed only after two hours.",
				Observed: "no keepalives_idle, keepalives_interval or keepalives_count",
				Expected: "keepalives_idle: 10, keepalives_interval: 10, keepalives_count: 3",
				Remedy: "Add to args in the file above, with the same indentation, and restart Synapse:\n\n" +
					"    keepalives_idle: 10\n    keepalives_interval: 10\n    keepalives_count: 3",
				Fixable: true}}},
		{ID: "locale", Title: "Text sorts as Synapse expects", Status: doctor.StatusUnknown,
			Reason: "not finished within 30s"},
		{ID: "vacuum", Title: "The SQLite file was not vacuumed", Status: doctor.StatusSkipped,
			Reason: "no SQLite file is configured"},
	}
	return r
}

// ignoredReport has a check of which all is ignored, and one of which a part is.
func ignoredReport() *doctor.Report {
	r := sickReport()
	r.Plugins = samplePlugins
	r.Checks = r.Checks[1:5]
	r.Checks[0].Findings[0].Ignored = &doctor.Ignored{Why: "they wait for the night"}
	r.Checks[2].Findings[1].Ignored = &doctor.Ignored{Why: "repaired in the next \x1b[2Jmaintenance", Until: time.Date(2027, 3, 1, 0, 0, 0, 0, time.UTC)}
	for i := range r.Checks {
		r.Checks[i].Status = doctor.Worst(r.Checks[i].Findings)
	}
	return r
}

// hostileReport has the longest words, the widest characters and the worst of everything that strangers can choose.
func hostileReport() *doctor.Report {
	r := soundReport()
	r.Target.ServerName = "例え.テスト"
	r.Target.Databases = []doctor.DatabaseInfo{
		{Label: "main", Engine: doctor.Postgres, Host: "/var/run/postgresql", Port: 5432, Database: "synapse", ServerVersion: "18.1"},
		{Label: "state", Engine: doctor.SQLite, Database: "/srv/データ/homeserver.db"},
	}
	long := "an_index_with_a_name_that_is_as_long_as_postgresql_lets_it_be_x"
	r.Checks = []doctor.CheckResult{{ID: "locale", Title: "Text sorts as Synapse expects", Status: doctor.StatusUnknown,
		Reason: "ERROR: permission denied (SQLSTATE 42501)", Findings: []doctor.Finding{
			{Code: "locale/index-corrupt", Severity: doctor.Error, Database: "main",
				Object:  doctor.Object{Kind: "index", Name: long},
				Summary: "房间名称的索引已损坏，因此搜索不到某些房间。 The index 👩‍👩‍👧 is out of order | see `here` <b>@room</b>.",
				Remedy: "Rebuild it:\n\n    REINDEX INDEX " + long + ";\n\nand from a shell:\n\n" +
					"    sudo -u postgres psql --dbname=synapse --command='SELECT bt_index_check(''" + long + "'', true)'\n"},
			{Code: "locale/index-corrupt", Severity: doctor.Error, Database: "state",
				Object:  doctor.Object{Kind: "index", Name: "\x1b]0;pwned\a\u202etxt"},
				Summary: "Line one\nline two \x1b[2J with hunter2-secret.", Observed: "tab\there",
				Remedy: "Look at [this](http://evil.example/x.png)."},
		}}}
	return r
}

func key(f doctor.Finding) doctor.FindingKey { return f.Key() }

func samplePlans() []doctor.PlanResult {
	return []doctor.PlanResult{
		{Chosen: true, Status: doctor.PlanPlanned, Plan: doctor.Plan{
			ID: "sequence/move-forward", Covers: []doctor.FindingKey{key(behindEvents), key(behindPosition)},
			Title: "Move 2 sequences forward past every number that is in use.", Risk: doctor.Careful,
			Expects: doctor.ExpectSynapse, Database: "main", Requires: []doctor.Requirement{doctor.RequireStopped},
			Reversible: true, UndoOnFailure: true, Duration: 3 * time.Second,
			Steps: []doctor.Step{
				{Title: "Lock the tables that the sequences number", SQL: &doctor.SQLStep{Database: "main",
					Statement: "LOCK TABLE events, current_state_delta_stream, ex_outlier_stream, stream_positions IN SHARE MODE NOWAIT",
					Mode:      doctor.ModeGroup, Group: "sequences"}},
				{Title: "Move events_stream_seq forward", SQL: &doctor.SQLStep{Database: "main",
					Statement: "SELECT setval($1::regclass, GREATEST($2, (SELECT coalesce(max(stream_ordering), 1) FROM events), (SELECT coalesce(max(stream_id), 1) FROM current_state_delta_stream)), true)",
					Args:      []doctor.Value{{V: "events_stream_seq"}, {V: int64(57)}}, Mode: doctor.ModeGroup, Group: "sequences", MaxRows: 1,
					Guard:   &doctor.Guard{Query: "SELECT last_value = $1 FROM events_stream_seq", Args: []doctor.Value{{V: int64(41)}}, Else: "The sequence has moved since the plan was made."},
					Undo:    []doctor.UndoSQL{{Statement: "ALTER SEQUENCE events_stream_seq RESTART WITH 42"}},
					Lasting: true}},
				{Title: "See that nothing is behind any more", Probe: &doctor.ProbeStep{Database: "main",
					Holds: &doctor.Guard{Query: "SELECT last_value >= 57 FROM events_stream_seq"}}},
			}}, Steps: []doctor.StepResult{{Status: doctor.StepPlanned}, {Status: doctor.StepPlanned}, {Status: doctor.StepPlanned}}},
		{Chosen: true, Status: doctor.PlanPlanned, Plan: doctor.Plan{
			ID: "keepalives/set", Covers: []doctor.FindingKey{{Code: "keepalives/not-set", Database: "main",
				Object: doctor.Object{Kind: "file", Name: "/etc/matrix-synapse/conf.d/database.yaml:4"}}},
			Title: "Add keepalives to the database's args.", Risk: doctor.Safe, Expects: doctor.ExpectNone, Reversible: true,
			Steps: []doctor.Step{{Title: "Edit /etc/matrix-synapse/conf.d/database.yaml",
				EditFile: &doctor.EditFileStep{Path: "/etc/matrix-synapse/conf.d/database.yaml"}}}},
			Steps: []doctor.StepResult{{Status: doctor.StepPlanned, Diff: doctor.Diff("/etc/matrix-synapse/conf.d/database.yaml",
				[]byte("database:\n  name: psycopg2\n  args:\n    user: synapse\n    password: hunter2-secret\n    host: db.example.org\n"),
				[]byte("database:\n  name: psycopg2\n  args:\n    user: synapse\n    password: hunter2-secret\n    host: db.example.org\n    keepalives_idle: 10\n    keepalives_interval: 10\n    keepalives_count: 3\n"), nil)}}},
		{Status: doctor.PlanPlanned, Plan: doctor.Plan{
			ID: "keepalives/system-wide", Covers: []doctor.FindingKey{{Code: "keepalives/not-set", Database: "main"}},
			Title: "Set the kernel's own keepalive times instead.", Risk: doctor.Careful, Expects: doctor.ExpectNone,
			Irreversible: "the doctor does not know the times that were set before",
			Steps:        []doctor.Step{{Title: "Set them", Manual: &doctor.ManualStep{Text: "As root:\n\n    sysctl -w net.ipv4.tcp_keepalive_time=10"}}}}},
	}
}

func plannedFix() *doctor.FixReport {
	return &doctor.FixReport{Plans: samplePlans(), Before: sickReport()}
}

func appliedFix() *doctor.FixReport {
	plans := samplePlans()
	plans[0].Status = doctor.PlanApplied
	for i := range plans[0].Steps {
		plans[0].Steps[i].Status = doctor.StepApplied
	}
	plans[1].Status = doctor.PlanApplied
	plans[1].Steps[0].Status = doctor.StepApplied
	plans[1].Steps[0].Note = "The file is mounted by itself, so it was written in place."
	return &doctor.FixReport{Applied: true, Plans: plans, Before: sickReport(), After: soundReport()}
}

func refusedFix() *doctor.FixReport {
	plans := samplePlans()[:1]
	plans[0].Status = doctor.PlanRefused
	plans[0].Reason = "Synapse is running: 5 sessions of the role synapse are open on the database. Stop it and every worker first:\n" +
		"systemctl stop matrix-synapse"
	return &doctor.FixReport{Plans: plans, Before: sickReport()}
}

func failedFix() *doctor.FixReport {
	plans := samplePlans()[:1]
	plans[0].Status = doctor.PlanFailed
	plans[0].Reason = "step 2: canceling statement due to lock timeout (SQLSTATE 55P03)"
	plans[0].Steps = []doctor.StepResult{{Status: doctor.StepUndone}, {Status: doctor.StepFailed}, {Status: doctor.StepSkipped}}
	return &doctor.FixReport{Applied: true, Plans: plans, Before: sickReport(), After: sickReport()}
}

func manualFix() *doctor.FixReport {
	return &doctor.FixReport{Before: sickReport(), Plans: []doctor.PlanResult{{Chosen: true, Status: doctor.PlanManual, Plan: doctor.Plan{
		ID: "encoding/rebuild", Covers: []doctor.FindingKey{{Code: "encoding/not-utf8", Database: "main", Object: doctor.Object{Kind: "database", Name: "synapse"}}},
		Title: "Rebuild the database in UTF-8.", Risk: doctor.Dangerous, Expects: doctor.ExpectSynapse, Database: "main",
		Steps: []doctor.Step{
			{Title: "Stop Synapse", Manual: &doctor.ManualStep{Text: "Stop Synapse and every worker:\n\n    systemctl stop matrix-synapse"}},
			{Title: "Make a new database", Manual: &doctor.ManualStep{Text: "As the user postgres:\n\n    CREATE DATABASE synapse_utf8 WITH TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C' OWNER synapse;"}},
		}}, Steps: []doctor.StepResult{{Status: doctor.StepManual}, {Status: doctor.StepManual}}}}}
}

// longFix has an operation, a dangerous risk, a login probe and every requirement.
func longFix() *doctor.FixReport {
	return &doctor.FixReport{Before: soundReport(), Plans: []doctor.PlanResult{{Chosen: true, Status: doctor.PlanPlanned, Plan: doctor.Plan{
		ID: "locale/rebuild", Covers: []doctor.FindingKey{{Code: "locale/not-c", Object: doctor.Object{Kind: "database", Name: "synapse"}}},
		Title: "Rebuild the database with the C locale.", Risk: doctor.Dangerous, Expects: doctor.ExpectEmpty, Database: "main",
		Requires: []doctor.Requirement{doctor.RequireStopped, doctor.RequireAdmin, doctor.RequireDisk, doctor.RequireShut},
		Duration: 95 * time.Minute, DiskBytes: 42_000_000_000, Irreversible: "rows written afterwards would be lost",
		Steps: []doctor.Step{
			{Title: "Copy every table", Operation: &doctor.OperationStep{Name: "copy", Statements: []string{"COPY (SELECT room_id, creator FROM ONLY public.rooms) TO STDOUT", "REINDEX TABLE public.rooms"}, Params: map[string]string{"to": "synapse_new", "jobs": "2"},
				Effects: doctor.Effects{Databases: []string{"synapse_new"}, Tables: []string{"events", "event_json"}}, Resumes: "table by table"}},
			{Title: "Log in", Probe: &doctor.ProbeStep{Login: &doctor.Login{Address: "::1", WrongPassword: true, MustFail: true}}},
		}}}}}
}

// measuredReport has numbers, those of an earlier run, and what has changed since.
func measuredReport() *doctor.Report {
	r := soundReport()
	then := time.Date(2026, 3, 1, 3, 0, 0, 0, time.Local)
	measure := func(table, name string, value float64, unit string) doctor.Measure {
		return doctor.Measure{Check: "upkeep", Database: "main", Object: doctor.Object{Kind: "table", Name: table}, Name: name, Value: value, Unit: unit}
	}
	earlier := func(m doctor.Measure) doctor.Measure { m.At = then; return m }
	r.Checks = append(r.Checks, doctor.CheckResult{ID: "upkeep", Title: "The database is looked after", Status: doctor.StatusOK, Asked: true,
		Measures: []doctor.Measure{
			measure("state_groups_state", "size", 13_421_772_800, "bytes"), measure("state_groups_state", "share", 43.2, "percent"),
			measure("state_groups_state", "rows", 81_234_567, "rows"),
			measure("event_json", "size", 2_147_483_648, "bytes"), measure("event_json", "share", 6.91, "percent"), measure("event_json", "rows", 9_999, "rows"),
			measure("presence_stream", "size", 8192, "bytes"), measure("presence_stream", "rows", 0, "rows"),
			{Check: "upkeep", Object: doctor.Object{Kind: "progress", Name: "an_update"}, Name: "state", Value: 12345, Unit: "fingerprint"},
			{Check: "upkeep", Object: doctor.Object{Kind: "server", Name: "PostgreSQL 16"}, Name: "oldest-snapshot", Value: 93_600, Unit: "seconds"},
		}})
	r.Earlier = doctor.NewEarlier([]doctor.Measure{
		earlier(measure("state_groups_state", "size", 12_884_901_888, "bytes")), earlier(measure("state_groups_state", "rows", 80_000_000, "rows")),
		earlier(measure("event_json", "rows", 10_050, "rows")), earlier(measure("event_json", "size", 2_147_483_648, "bytes")),
	})
	key := func(code, name string) doctor.FindingKey {
		return doctor.FindingKey{Code: code, Database: "main", Object: doctor.Object{Kind: "table", Name: name}}
	}
	r.Since = &doctor.Since{Run: "20260301-020000-abcdef", At: then, New: []doctor.FindingKey{key("upkeep/dead-rows", "event_json")},
		Resolved: []doctor.FindingKey{key("upkeep/never-analyzed", "state_groups_state")}, Persisting: 3, NotComparable: 1}
	return r
}
