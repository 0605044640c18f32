package vacuum

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/sqlitedb"
	"github.com/synapse-doctor/synapse-doctor/core/synapse"
)

// configured is where the configuration names the file, and how it is written there; empty when it does not.
func (x *examination) configured() (place, written string) {
	if len(x.target.ConfigFiles) == 0 {
		return "", ""
	}
	config, err := synapse.Load(x.target.ConfigFiles...)
	if err != nil {
		return "", ""
	}
	for _, e := range config.Databases {
		if e.Name == synapse.SQLite3 && same(e.SQLitePath(), x.database.Path) {
			return fmt.Sprintf("%s:%d", e.File, e.Line), e.SQLitePath()
		}
	}
	return "", ""
}

// same reports whether two paths lead to the same file, which may be absent.
func same(a, b string) bool {
	if a == b {
		return true
	}
	infoA, errA := os.Stat(a)
	infoB, errB := os.Stat(b)
	return errA == nil && errB == nil && os.SameFile(infoA, infoB)
}

func (x *examination) absent() {
	f := doctor.Finding{
		Code: Absent, Severity: doctor.Error,
		Summary:  fmt.Sprintf("There is no file %s", x.database.Path),
		Observed: "no such file",
		Expected: "the homeserver's SQLite database",
		Remedy:   "Give the path of the homeserver's database with --sqlite.",
	}
	if place, written := x.configured(); place != "" {
		f.Summary = fmt.Sprintf("There is no file %s, which %s names; Synapse would make an empty one there when it starts", x.database.Path, place)
		f.Remedy = fmt.Sprintf("Find the homeserver's database, often named homeserver.db, and put its path into %s. "+
			"Where it was deleted, put it back from a backup before Synapse is started.", place)
		if !filepath.IsAbs(written) {
			f.Remedy += " The path there is relative: it counts from the folder in which Synapse is started, " +
				"so that the doctor has to be started in the same one, or be told the path with --sqlite."
		}
		f.Evidence = map[string]string{"configured": place}
	}
	x.find(f)
}

func (x *examination) notSQLite(e *sqlitedb.NotSQLiteError) {
	f := doctor.Finding{
		Code: NotSQLite, Severity: doctor.Error,
		Summary:  fmt.Sprintf("%s is not a SQLite database: %s", x.database.Path, e.Why),
		Observed: e.Why,
		Expected: "a file that begins with SQLite format 3",
		Remedy:   "Give the path of the homeserver's database itself, uncompressed and not encrypted.",
	}
	if info, err := os.Stat(x.database.Path); err == nil && info.Mode().IsRegular() && info.Size() == 0 {
		f.Code = EmptyFile
		f.Summary = fmt.Sprintf("%s is empty: no homeserver has stored anything in it", x.database.Path)
		f.Remedy = "Synapse, or sqlite3 when it is given a wrong path, makes an empty file where there is none. " +
			"Find the homeserver's database, and give its path in homeserver.yaml or with --sqlite."
	}
	x.find(f)
}

func (x *examination) truncated() {
	s := x.state
	want := s.Header.Pages * int64(s.Header.PageSize)
	x.find(doctor.Finding{
		Code: Truncated, Severity: doctor.Error,
		Summary:  fmt.Sprintf("%s ends too early: %d of its %d bytes are there", x.database.Path, s.Size, want),
		Observed: fmt.Sprintf("%d bytes", s.Size),
		Expected: fmt.Sprintf("%d pages of %d bytes, as its header says", s.Header.Pages, s.Header.PageSize),
		Remedy: "The copy was cut off, or the disk was full: copy it again. Where it is the original, stop Synapse, " +
			"keep the file, and save what can be read into a new one:\n" + recoverCommand(s.Path),
		Evidence: map[string]string{"size": strconv.FormatInt(s.Size, 10), "pages": strconv.FormatInt(s.Header.Pages, 10), "page_size": strconv.Itoa(s.Header.PageSize)},
	})
}

func recoverCommand(path string) string {
	return fmt.Sprintf("    sqlite3 %s .recover | sqlite3 %s", quote(path), quote(path+".recovered"))
}

// quote writes a path so that a shell takes it for one word.
func quote(path string) string {
	for _, c := range path {
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '/' || c == '.' || c == '_' || c == '-') {
			return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
		}
	}
	return path
}

func (x *examination) autoVacuum() {
	h := x.state.Header
	if h.AutoVacuum == sqlitedb.AutoVacuumNone {
		return
	}
	x.findUncopied(doctor.Finding{
		Code: AutoVacuumOn, Severity: doctor.Error,
		Summary: fmt.Sprintf("auto_vacuum is %s in %s: SQLite moves pages about when rows are deleted, and Synapse's port script refuses such a file",
			h.AutoVacuum, x.name()),
		Observed: fmt.Sprintf("auto_vacuum = %s, in the file's header", h.AutoVacuum),
		Expected: "auto_vacuum = none",
		Evidence: map[string]string{"auto_vacuum": h.AutoVacuum.String(), "free_pages": strconv.FormatInt(h.FreePages, 10)},
	}, fmt.Sprintf("Make a snapshot in which it is off, beside the file, and port that:\n    synapse-doctor fix vacuum --apply\n"+
		"In the file itself it can be turned off only while Synapse is stopped, with as much free disk again as the file has, and "+
		"rows of tables without an index get new numbers:\n    sqlite3 %s 'PRAGMA auto_vacuum=0; VACUUM;'", quote(x.database.Path)))
}

