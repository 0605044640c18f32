package tuning

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
)

// diskOf tells what a directory's disk is, as the kernel has it.
func (k kernel) diskOf(dir string) (doctor.Disk, string) {
	info, err := os.Stat(dir)
	if err != nil {
		return doctor.DiskUnknown, ""
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return doctor.DiskUnknown, ""
	}
	return k.disk(unix.Major(uint64(stat.Dev)), unix.Minor(uint64(stat.Dev)))
}

// A virtual machine's disk says that it rotates whatever is below it.
var (
	virtualDisk   = regexp.MustCompile(`^(vd|xvd|nbd|rbd|loop)`)
	virtualVendor = regexp.MustCompile(`^(QEMU|VMware|Msft|VBOX)`)
	hypervisor    = regexp.MustCompile(`(?m)^flags\s*:.* hypervisor( |$)`) // x86's only
)

func (k kernel) virtual(disk string) bool {
	return virtualDisk.MatchString(filepath.Base(disk)) || hypervisor.MatchString(k.read("proc/cpuinfo")) || virtualVendor.MatchString(kernel{disk}.read("device/vendor"))
}

// disk follows a device to the disks it is made of. File systems such as btrfs and overlay have a number of their own, which
// only the list of mounts leads on from.
func (k kernel) disk(major, minor uint32) (doctor.Disk, string) {
	number := fmt.Sprintf("%d:%d", major, minor)
	if major == 0 {
		for line := range strings.Lines(k.read("proc/self/mountinfo")) {
			f := strings.Fields(line)
			i := strings.Index(line, " - ")
			if len(f) < 5 || f[2] != number || i < 0 {
				continue
			}
			if source := strings.Fields(line[i+3:]); len(source) > 1 && strings.HasPrefix(source[1], "/dev/") {
				number = strings.TrimSpace(k.read("sys/class/block", filepath.Base(source[1]), "dev"))
			}
			break
		}
	}
	dir, err := filepath.EvalSymlinks(filepath.Join(k.root, "sys/dev/block", number))
	if err != nil || number == "" {
		return doctor.DiskUnknown, ""
	}
	kind, from := doctor.DiskUnknown, ""
	for _, d := range members(dir) {
		name := filepath.Base(d)
		text, err := os.ReadFile(filepath.Join(d, "queue/rotational"))
		if err != nil {
			return doctor.DiskUnknown, ""
		}
		switch rotates := strings.TrimSpace(string(text)) != "0"; {
		case rotates && k.virtual(d):
			return doctor.DiskUnknown, ""
		case rotates:
			return doctor.DiskHDD, "the kernel calls " + name + " rotating"
		}
		kind, from = doctor.DiskSSD, "the kernel calls "+name+" not rotating"
	}
	return kind, from
}

// members are the disks that a block device stands on: those below a mapped one or an array, else itself, or the disk of a partition.
func members(dir string) []string {
	below, _ := filepath.Glob(filepath.Join(dir, "slaves/*"))
	var all []string
	for _, d := range below {
		if real, err := filepath.EvalSymlinks(d); err == nil {
			all = append(all, members(real)...)
		}
	}
	if len(all) > 0 {
		return all
	}
	if _, err := os.Stat(filepath.Join(dir, "partition")); err == nil {
		return []string{filepath.Dir(dir)}
	}
	return []string{dir}
}
