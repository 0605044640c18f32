package wire

import (
	"errors"
	"fmt"
	"maps"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	doctorv1 "github.com/synapse-doctor/synapse-doctor/proto/doctor/v1"
)

var engines = enum[doctor.Engine, doctorv1.Engine]{"database engine", []pair[doctor.Engine, doctorv1.Engine]{
	{doctor.Postgres, doctorv1.Engine_ENGINE_POSTGRES},
	{doctor.SQLite, doctorv1.Engine_ENGINE_SQLITE},
}}

var needs = enum[doctor.Needs, doctorv1.Need]{"need", []pair[doctor.Needs, doctorv1.Need]{
	{doctor.NeedsConfig, doctorv1.Need_NEED_CONFIG},
	{doctor.NeedsPostgresEntry, doctorv1.Need_NEED_POSTGRES_ENTRY},
	{doctor.NeedsPostgres, doctorv1.Need_NEED_POSTGRES},
	{doctor.NeedsSynapse, doctorv1.Need_NEED_SYNAPSE},
	{doctor.NeedsSQLite, doctorv1.Need_NEED_SQLITE},
	{doctor.NeedsAdmin, doctorv1.Need_NEED_ADMIN},
}}

func needsTo(n doctor.Needs) ([]doctorv1.Need, error) {
	var list []doctorv1.Need
	for _, p := range needs.pairs {
		if n.Has(p.word) {
			list = append(list, p.number)
			n &^= p.word
		}
	}
	if n != 0 {
		return nil, fmt.Errorf("needs %#x are not known to this version", uint32(n))
	}
	return list, nil
}

func needsFrom(list []doctorv1.Need) (doctor.Needs, error) {
	var n doctor.Needs
	for _, number := range list {
		need, err := needs.from(number)
		if err != nil {
			return 0, err
		}
		n |= need
	}
	return n, nil
}

// TargetTo converts the target of a request.
func TargetTo(t *doctor.Target) (*doctorv1.Target, error) {
	if t == nil {
		return nil, errors.New("the request has no target")
	}
	out := &doctorv1.Target{
		RunId: t.RunID, ServerName: t.ServerName, ConfigFiles: t.ConfigFiles, Deep: t.Deep, Writable: t.Writable,
		HbaFile: t.HBAFile, SynapsePython: t.SynapsePython, SetPassword: t.SetPassword,
		DeepBudget: durationTo(t.DeepBudget), SourceEncoding: t.SourceEncoding,
		PostgresConfig: t.PostgresConfig, SkipTables: t.SkipTables, SynapseCommand: t.SynapseCommand, Applying: t.Applying,
	}
	out.Machine, out.Thresholds, out.Earlier = machineTo(t.Machine), maps.Clone(t.Thresholds), earlierTo(t.Earlier)
	var err error
	if out.Databases, err = each(t.Databases, databaseTo); err != nil {
		return nil, err
	}
	if out.Replicas, err = each(t.Replicas, databaseTo); err != nil {
		return nil, fmt.Errorf("replica: %w", err)
	}
	if t.Admin != nil {
		if out.Admin, err = databaseTo(t.Admin); err != nil {
			return nil, fmt.Errorf("admin connection: %w", err)
		}
	}
	return out, nil
}

// TargetFrom is the inverse of [TargetTo].
func TargetFrom(t *doctorv1.Target) (*doctor.Target, error) {
	if t == nil {
		return nil, errors.New("the request has no target")
	}
	out := &doctor.Target{
		RunID: t.RunId, ServerName: t.ServerName, ConfigFiles: t.ConfigFiles, Deep: t.Deep, Writable: t.Writable,
		HBAFile: t.HbaFile, SynapsePython: t.SynapsePython, SetPassword: t.SetPassword, SourceEncoding: t.SourceEncoding,
		PostgresConfig: t.PostgresConfig, SkipTables: t.SkipTables, SynapseCommand: t.SynapseCommand, Applying: t.Applying,
	}
	out.Thresholds, out.Earlier = maps.Clone(t.Thresholds), earlierFrom(t.Earlier)
	var err error
	if out.Machine, err = machineFrom(t.Machine); err != nil {
		return nil, err
	}
	if out.DeepBudget, err = durationFrom(t.DeepBudget); err != nil {
		return nil, err
	}
	if out.Databases, err = each(t.Databases, databaseFrom); err != nil {
		return nil, err
	}
	if out.Replicas, err = each(t.Replicas, databaseFrom); err != nil {
		return nil, fmt.Errorf("replica: %w", err)
	}
	if t.Admin != nil {
		if out.Admin, err = databaseFrom(t.Admin); err != nil {
			return nil, fmt.Errorf("admin connection: %w", err)
		}
	}
	return out, nil
}

func databaseTo(d *doctor.Database) (*doctorv1.Database, error) {
	if d == nil {
		return nil, errors.New("a database entry is missing")
	}
	engine, err := engines.to(d.Engine)
	if err != nil {
		return nil, fmt.Errorf("database %q: %w", d.Label, err)
	}
	meets, err := needsTo(d.Meets)
	if err != nil {
		return nil, fmt.Errorf("database %q: %w", d.Label, err)
	}
	out := &doctorv1.Database{Label: d.Label, Engine: engine, DataStores: d.DataStores, Meets: meets, Path: d.Path,
		OsUser: d.OSUser, NoAdmin: d.NoAdmin, SystemId: d.SystemID, DataDir: d.DataDir}
	if d.Settings != nil {
		out.Settings = &doctorv1.Settings{Values: maps.Clone(d.Settings)}
	}
	return out, nil
}

func databaseFrom(d *doctorv1.Database) (*doctor.Database, error) {
	if d == nil {
		return nil, errors.New("a database entry is missing")
	}
	engine, err := engines.from(d.Engine)
	if err != nil {
		return nil, fmt.Errorf("database %q: %w", d.Label, err)
	}
	meets, err := needsFrom(d.Meets)
	if err != nil {
		return nil, fmt.Errorf("database %q: %w", d.Label, err)
	}
	out := &doctor.Database{Label: d.Label, Engine: engine, DataStores: d.DataStores, Meets: meets, Path: d.Path,
		OSUser: d.OsUser, NoAdmin: d.NoAdmin, SystemID: d.SystemId, DataDir: d.DataDir}
	if d.Settings != nil {
		out.Settings = map[string]string{} // not nil: a login was handed over, though it may have no settings
		maps.Copy(out.Settings, d.Settings.Values)
	}
	return out, nil
}
