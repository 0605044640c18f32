package tuning

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/pgdb"
	"github.com/synapse-doctor/synapse-doctor/core/pgtest"
)

// tree makes a kernel's files; a value that begins with → is a link to what follows.
func tree(t *testing.T, files map[string]string) kernel {
	t.Helper()
	root := t.TempDir()
	for name, content := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		if to, link := strings.CutPrefix(content, "→"); link {
			err = os.Symlink(to, path)
		} else {
			err = os.WriteFile(path, []byte(content), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return kernel{root: root}
}

const meminfo = "MemTotal:       16777216 kB\nHugePages_Total:     100\nHugePages_Free:       60\nHugePages_Rsvd:       10\nHugepagesize:       2048 kB\n"

func TestTheLeastLimitOfAControlGroupCounts(t *testing.T) {
	for name, tt := range map[string]struct {
		files  map[string]string
		memory int64
		own    bool
	}{
		"none": {map[string]string{"proc/7/cgroup": "0::/system.slice/postgresql.service\n"}, 16 * gib, false},
		"version 2": {map[string]string{"proc/7/cgroup": "0::/system.slice/postgresql.service\n", "sys/fs/cgroup/system.slice/postgresql.service/memory.max": "4294967296\n",
			"proc/self/cgroup": "0::/user.slice\n"}, 4 * gib, true},
		"version 2, throttled before": {map[string]string{"proc/7/cgroup": "0::/a\n", "sys/fs/cgroup/a/memory.max": "4294967296\n", "sys/fs/cgroup/a/memory.high": "2147483648\n"}, 2 * gib, true},
		"version 2, above": {map[string]string{"proc/7/cgroup": "0::/docker/x/y\n", "sys/fs/cgroup/docker/x/memory.max": "1073741824\n", "sys/fs/cgroup/docker/x/y/memory.max": "max\n",
			"proc/self/cgroup": "0::/docker/x\n"}, gib, false},
		"version 1": {map[string]string{"proc/7/cgroup": "9:name=systemd:/\n4:cpu,memory:/docker/x\n0::/\n", "sys/fs/cgroup/memory/docker/x/memory.limit_in_bytes": "1073741824\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n"}, gib, true},
		"in a container that sees its own group as the root": {map[string]string{"proc/7/cgroup": "4:memory:/docker/x\n", "proc/self/cgroup": "4:memory:/docker/x\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes": "1073741824\n"}, gib, false},
		"Synapse in the same one": {map[string]string{"proc/7/cgroup": "0::/matrix\n", "sys/fs/cgroup/matrix/memory.max": "4294967296\n", "proc/self/cgroup": "0::/user.slice\n",
			"proc/8/cgroup": "0::/matrix/synapse\n", "proc/8/cmdline": "python3\x00-m\x00synapse.app.homeserver\x00"}, 4 * gib, false},
		"more than there is": {map[string]string{"proc/7/cgroup": "0::/a\n", "sys/fs/cgroup/a/memory.max": "99999999999999\n"}, 16 * gib, false},
	} {
		t.Run(name, func(t *testing.T) {
			tt.files["proc/meminfo"] = meminfo
			s := sound(0)
			s.kernel = tree(t, tt.files)
			s.machine = machine{pid: 7}
			s.lookAtMemory(doctor.Machine{})
			if s.machine.memory != tt.memory || s.machine.own != tt.own || s.machine.inferred {
				t.Errorf("%+v", s.machine)
			}
			s.lookAtMemory(doctor.Machine{Memory: 3 * gib})
			if s.machine.memory != 3*gib {
				t.Errorf("what the administrator says does not count: %+v", s.machine)
			}
		})
	}
}

// The doctor is in a container, and sees the processes of the machine: below the same names is its own group.
func TestALimitThatCannotBeSeenIsNotMadeUp(t *testing.T) {
	for _, group := range []string{"0::/../server\n", "0::/..\n", "4:memory:/../../docker/x\n"} {
		s := sound(0)
		s.kernel = tree(t, map[string]string{"proc/meminfo": meminfo, "proc/7/cgroup": group, "proc/self/cgroup": "0::/\n4:memory:/\n",
			"sys/fs/cgroup/memory.max": "1073741824\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": "1073741824\n"})
		s.machine = machine{pid: 7}
		s.lookAtMemory(doctor.Machine{})
		if m := s.machine; m.memory != 16*gib || !m.inferred || m.own || !strings.Contains(m.memoryFrom, "can't be seen from here") {
			t.Errorf("%q: %+v", group, m)
		}
	}
}

func TestMemoryIsInferredOrNotKnown(t *testing.T) {
	k := tree(t, map[string]string{"proc/meminfo": meminfo})
	for host, want := range map[string]int64{"/run/postgresql": 16 * gib, "localhost": 16 * gib, "127.0.0.1,::1": 16 * gib, "db.example": 0, "localhost,10.0.0.1": 0} {
		s := sound(0)
		s.kernel, s.db = k, &doctor.Database{Label: "main", Settings: pgdb.Settings{"host": host}}
		s.machine = machine{}
		s.lookAtMachine()
		if m := s.machine; m.memory != want || m.inferred != (want > 0) {
			t.Errorf("%s: %+v", host, m)
		}
	}
}

func TestTheServersProcessIsFoundByItsName(t *testing.T) {
	k := tree(t, map[string]string{
		"proc/50/cmdline": "postgres: 15/main: synapse_user synapse 127.0.0.1(4711) SELECT\x00", "proc/50/status": "Name:\tpostgres\nPPid:\t40\nNSpid:\t50\n",
		"proc/90/cmdline": "postgres: synapse_user synapse 172.18.0.3(4712) SELECT\x00", "proc/90/status": "Name:\tpostgres\nPPid:\t80\nNSpid:\t90\t12\n",
		"proc/12/cmdline": "sleep\x001\x00", "proc/12/status": "Name:\tsleep\nPPid:\t1\nNSpid:\t12\n",
	})
	for _, tt := range []struct{ pid, port, want int }{
		{50, 4711, 40}, {50, 4000, 0}, {12, 4712, 80}, {12, 4711, 0}, {51, 4711, 0},
	} {
		if got := k.postmaster(tt.pid, "synapse_user", "synapse", tt.port); got != tt.want {
			t.Errorf("session %d from port %d: %d, want %d", tt.pid, tt.port, got, tt.want)
		}
	}
}

// A container's postmaster.pid has a number of the container's.
func TestTheServersProcessIsTheOneThatWorksInItsData(t *testing.T) {
	files := map[string]string{
		"data/postmaster.pid": "1\n/data\n", "elsewhere/file": "", "proc/1/status": "Name:\tsystemd\n", "proc/1/cwd": "→../../elsewhere", "proc/80/cwd": "→../../data",
		"proc/90/cmdline": "postgres: synapse_user synapse [local] SELECT\x00", "proc/90/status": "Name:\tpostgres\nPPid:\t80\nNSpid:\t90\t12\n",
	}
	s := sound(0)
	s.kernel, s.db.DataDir, s.PID = tree(t, files), "/data", 12
	if got := s.serverProcess(); got != 80 {
		t.Errorf("in a container: %d", got)
	}
	delete(files, "proc/1/cwd") // who may not look is told nothing
	if s.kernel = tree(t, files); s.serverProcess() != 80 {
		t.Errorf("without the right to look: %d", s.serverProcess())
	}
	files["data/postmaster.pid"] = "80\n"
	if s.kernel, s.PID = tree(t, files), 4711; s.serverProcess() != 80 {
		t.Errorf("by its directory: %d", s.serverProcess())
	}
}

// A server in a database of its own role, seen by an ordinary user: nothing but names of processes is needed.
func TestALocalServerIsFoundWithoutRights(t *testing.T) {
	server := pgtest.Start(t)
	db := server.Database(t)
	for _, host := range []string{db.Host, server.SocketDir} {
		d := &doctor.Database{Label: "main", Engine: doctor.Postgres, Meets: doctor.NeedsPostgres, Settings: pgdb.Settings{"host": host,
			"port": strconv.Itoa(db.Port), "dbname": db.Name, "user": db.User, "password": db.Password, "sslmode": "disable"}}
		target := &doctor.Target{Databases: []*doctor.Database{d}}
		defer target.Close()
		servers, err := look(t.Context(), target, hostMachine)
		if err != nil {
			t.Fatal(err)
		}
		text := read(t, filepath.Join(server.DataDir, "postmaster.pid"))
		pid, _, _ := strings.Cut(text, "\n")
		if m := servers[0].machine; strconv.Itoa(m.pid) != pid || m.inferred || m.memory == 0 {
			t.Errorf("over %s: %+v, and the server is process %s", host, m, pid)
		}
	}
}

func TestTheKindOfADisk(t *testing.T) {
	devices := map[string]string{
		"sys/devices/sda/queue/rotational": "1\n", "sys/devices/sda/sda1/partition": "1\n", "sys/devices/nvme/queue/rotational": "0\n",
		"sys/devices/vda/queue/rotational": "1\n", "sys/devices/vdb/queue/rotational": "0\n",
		"sys/devices/dm-0/queue/rotational": "0\n", "sys/devices/dm-0/slaves/nvme": "→../../nvme", "sys/devices/dm-1/slaves/sda1": "→../../sda/sda1", "sys/devices/dm-1/slaves/nvme": "→../../nvme",
		"sys/devices/md0/slaves/dm-0": "→../../dm-0",
		"sys/dev/block/8:0":           "→../../devices/sda", "sys/dev/block/8:1": "→../../devices/sda/sda1", "sys/dev/block/259:0": "→../../devices/nvme",
		"sys/dev/block/254:0": "→../../devices/vda", "sys/dev/block/254:16": "→../../devices/vdb", "sys/dev/block/253:0": "→../../devices/dm-0",
		"sys/dev/block/253:1": "→../../devices/dm-1", "sys/dev/block/9:0": "→../../devices/md0",
		"sys/class/block/nvme/dev": "259:0\n",
		"proc/self/mountinfo":      "1 1 0:44 / / rw - btrfs /dev/nvme rw\n2 1 0:45 / /x rw shared:1 - overlay overlay rw\n",
	}
	k := tree(t, devices)
	for _, tt := range []struct {
		major, minor uint32
		want         doctor.Disk
	}{
		{8, 0, doctor.DiskHDD}, {8, 1, doctor.DiskHDD}, {259, 0, doctor.DiskSSD}, {253, 0, doctor.DiskSSD}, {253, 1, doctor.DiskHDD}, {9, 0, doctor.DiskSSD},
		{254, 0, doctor.DiskUnknown}, {254, 16, doctor.DiskSSD}, // a virtual disk that says it turns may be anything
		{0, 44, doctor.DiskSSD}, {0, 45, doctor.DiskUnknown}, {0, 46, doctor.DiskUnknown}, {7, 7, doctor.DiskUnknown},
	} {
		if got, from := k.disk(tt.major, tt.minor); got != tt.want || (from == "") != (tt.want == "") {
			t.Errorf("%d:%d: %q (%s), want %q", tt.major, tt.minor, got, from, tt.want)
		}
	}
}

func TestAVirtualDiskThatSaysItTurnsMayBeAnything(t *testing.T) {
	for name, tt := range map[string]struct {
		cpu, vendor string
		want        doctor.Disk
	}{
		"a real one":             {"flags\t\t: fpu vme hypervisor_like\n", "ATA     \n", doctor.DiskHDD},
		"by the processor":       {"processor\t: 0\nflags\t\t: fpu vme hypervisor lahf_lm\n", "ATA     \n", doctor.DiskUnknown},
		"by the processor's end": {"flags\t\t: fpu hypervisor\n", "", doctor.DiskUnknown},
		"by its maker":           {"Features\t: fp asimd\n", "QEMU    \n", doctor.DiskUnknown},
		"of VMware":              {"", "VMware  \n", doctor.DiskUnknown},
		"of Hyper-V":             {"", "Msft    \n", doctor.DiskUnknown},
		"of VirtualBox":          {"", "VBOX    \n", doctor.DiskUnknown},
	} {
		k := tree(t, map[string]string{"proc/cpuinfo": tt.cpu, "sys/devices/sda/device/vendor": tt.vendor, "sys/devices/sda/queue/rotational": "1\n",
			"sys/devices/sda/sda1/partition": "1\n", "sys/dev/block/8:1": "→../../devices/sda/sda1"})
		if got, _ := k.disk(8, 1); got != tt.want {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
	}
}

func TestHugePagesAreCounted(t *testing.T) {
	k := tree(t, map[string]string{"proc/meminfo": meminfo, "sys/kernel/mm/transparent_hugepage/enabled": "always [madvise] never\n"})
	if h := k.hugePages(0); !h.known || h.size != 2*mib || h.total != 100 || h.unset != 50 || h.transparent != "madvise" {
		t.Errorf("%+v", h)
	}
	if h := k.hugePages(gib); h.known {
		t.Errorf("pages of another size than the server's: %+v", h)
	}
	s := sound(24*gib).with("shared_buffers", "5GB")
	s.machine.huge = huge{known: true, size: 2 * mib, total: 100, unset: 50}
	s.settings["huge_pages_status"] = setting{Name: "huge_pages_status", Raw: "off"}
	s.settings["shared_memory_size_in_huge_pages"] = setting{Name: "shared_memory_size_in_huge_pages", Raw: "2700"}
	found := s.hugePages()
	if len(found) != 1 || !strings.Contains(found[0].remedy, "vm.nr_hugepages = 2750'") { // 50 are others'
		t.Errorf("%+v", found)
	}
	delete(s.settings, "shared_memory_size_in_huge_pages")
	if n, how := s.pagesNeeded(); !strings.HasPrefix(how, "estimated") || n < 2560 || n > 2800 {
		t.Errorf("%d: %s", n, how)
	}
	s.shmem = 5*gib + 100*mib
	if n, how := s.pagesNeeded(); !strings.HasPrefix(how, "pg_shmem_allocations") || n != 2621 {
		t.Errorf("%d: %s", n, how)
	}
}

func TestTheCommandThatRestarts(t *testing.T) {
	for want, tt := range map[string]struct{ cgroup, dir, init string }{
		"systemctl restart postgresql@15-main.service":      {"0::/system.slice/system-postgresql.slice/postgresql@15-main.service\n", "/var/lib/postgresql/15/main", ""},
		"docker restart 0123456789ab":                       {"0::/system.slice/docker-" + strings.Repeat("0123456789ab", 5) + "0123.scope\n", "", ""},
		"podman restart 0123456789ab":                       {"0::/machine.slice/libpod-" + strings.Repeat("0123456789ab", 5) + "0123.scope/container\n", "", ""},
		"systemctl restart postgresql@16-main":              {"0::/\n", "/var/lib/postgresql/16/main", "systemd\n"},
		"pg_ctlcluster 16 main restart":                     {"0::/\n", "/var/lib/postgresql/16/main", "tini\n"},
		"systemctl restart postgresql-17":                   {"0::/\n", "/var/lib/pgsql/17/data", ""},
		"pg_ctl restart -D /d   # as the server's own user": {"0::/user.slice/ssh.service\n", "/d", ""},
		"": {"", "", ""},
	} {
		s := sound(gib)
		s.kernel = tree(t, map[string]string{"proc/7/cgroup": tt.cgroup, "proc/1/comm": tt.init})
		s.machine.pid, s.db.DataDir = 7, tt.dir
		if got := s.restart(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
		if how := s.howToRestart(); !strings.HasPrefix(how, "    ") {
			t.Errorf("%q", how)
		}
	}
}

func TestWhatSynapseNeedsIsLeftToIt(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for name, tt := range map[string]struct {
		text string
		want int64
	}{
		"nothing said":     {"server_name: a\n", 200 * mib},
		"a factor":         {"caches: {global_factor: 2.0}\n", 800 * mib},
		"no caches":        {"caches: {global_factor: 0}\n", 0},
		"a bound":          {"caches: {global_factor: 10, cache_autotuning: {max_cache_memory_usage: 1024M}}\n", gib},
		"a bound in bytes": {"caches: {cache_autotuning: {max_cache_memory_usage: 1048576}}\n", mib},
		"nonsense":         {"caches: {global_factor: -1}\n", 200 * mib},
	} {
		if got, _ := caches([]string{write("a.yaml", tt.text)}); got != tt.want {
			t.Errorf("%s: %s, want %s", name, about(got), about(tt.want))
		}
	}
	if got, _ := caches([]string{write("a.yaml", "caches: {global_factor: 4}\n"), write("b.yaml", "caches: {}\n"), write("c.yaml", "x: 1\n")}); got != 200*mib {
		t.Errorf("the last section counts: %s", about(got))
	}
	s := sound(8 * gib)
	if left := s.machine.left(); left != 8*gib-8*gib/10-450*mib {
		t.Errorf("left: %s", about(left))
	}
	s.machine.nearby = false
	if s.leaveOthers(); s.machine.left() != 8*gib-8*gib/10 {
		t.Errorf("Synapse is elsewhere: %s", about(s.machine.left()))
	}
	s.machine.nearby, s.opens.processes = true, 100
	if s.leaveOthers(); s.machine.left() != 2*gib {
		t.Errorf("a quarter stays: %s", about(s.machine.left()))
	}
	s.opens.processes = 1
	s.kernel = tree(t, map[string]string{"proc/9/cmdline": "/usr/bin/python3\x00-m\x00synapse.app.homeserver\x00", "proc/9/statm": "500000 400000 1000 1 0 1 0\n",
		"proc/10/cmdline": "postgres\x00", "proc/10/statm": "900000 900000 1 1 0 1 0\n"})
	if s.leaveOthers(); s.machine.others != 8*gib/10+399_000*int64(os.Getpagesize()) {
		t.Errorf("what it holds now: %s", about(s.machine.others))
	}
}
