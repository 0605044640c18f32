package database

import (
	"fmt"
	"strings"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
)

// limits judges how many connections there may be against how many Synapse may open.
func (e *entry) limits(entries []*entry, said map[string]bool) {
	if e.login.OID != 0 && !e.login.Super { // superusers are not limited
		sharing := e.sharing(entries, func(o *entry) bool { return o.login.Name == e.login.Name })
		if limit := int(e.login.Limit); limit >= 0 && limit < total(sharing) && e.once(said, ConnectionLimit, e.login.Name) {
			e.limited(roleObject(e.login.Name), limit, sharing, e.liftRoleLimit())
		}
	}
	if e.database != nil && !e.login.Super {
		if limit := int(e.database.Limit); limit > 0 && limit < e.need.connections() {
			e.limited(databaseObject(e.name), limit, []*entry{e}, e.liftDatabaseLimit())
		}
	}
	sharing := e.sharing(entries, func(*entry) bool { return true })
	if e.once(said, MaxConnections) && e.server.maxConnections-e.server.reserved < total(sharing) {
		e.maxConnections(sharing)
	}
}

// sharing are the entries on the same server for which the condition holds.
func (e *entry) sharing(entries []*entry, holds func(*entry) bool) []*entry {
	var found []*entry
	for _, o := range entries {
		if o.serverKey() == e.serverKey() && holds(o) {
			found = append(found, o)
		}
	}
	return found
}

func total(entries []*entry) int {
	n := 0
	for _, e := range entries {
		n += e.need.connections()
	}
	return n
}

// opens says how many connections Synapse may open, and why.
func opens(entries []*entry) (text string, evidence map[string]string) {
	evidence = map[string]string{}
	for _, e := range entries {
		evidence["for the database "+e.db.Label] = e.need.String()
	}
	return fmt.Sprintf("at least %d", total(entries)), evidence
}

func (e *entry) limited(object doctor.Object, limit int, sharing []*entry, lift string) {
	count, evidence := opens(sharing)
	f := doctor.Finding{
		Code: ConnectionLimit, Severity: doctor.Warning, Object: object, Fixable: true, Evidence: evidence,
		Summary:  fmt.Sprintf("The %s %s is limited to %d connections, and Synapse may open %s.", object.Kind, object.Name, limit, count),
		Observed: fmt.Sprintf("CONNECTION LIMIT %d", limit), Expected: count + ", or no limit",
	}
	if limit < len(e.need.processes) {
		f.Severity = doctor.Error // not even one for each process
	}
	e.find(f, "Lift the limit, or lower cp_max under database: args: in homeserver.yaml.", asAdmin("", lift))
}

func (e *entry) liftRoleLimit() string {
	return fmt.Sprintf("ALTER ROLE %s CONNECTION LIMIT -1", e.login.Ident)
}

func (e *entry) liftDatabaseLimit() string {
	return fmt.Sprintf("ALTER DATABASE %s CONNECTION LIMIT -1", e.ident)
}

// spare is what is left for others than Synapse: an administrator, a backup, a monitor, and workers that are configured
// elsewhere.
const spare = 20

func (e *entry) maxConnections(sharing []*entry) {
	count, evidence := opens(sharing)
	evidence["max_connections"], evidence["reserved"] = fmt.Sprint(e.server.maxConnections), fmt.Sprint(e.server.reserved)
	enough := (total(sharing) + e.server.reserved + spare + 9) / 10 * 10
	byHand := asAdmin("", fmt.Sprintf("ALTER SYSTEM SET max_connections = %d", enough)) +
		"\n\nIt counts after a restart of the server (systemctl restart postgresql, or docker restart of its container), with Synapse stopped. A standby must have it first."
	if e.server.source == "command line" {
		byHand = fmt.Sprintf("By hand: the server is started with max_connections on its command line, which wins over every file. Change it there to %d (in docker-compose.yml under command:, or with what manages the server), and start the server anew with Synapse stopped.", enough)
	}
	var labels []string
	for _, o := range sharing {
		labels = append(labels, o.name)
	}
	e.find(doctor.Finding{
		Code: MaxConnections, Severity: doctor.Warning, Object: doctor.Object{Kind: "setting", Name: "max_connections"}, Evidence: evidence,
		Summary: fmt.Sprintf("The server has %d connections for ordinary roles, and Synapse may open %s (to %s): when it is busy, some are refused.",
			e.server.maxConnections-e.server.reserved, count, strings.Join(labels, ", ")),
		Observed: fmt.Sprintf("max_connections %d, of which %d are reserved", e.server.maxConnections, e.server.reserved), Expected: count + " for Synapse alone",
	}, "Give the server more connections, or lower cp_max under database: args: in homeserver.yaml: each connection costs the server a process and some megabytes.", byHand)
}
