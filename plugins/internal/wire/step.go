package wire

import (
	"errors"
	"fmt"
	"maps"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	doctorv1 "github.com/synapse-doctor/synapse-doctor/proto/doctor/v1"
)

var sqlModes = enum[doctor.SQLMode, doctorv1.SqlMode]{"transaction mode", []pair[doctor.SQLMode, doctorv1.SqlMode]{
	{doctor.ModeAlone, doctorv1.SqlMode_SQL_MODE_ALONE},
	{doctor.ModeGroup, doctorv1.SqlMode_SQL_MODE_GROUP},
	{doctor.ModeNone, doctorv1.SqlMode_SQL_MODE_NONE},
}}

func stepTo(s doctor.Step) (*doctorv1.Step, error) {
	out := &doctorv1.Step{Title: s.Title}
	switch s.Kind() {
	case doctor.KindSQL:
		sql, err := sqlTo(s.SQL)
		if err != nil {
			return nil, fmt.Errorf("step %q: %w", s.Title, err)
		}
		out.Kind = &doctorv1.Step_Sql{Sql: sql}
	case doctor.KindEditFile:
		out.Kind = &doctorv1.Step_EditFile{EditFile: editTo(s.EditFile)}
	case doctor.KindProbe:
		probe, err := probeTo(s.Probe)
		if err != nil {
			return nil, fmt.Errorf("step %q: %w", s.Title, err)
		}
		out.Kind = &doctorv1.Step_Probe{Probe: probe}
	case doctor.KindOperation:
		out.Kind = &doctorv1.Step_Operation{Operation: operationTo(*s.Operation)}
	case doctor.KindManual:
		out.Kind = &doctorv1.Step_Manual{Manual: &doctorv1.ManualStep{Text: s.Manual.Text}}
	default:
		return nil, fmt.Errorf("step %q does not say exactly one thing to do", s.Title)
	}
	return out, nil
}

func stepFrom(s *doctorv1.Step) (doctor.Step, error) {
	out := doctor.Step{Title: s.GetTitle()}
	var err error
	switch k := s.GetKind().(type) {
	case *doctorv1.Step_Sql:
		out.SQL, err = sqlFrom(k.Sql)
	case *doctorv1.Step_EditFile:
		out.EditFile, err = editFrom(k.EditFile)
	case *doctorv1.Step_Probe:
		out.Probe, err = probeFrom(k.Probe)
	case *doctorv1.Step_Operation:
		var op doctor.OperationStep
		op, err = operationFrom(k.Operation)
		out.Operation = &op
	case *doctorv1.Step_Manual:
		out.Manual = &doctor.ManualStep{Text: k.Manual.GetText()}
	default:
		err = errors.New("nothing to do, or of a kind that this version does not know")
	}
	if err != nil {
		return doctor.Step{}, fmt.Errorf("step %q: %w", out.Title, err)
	}
	return out, nil
}

func sqlTo(s *doctor.SQLStep) (*doctorv1.SqlStep, error) {
	out := &doctorv1.SqlStep{
		Database: s.Database, Statement: s.Statement, Group: s.Group, MaxRows: s.MaxRows, Lasting: s.Lasting,
		Admin: s.Admin, Reload: s.Reload,
	}
	if v := s.Verifier; v != nil {
		out.Verifier = &doctorv1.Verifier{Password: v.Password, Salt: v.Salt}
	}
	var err error
	if out.Args, err = each(s.Args, valueTo); err != nil {
		return nil, err
	}
	if out.Mode, err = sqlModes.to(s.Mode); err != nil {
		return nil, err
	}
	if out.Guard, err = optional(s.Guard, guardTo); err != nil {
		return nil, err
	}
	if out.Save, err = optional(s.Save, saveTo); err != nil {
		return nil, err
	}
	out.Undo, err = each(s.Undo, undoTo)
	return out, err
}

