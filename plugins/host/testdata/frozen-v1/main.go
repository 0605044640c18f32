// Command synapse-doctor-plugin-frozen is a plugin as it was made when version 1 of the protocol was new: with go-plugin and the
// code that was generated then, and nothing of synapse-doctor. A test runs it with every later host. Neither it nor its
// doctorv1 is ever changed or generated anew.
package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"example.org/synapse-doctor-plugin-frozen/doctorv1"
)

func main() {
	plugin.Serve(&plugin.ServeConfig{
		HandshakeConfig: plugin.HandshakeConfig{
			ProtocolVersion: 1, MagicCookieKey: "SYNAPSE_DOCTOR_PLUGIN", MagicCookieValue: "5f0a1c2e-doctor-plugin",
		},
		VersionedPlugins: map[int]plugin.PluginSet{1: {"doctor": &frozen{}}},
		GRPCServer:       plugin.DefaultGRPCServer,
		Logger:           hclog.NewNullLogger(),
	})
}

type frozen struct {
	plugin.NetRPCUnsupportedPlugin
	doctorv1.UnimplementedPluginServer
}

func (f *frozen) GRPCServer(_ *plugin.GRPCBroker, g *grpc.Server) error {
	doctorv1.RegisterPluginServer(g, f)
	return nil
}

func (f *frozen) GRPCClient(context.Context, *plugin.GRPCBroker, *grpc.ClientConn) (any, error) {
	return nil, errors.New("this is a plugin, not a host")
}

const check = "frozen-rows"

func (f *frozen) Describe(context.Context, *doctorv1.DescribeRequest) (*doctorv1.DescribeResponse, error) {
	return &doctorv1.DescribeResponse{Name: "frozen", Version: "1.0", Checks: []*doctorv1.CheckInfo{{
		Id: check, Title: "There are no old rows", Why: "Old rows take room.", Needs: []doctorv1.Need{doctorv1.Need_NEED_CONFIG},
		Codes:      []*doctorv1.Code{{Id: check + "/old", Title: "there are old rows", Severity: doctorv1.Severity_SEVERITY_WARNING}},
		Plans:      true,
		Operations: []string{"remove"},
	}}}, nil
}

func (f *frozen) Check(req *doctorv1.CheckRequest, out grpc.ServerStreamingServer[doctorv1.CheckResponse]) error {
	for _, id := range req.Checks {
		if id != check {
			return status.Errorf(codes.NotFound, "there is no check %s", id)
		}
	}
	name := req.Target.Databases[0].Settings.Values["dbname"]
	for _, event := range []*doctorv1.CheckResponse{
		{Check: check, Event: &doctorv1.CheckResponse_Progress{Progress: &doctorv1.Progress{Text: "reading", Done: 1, Total: 3, Unit: "rows"}}},
		{Check: check, Event: &doctorv1.CheckResponse_Found{Found: &doctorv1.Finding{
			Code: check + "/old", Severity: doctorv1.Severity_SEVERITY_WARNING, Database: req.Target.Databases[0].Label,
			Object:  &doctorv1.Object{Kind: "database", Name: name},
			Summary: fmt.Sprintf("The database %s of %s has old rows.", name, req.Target.ServerName), Observed: "3 old rows", Expected: "none",
			Remedy: "Remove them.", Fixable: true, Evidence: map[string]string{"rows": "3"},
		}}},
		{Check: check, Event: &doctorv1.CheckResponse_Done{Done: &doctorv1.Done{Status: doctorv1.Status_STATUS_OK, Coverage: "3 rows"}}},
	} {
		if err := out.Send(event); err != nil {
			return err
		}
	}
	return nil
}

func (f *frozen) Plan(req *doctorv1.PlanRequest, out grpc.ServerStreamingServer[doctorv1.PlanResponse]) error {
	if req.Check != check {
		return status.Errorf(codes.NotFound, "there is no check %s", req.Check)
	}
	found := req.Findings[0]
	old := []*doctorv1.Value{{Kind: &doctorv1.Value_Text{Text: "old"}}}
	return out.Send(&doctorv1.PlanResponse{Plan: &doctorv1.PlannedFix{
		Id: check + "/remove", Title: "Remove the old rows", Covers: []*doctorv1.FindingKey{{Code: found.Code, Database: found.Database, Object: found.Object}},
		Risk: doctorv1.Risk_RISK_CAREFUL, Expects: doctorv1.Expectation_EXPECTATION_SYNAPSE, Database: found.Database,
		Requires: []doctorv1.Requirement{doctorv1.Requirement_REQUIREMENT_SYNAPSE_STOPPED}, Reversible: true, UndoOnFailure: true,
		Steps: []*doctorv1.Step{
			{Title: "Mark them", Kind: &doctorv1.Step_Sql{Sql: &doctorv1.SqlStep{
				Database: found.Database, Statement: "UPDATE rows SET state = $1", Args: old, Mode: doctorv1.SqlMode_SQL_MODE_ALONE, MaxRows: 3,
				Guard: &doctorv1.Guard{Query: "SELECT true", Otherwise: "There are none."},
				Save:  &doctorv1.Save{Table: "rows", Query: "SELECT row_to_json(r)::text FROM rows r"},
				Undo:  []*doctorv1.UndoSql{{Statement: "UPDATE rows SET state = 'new'"}},
			}}},
			{Title: "Remove them", Kind: &doctorv1.Step_Operation{Operation: &doctorv1.OperationStep{
				Name: "remove", Params: map[string]string{"state": "old"}, Effects: &doctorv1.Effects{Databases: []string{found.Database}, Tables: []string{"rows"}},
				Resumes: "after the last row that it has saved", Undo: "remove", Statements: []string{"DELETE FROM rows WHERE state = 'old'"},
			}}},
		},
	}})
}

func (f *frozen) Execute(stream grpc.BidiStreamingServer[doctorv1.ExecuteRequest, doctorv1.ExecuteResponse]) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	if start := first.GetStart(); start.GetCheck() != check || start.GetStep().GetName() != "remove" || start.GetStep().GetParams()["state"] != "old" {
		return status.Error(codes.NotFound, "there is no such operation")
	}
	if err := stream.Send(&doctorv1.ExecuteResponse{Message: &doctorv1.ExecuteResponse_Progress{Progress: &doctorv1.Progress{Text: "removing"}}}); err != nil {
		return err
	}
	for n := uint64(1); n <= 3; n++ {
		if err := stream.Send(&doctorv1.ExecuteResponse{Message: &doctorv1.ExecuteResponse_Save{Save: &doctorv1.SaveRows{
			Number: n, Resume: fmt.Sprint(n), Rows: []*doctorv1.SavedRow{{Table: "old", Json: fmt.Sprintf(`{"n":%d}`, n)}},
		}}}); err != nil {
			return err
		}
		answer, err := stream.Recv()
		if err != nil {
			return err
		}
		if saved := answer.GetSaved(); saved.GetNumber() != n || saved.GetError() != "" {
			return status.Errorf(codes.Unknown, "the host did not save row %d", n)
		}
	}
	return nil
}
