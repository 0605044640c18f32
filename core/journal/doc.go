// Package journal is the doctor's memory: a SQLite file in the state directory that holds what was run, what was found,
// what was applied and everything needed to put it back. It imports core/doctor only.
//
// Every method that records returns after the record is on disk (SQLite with synchronous = FULL). The engine relies on
// it: what is about to happen is recorded before it happens, so that a run that was killed can be settled by the next.
//
// Saved rows and file backups are users' data: the directory has mode 0700, every file 0600, and nothing of their content
// is printed.
package journal