func sqlFrom(s *doctorv1.SqlStep) (*doctor.SQLStep, error) {
	out := &doctor.SQLStep{
		Database: s.GetDatabase(), Statement: s.GetStatement(), Group: s.GetGroup(), MaxRows: s.GetMaxRows(), Lasting: s.GetLasting(),
		Admin: s.GetAdmin(), Reload: s.GetReload(),
	}
	if v := s.GetVerifier(); v != nil {
		out.Verifier = &doctor.Verifier{Password: v.GetPassword(), Salt: v.GetSalt()}
	}
	var err error
	if out.Args, err = each(s.GetArgs(), valueFrom); err != nil {
		return nil, err
	}
	if out.Mode, err = sqlModes.from(s.GetMode()); err != nil {
		return nil, err
	}
	if out.Guard, err = optional(s.GetGuard(), guardFrom); err != nil {
		return nil, err
	}
	if out.Save, err = optional(s.GetSave(), saveFrom); err != nil {
		return nil, err
	}
	out.Undo, err = each(s.GetUndo(), undoFrom)
	return out, err
}

func guardTo(g *doctor.Guard) (*doctorv1.Guard, error) {
	args, err := each(g.Args, valueTo)
	return &doctorv1.Guard{Query: g.Query, Args: args, Otherwise: g.Else}, err
}

func guardFrom(g *doctorv1.Guard) (*doctor.Guard, error) {
	args, err := each(g.GetArgs(), valueFrom)
	return &doctor.Guard{Query: g.GetQuery(), Args: args, Else: g.GetOtherwise()}, err
}

func saveTo(s *doctor.Save) (*doctorv1.Save, error) {
	args, err := each(s.Args, valueTo)
	return &doctorv1.Save{Table: s.Table, Query: s.Query, Args: args}, err
}

func saveFrom(s *doctorv1.Save) (*doctor.Save, error) {
	args, err := each(s.GetArgs(), valueFrom)
	return &doctor.Save{Table: s.GetTable(), Query: s.GetQuery(), Args: args}, err
}

func undoTo(u doctor.UndoSQL) (*doctorv1.UndoSql, error) {
	args, err := each(u.Args, valueTo)
	if err != nil {
		return nil, err
	}
	guard, err := optional(u.Guard, guardTo)
	return &doctorv1.UndoSql{Statement: u.Statement, Args: args, Guard: guard, ForEachSaved: u.ForEachSaved}, err
}

func undoFrom(u *doctorv1.UndoSql) (doctor.UndoSQL, error) {
	args, err := each(u.GetArgs(), valueFrom)
	if err != nil {
		return doctor.UndoSQL{}, err
	}
	guard, err := optional(u.GetGuard(), guardFrom)
	return doctor.UndoSQL{Statement: u.GetStatement(), Args: args, Guard: guard, ForEachSaved: u.GetForEachSaved()}, err
}

func valueTo(v doctor.Value) (*doctorv1.Value, error) {
	switch x := v.V.(type) {
	case nil:
		return &doctorv1.Value{Kind: &doctorv1.Value_Null{Null: &doctorv1.Null{}}}, nil
	case string:
		return &doctorv1.Value{Kind: &doctorv1.Value_Text{Text: x}}, nil
	case int64:
		return &doctorv1.Value{Kind: &doctorv1.Value_Integer{Integer: x}}, nil
	case bool:
		return &doctorv1.Value{Kind: &doctorv1.Value_Boolean{Boolean: x}}, nil
	case []byte:
		return &doctorv1.Value{Kind: &doctorv1.Value_Binary{Binary: x}}, nil
	}
	return nil, fmt.Errorf("an argument is a %T: only nil, string, int64, bool and []byte can be sent", v.V)
}

func valueFrom(v *doctorv1.Value) (doctor.Value, error) {
	switch k := v.GetKind().(type) {
	case *doctorv1.Value_Null:
		return doctor.Value{}, nil
	case *doctorv1.Value_Text:
		return doctor.Value{V: k.Text}, nil
	case *doctorv1.Value_Integer:
		return doctor.Value{V: k.Integer}, nil
	case *doctorv1.Value_Boolean:
		return doctor.Value{V: k.Boolean}, nil
	case *doctorv1.Value_Binary:
		if k.Binary == nil {
			return doctor.Value{V: []byte{}}, nil // an empty one: NULL has its own kind
		}
		return doctor.Value{V: k.Binary}, nil
	}
	return doctor.Value{}, errors.New("an argument has no value, or one of a kind that this version does not know")
}