// users tells who has the file open. Its error says that this could not be seen.
func (x *examination) users() error {
	u := x.state.Users
	if !u.Any() {
		if u.Unseen != 0 {
			x.covered = append(x.covered, fmt.Sprintf("whether a process has %s open could not be seen", x.name()))
			return fmt.Errorf("whether a process has %s open can't be seen as this user: run this as root, or as the user that Synapse runs as", x.database.Path)
		}
		return nil
	}
	evidence := map[string]string{}
	for i, user := range u.Seen {
		evidence[fmt.Sprintf("process %d", i+1)] = user.String()
	}
	x.findUncopied(doctor.Finding{
		Code: InUse, Severity: doctor.Info,
		Summary:  fmt.Sprintf("%s is open in %s: while it is written to, a plain copy of it may lack rows or be damaged", x.name(), u),
		Observed: fmt.Sprintf("in use by %s", u),
		Expected: "nobody, when it is copied",
		Evidence: evidence,
	}, "Copy it by a snapshot, which can be made while Synapse runs:\n    synapse-doctor fix vacuum --apply\nOr stop Synapse first.")
	return nil
}

// pending tells what SQLite would have to apply before the file can be read by itself.
func (x *examination) pending() {
	s := x.state
	switch {
	case s.WAL.Pending > 0:
		f := doctor.Finding{
			Code: NotInFile, Severity: doctor.Warning,
			Summary:  fmt.Sprintf("Committed rows are only in %s-wal, on %d of its pages: a copy of %s alone lacks them", x.name(), s.WAL.Pending, x.name()),
			Observed: fmt.Sprintf("%d committed frames in %s, %d pages of which are not in the file", s.WAL.Frames, s.WAL.Path, s.WAL.Pending),
			Expected: "everything in the file itself",
			Evidence: map[string]string{"wal": s.WAL.Path, "frames": strconv.Itoa(s.WAL.Frames), "pending_pages": strconv.Itoa(s.WAL.Pending)},
		}
		if s.Users.Any() {
			f.Severity = doctor.Info
			f.Summary += ", which is as it should be while Synapse runs: a copy must be a snapshot"
		}
		x.findUncopied(f, "Make a snapshot that has everything, beside the file; the file and its -wal stay as they are:\n"+
			"    synapse-doctor fix vacuum --apply\nNever delete the -wal. Synapse, or sqlite3, applies it when it next opens the file.")
	case s.Hot():
		x.findUncopied(doctor.Finding{
			Code: HotJournal, Severity: doctor.Error,
			Summary:  fmt.Sprintf("A transaction in %s was cut off, and its undo is still in %s", x.name(), s.Journal.Path),
			Observed: fmt.Sprintf("a journal of %d bytes that was not applied", s.Journal.Size),
			Expected: "no journal",
			Evidence: map[string]string{"journal": s.Journal.Path, "bytes": strconv.FormatInt(s.Journal.Size, 10)},
		}, "Read without the journal, the file has half a transaction. Make a snapshot in which it is undone; the file and its journal stay as they are:\n"+
			"    synapse-doctor fix vacuum --apply\nNever delete the journal. Synapse, or sqlite3, applies it when it next opens the file.")
	case s.WALLost():
		x.find(doctor.Finding{
			Code: WALMissing, Severity: doctor.Warning,
			Summary: fmt.Sprintf("%s lacks its -wal: by its -shm, %d frames of committed rows were only there",
				x.name(), s.Index.Frames-s.Index.Checkpointed),
			Observed: fmt.Sprintf("%s counts %d frames, %d of them checkpointed, and there is no %s", s.Index.Path, s.Index.Frames, s.Index.Checkpointed, s.WAL.Path),
			Expected: "the -wal beside the file",
			Remedy:   "Put the -wal back beside the file, if it still is where this copy was made of. A copy that must be made anew is a snapshot:\n    synapse-doctor fix vacuum --apply --sqlite ORIGINAL",
			Evidence: map[string]string{"frames": fmt.Sprint(s.Index.Frames), "checkpointed": fmt.Sprint(s.Index.Checkpointed)},
		})
	case s.Header.WAL && !s.WAL.Exists && s.Users.Nobody():
		if place, _ := x.configured(); place != "" {
			return // it is the homeserver's own file, as a stopped Synapse leaves it
		}
		x.find(doctor.Finding{
			Code: WALMissing, Severity: doctor.Info,
			Summary:  fmt.Sprintf("%s was last used with a -wal, and none is beside it: if it was copied while Synapse ran, rows may have been left behind in there", x.name()),
			Observed: "a file in WAL mode without a -wal, which nobody has open",
			Expected: "a file that Synapse closed when it was stopped, or a snapshot",
			Remedy: "This can't be told from the file: one that Synapse has closed looks the same. If Synapse ran when it was copied, or was killed, " +
				"make a snapshot of the original instead:\n    synapse-doctor fix vacuum --apply --sqlite ORIGINAL",
			Evidence: map[string]string{"changed": x.state.Changed.UTC().Format(time.RFC3339)},
		})
	}
}
