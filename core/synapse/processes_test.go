package synapse

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestEveryProcessThatTheConfigurationTellsOfIsCounted(t *testing.T) {
	for name, c := range map[string]struct {
		files []string
		want  string
	}{
		"alone":                   {[]string{``}, "main"},
		"in the map":              {[]string{`instance_map: {main: {host: h, port: 1}, b: {host: h, port: 2}, a: {host: h, port: 3}}`}, "main a b"},
		"the main one, by name":   {[]string{`{stream_writers: {typing: master}, run_background_tasks_on: master, pusher_instances: [master]}`}, "main"},
		"by what they do":         {[]string{`{run_background_tasks_on: a, update_user_directory_from_worker: b, notify_appservices_from_worker: c, media_instance_running_background_jobs: d, pusher_instances: [e, f], federation_sender_instances: [f, g], outbound_federation_restricted_to: [h]}`}, "main a b c d e f g h"},
		"writers":                 {[]string{`{instance_map: {a: {host: h, port: 1}}, stream_writers: {events: [a, b], typing: c}}`}, "main a b c"},
		"files of workers":        {[]string{``, `worker_name: a`, `worker_name: b`}, "main a b"},
		"a later file wins":       {[]string{`pusher_instances: [a]`, `pusher_instances: [b]`}, "main b"},
		"what is no name":         {[]string{`{pusher_instances: 7, federation_sender_instances: {a: b}, run_background_tasks_on: null, notify_appservices_from_worker: ""}`}, "main"},
		"a list with a wrong one": {[]string{`pusher_instances: [a, 7]`}, "main"},
	} {
		var paths []string
		for i, text := range append([]string{`server_name: test.example`}, c.files...) {
			path := filepath.Join(t.TempDir(), string(rune('0'+i))+".yaml")
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			paths = append(paths, path)
		}
		config, err := Load(paths...)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got := config.Processes(); !slices.Equal(got, strings.Fields(c.want)) {
			t.Errorf("%s: %q, want %s", name, got, c.want)
		}
	}
}