func editTo(e *doctor.EditFileStep) *doctorv1.EditFileStep {
	out := &doctorv1.EditFileStep{Path: e.Path, Before: e.Before, Format: e.Format, Password: e.Password, Configured: e.Configured}
	if s := e.Server; s != nil {
		out.Server = &doctorv1.ServerFile{DataDir: s.DataDir, SystemId: s.SystemID}
	}
	for _, s := range e.Splices {
		out.Splices = append(out.Splices, &doctorv1.Splice{Offset: s.Offset, Old: s.Old, New: s.New})
	}
	return out
}

func editFrom(e *doctorv1.EditFileStep) (*doctor.EditFileStep, error) {
	out := &doctor.EditFileStep{Path: e.GetPath(), Before: e.GetBefore(), Format: e.GetFormat(), Password: e.GetPassword(), Configured: e.GetConfigured()}
	if s := e.GetServer(); s != nil {
		out.Server = &doctor.ServerFile{DataDir: s.GetDataDir(), SystemID: s.GetSystemId()}
	}
	end := int64(0)
	for _, s := range e.GetSplices() {
		offset, old := s.GetOffset(), s.GetOld()
		if offset < end || offset > maxOffset {
			return nil, fmt.Errorf("the replacement at byte %d is out of order", offset)
		}
		end = offset + int64(len(old))
		out.Splices = append(out.Splices, doctor.Splice{Offset: offset, Old: old, New: s.GetNew()})
	}
	return out, nil
}

// maxOffset is far beyond any configuration file and far below an overflow.
const maxOffset = 1 << 40

func probeTo(p *doctor.ProbeStep) (*doctorv1.ProbeStep, error) {
	if p.Holds == nil && p.Login == nil {
		return nil, errors.New("a probe has nothing to look at")
	}
	out := &doctorv1.ProbeStep{Database: p.Database, Admin: p.Admin}
	if l := p.Login; l != nil {
		out.Login = &doctorv1.Login{Address: l.Address, WrongPassword: l.WrongPassword, MustFail: l.MustFail, Accepted: l.Accepted}
	}
	var err error
	out.Holds, err = optional(p.Holds, guardTo)
	return out, err
}

func probeFrom(p *doctorv1.ProbeStep) (*doctor.ProbeStep, error) {
	if p.GetHolds() == nil && p.GetLogin() == nil {
		return nil, errors.New("a probe has nothing to look at")
	}
	out := &doctor.ProbeStep{Database: p.GetDatabase(), Admin: p.GetAdmin()}
	if l := p.GetLogin(); l != nil {
		out.Login = &doctor.Login{Address: l.Address, WrongPassword: l.WrongPassword, MustFail: l.MustFail, Accepted: l.Accepted}
	}
	var err error
	out.Holds, err = optional(p.GetHolds(), guardFrom)
	return out, err
}

func operationTo(o doctor.OperationStep) *doctorv1.OperationStep {
	return &doctorv1.OperationStep{
		Name: o.Name, Params: maps.Clone(o.Params), Statements: o.Statements, Resumes: o.Resumes, Stops: o.Stops, Undo: o.Undo,
		Effects: effectsTo(o.Effects),
	}
}

func operationFrom(o *doctorv1.OperationStep) (doctor.OperationStep, error) {
	if o.GetName() == "" {
		return doctor.OperationStep{}, errors.New("an operation has no name")
	}
	out := doctor.OperationStep{
		Name: o.Name, Statements: o.Statements, Resumes: o.Resumes, Stops: o.Stops, Undo: o.Undo,
		Effects: effectsFrom(o.Effects),
	}
	if len(o.Params) > 0 {
		out.Params = maps.Clone(o.Params)
	}
	return out, nil
}

func effectsTo(e doctor.Effects) *doctorv1.Effects {
	return &doctorv1.Effects{Databases: e.Databases, Tables: e.Tables, Files: e.Files}
}

func effectsFrom(e *doctorv1.Effects) doctor.Effects {
	return doctor.Effects{Databases: e.GetDatabases(), Tables: e.GetTables(), Files: e.GetFiles()}
}
