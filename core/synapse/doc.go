// Package synapse knows Synapse from outside: how it reads its configuration, and which releases need which schema and
// which servers. It imports nothing of this repository.
//
//	config, err := synapse.Load("/etc/matrix-synapse/homeserver.yaml", "/etc/matrix-synapse/conf.d")
//	for _, entry := range config.Databases {
//		fmt.Println(entry.Label, entry.Name, entry.File, entry.Line)
//	}
//
// [Load] merges as Synapse does and reads YAML as PyYAML does, which is YAML 1.1: yes is a boolean, 010 is eight and
// 1:30 is ninety. [EditArgs] changes a database's arguments and keeps every other byte of the file. [Releases] is what
// every release of Synapse asked of a database.
package synapse
