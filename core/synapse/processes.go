package synapse

import (
	"fmt"
	"slices"
)

// oneInstance and severalInstances are the options that name workers which need not be in instance_map: only those that
// others send requests to have to be.
var (
	oneInstance      = []string{"worker_name", "run_background_tasks_on", "update_user_directory_from_worker", "notify_appservices_from_worker", "media_instance_running_background_jobs"}
	severalInstances = []string{"pusher_instances", "federation_sender_instances", "outbound_federation_restricted_to"}
)

// Processes are the names of the processes that the configuration tells of: main, then the workers, sorted. There may be
// more: a worker that only answers clients is named nowhere but in a file of its own.
func (c *Config) Processes() []string {
	names := map[string]bool{}
	add := func(v any) {
		list, _ := stringList(v) // what is of another type names nobody
		for _, name := range list {
			names[name] = true
		}
	}
	for _, name := range c.Workers {
		names[name] = true
	}
	for _, writers := range c.StreamWriters {
		add(anyList(writers))
	}
	merged := map[string]any{}
	for _, d := range c.documents {
		top, _ := d.value.(map[any]any)
		for k, v := range top {
			merged[fmt.Sprint(k)] = v
		}
		add(top["worker_name"]) // each worker has a file of its own: a later one does not make the earlier one's process go away
	}
	for _, key := range slices.Concat(oneInstance, severalInstances) {
		add(merged[key])
	}
	for _, main := range []string{"", "main", "master"} { // the main process is "main" in instance_map and "master" elsewhere
		delete(names, main)
	}
	processes := []string{"main"}
	for name := range names {
		processes = append(processes, name)
	}
	slices.Sort(processes[1:])
	return processes
}

func anyList(texts []string) []any {
	list := make([]any, len(texts))
	for i, text := range texts {
		list[i] = text
	}
	return list
}
