package sequence_test

import (
	"testing"

	"github.com/synapse-doctor/synapse-doctor/checks/sequence"
	"github.com/synapse-doctor/synapse-doctor/core/pgtest"
	"github.com/synapse-doctor/synapse-doctor/plugins/sdk/sdktest"
)

func TestSequencesAreFoundMendedAndPutBack(t *testing.T) {
	sdktest.Suite{
		Check: sequence.Check,
		Setup: pgtest.Fixture(),
		Cases: []sdktest.Case{
			{
				Name: "behind a table", Break: `SELECT setval('receipts_sequence', 1)`,
				Want: []string{"sequence/behind-table sequence receipts_sequence"}, Plan: "sequence/resync", Changes: []string{"receipts_sequence"},
			},
			{
				Name: "behind the backfill", Break: `SELECT setval('events_backfill_stream_seq', 1)`,
				Want: []string{"sequence/behind-table sequence events_backfill_stream_seq"}, Plan: "sequence/resync", Changes: []string{"events_backfill_stream_seq"},
			},
			{
				Name:  "two at once, one behind a writer's position",
				Break: `SELECT setval('user_id_seq', 1); UPDATE stream_positions SET stream_id = 100000 WHERE stream_name = 'account_data'`,
				Want:  []string{"sequence/behind-stream-position sequence account_data_sequence", "sequence/behind-table sequence user_id_seq"},
				Plan:  "sequence/resync", Changes: []string{"account_data_sequence", "user_id_seq"},
			},
		},
	}.Run(t)
}
