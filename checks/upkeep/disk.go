package upkeep

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/jackc/pgx/v5"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
)

// tablespaceQuery is where the database's files are, when that is not in the data directory.
const tablespaceQuery = `SELECT coalesce(pg_tablespace_location(dattablespace), '') FROM pg_database WHERE datname = current_database()`

// lookAtDisk looks at the disk of the database, and at that of the write-ahead log where it is another, when they are on this
// machine. Nobody but the server may look into its data directory; how full its disk is everybody may ask.
func (e *examination) lookAtDisk(ctx context.Context) error {
	if e.db.DataDir == "" {
		return nil
	}
	var elsewhere string
	if err := e.db.Read(ctx, func(tx pgx.Tx) error { return tx.QueryRow(ctx, tablespaceQuery).Scan(&elsewhere) }); err != nil {
		return fmt.Errorf("ask where the database is kept: %w", err)
	}
	place := e.db.DataDir
	if strings.HasPrefix(elsewhere, "/") {
		place = elsewhere
	}
	free, total, err := space(place)
	if err != nil {
		if unseen(err) {
			e.notes = append(e.notes, "the disk was not looked at: "+place+" can't be reached from here by this user")
			return nil
		}
		return fmt.Errorf("look at the disk of %s: %w", place, err)
	}
	e.measure(doctor.Measure{Object: doctor.Object{Kind: "disk", Name: place}, Name: "free", Value: float64(free), Unit: "bytes"})
	e.judgeDisk(place, free, total)
	log := filepath.Join(e.db.DataDir, "pg_wal")
	same, err := sameDisk(place, log)
	if unseen(err) {
		e.notes = append(e.notes, "whether pg_wal is on a disk of its own was not looked at: only the server's user may go there")
		return nil
	}
	if err != nil {
		return fmt.Errorf("look at the disk of %s: %w", log, err)
	}
	if same {
		return nil
	}
	if free, total, err = space(log); err != nil {
		return fmt.Errorf("look at the disk of %s: %w", log, err)
	}
	e.judgeLogDisk(log, free, total)
	return nil
}

// unseen: a container's path, or one that only the server may go into.
func unseen(err error) bool {
	return errors.Is(err, os.ErrPermission) || errors.Is(err, os.ErrNotExist)
}

// sameDisk reports whether two paths, or what they link to, are on one file system.
func sameDisk(a, b string) (bool, error) {
	var of [2]syscall.Stat_t
	for i, path := range []string{a, b} {
		if err := syscall.Stat(path, &of[i]); err != nil {
			return false, err
		}
	}
	return of[0].Dev == of[1].Dev, nil
}

func space(path string) (free, total int64, err error) {
	var fs syscall.Statfs_t
	if err := syscall.Statfs(path, &fs); err != nil {
		return 0, 0, err
	}
	return int64(fs.Bavail) * int64(fs.Bsize), int64(fs.Blocks) * int64(fs.Bsize), nil
}

// leastFree is what a server needs at any rate: a few segments of write-ahead log and temporary files.
const leastFree = 256 * mib

func (e *examination) judgeDisk(place string, free, total int64) {
	f := doctor.Finding{
		Code: DiskLow, Severity: doctor.Warning, Object: doctor.Object{Kind: "disk", Name: place},
		Observed: fmt.Sprintf("%s free of %s; the database takes %s", size(float64(free)), size(float64(total)), size(float64(e.bytes))),
		Expected: fmt.Sprintf("at least %.0f %% of the database's size, and what it grows in %.0f days", e.threshold(diskFree), e.threshold(diskDays)),
		Remedy: "Make the disk larger, or move other things away. Never delete files in the data directory by hand, those in pg_wal least of all. See what takes the room " +
			"(the measures of this check list the tables), and whether a replication slot keeps write-ahead log. A full disk stops the server; what was committed is not lost.",
		Evidence: map[string]string{"free": size(float64(free)), "database": size(float64(e.bytes))},
	}
	daily, days := e.daysLeft(free)
	switch {
	case free < leastFree || float64(free) < float64(e.bytes)*e.threshold(diskFree)/100:
		f.Summary = fmt.Sprintf("The disk of the database has only %s left.", size(float64(free)))
	case daily > 0 && days < e.threshold(diskDays):
		f.Summary = fmt.Sprintf("The disk of the database is full in about %.0f days, if it goes on growing by %s a day.", days, size(daily))
		f.Evidence["grows by"] = size(daily) + " a day"
	default:
		return
	}
	e.find(f)
}

func (e *examination) judgeLogDisk(place string, free, total int64) {
	if free >= leastFree {
		return
	}
	e.find(doctor.Finding{
		Code: DiskLow, Severity: doctor.Warning, Object: doctor.Object{Kind: "disk", Name: place},
		Summary:  fmt.Sprintf("The disk of the write-ahead log has only %s left.", size(float64(free))),
		Observed: fmt.Sprintf("%s free of %s", size(float64(free)), size(float64(total))), Expected: "at least " + size(leastFree),
		Remedy: "Never delete files in pg_wal by hand. Look for a replication slot that keeps them, and for an archive_command that fails:\n\n" +
			"    SELECT * FROM pg_stat_archiver;\n\nThen make the disk larger.",
	})
}

// daysLeft is how long the disk lasts at the rate at which the database has grown.
func (e *examination) daysLeft(free int64) (daily, days float64) {
	b, ok := e.bases[e.object()]
	if !ok || b.age < apart {
		return 0, 0
	}
	daily = (float64(e.bytes) - b.size) / (b.age.Hours() / 24)
	if daily <= 0 {
		return 0, 0
	}
	return daily, float64(free) / daily
}
