package main

import (
	"testing"

	"github.com/synapse-doctor/synapse-doctor/core/pgtest"
	"github.com/synapse-doctor/synapse-doctor/plugins/sdk/sdktest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

func TestRoomsThatNobodyHereIsIn(t *testing.T) {
	sdktest.Suite{
		Check: check,
		Setup: pgtest.Fixture() + `
			CREATE TABLE room_stats_current (room_id text PRIMARY KEY, joined_members int NOT NULL, local_users_in_room int NOT NULL);
			INSERT INTO room_stats_current SELECT room_id, 3, 2 FROM rooms`,
		Cases: []sdktest.Case{{
			Name:    "everybody here has left two rooms",
			Break:   `UPDATE room_stats_current SET local_users_in_room = 0 WHERE room_id IN ('!room4:test.example', '!room8:test.example')`,
			Want:    []string{"published-rooms/empty-room room !room4:test.example", "published-rooms/empty-room room !room8:test.example"},
			Plan:    "published-rooms/unpublish",
			Changes: []string{"rooms"},
		}, {
			Name:  "everybody here has left a room that is not published",
			Break: `UPDATE room_stats_current SET local_users_in_room = 0 WHERE room_id = '!room1:test.example'`,
		}},
	}.Run(t)
}
