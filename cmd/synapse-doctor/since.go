package main

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"time"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/journal"
)

// lookBack hands the checks what was measured before. Without --since a journal that can't be read costs only the comparison.
func (s *session) lookBack(ctx context.Context, since string) (until time.Time, err error) {
	until, err = s.moment(ctx, since, time.Now())
	if err == nil {
		err = s.LookBack(ctx, until)
	}
	if err != nil && since == "" {
		s.progress.say(fmt.Sprintf("what was measured before could not be read: %v", err))
		return until, nil
	}
	return until, err
}

var (
	age = regexp.MustCompile(`^(\d{1,5})(d|w|h)$`)
	ofA = map[string]time.Duration{"h": time.Hour, "d": 24 * time.Hour, "w": 7 * 24 * time.Hour}
)

// moment is the time that --since names: last, a run's id, a day or a time, or an age.
func (s *session) moment(ctx context.Context, since string, now time.Time) (time.Time, error) {
	if since == "" || since == "last" {
		return now, nil
	}
	if m := age.FindStringSubmatch(since); m != nil {
		n, _ := strconv.Atoi(m[1])
		return now.Add(-time.Duration(n) * ofA[m[2]]), nil
	}
	if t, err := time.ParseInLocation(time.DateOnly, since, time.Local); err == nil {
		return t.AddDate(0, 0, 1).Add(-time.Millisecond), nil // that day's last run
	}
	for _, form := range []string{time.RFC3339, "2006-01-02 15:04", time.DateTime} {
		if t, err := time.ParseInLocation(form, since, time.Local); err == nil {
			return t, nil
		}
	}
	j, err := journal.OpenReading(s.StateDir)
	if err != nil {
		return now, noEarlier(since, err)
	}
	defer j.Close()
	r, err := j.Run(ctx, since)
	if errors.Is(err, journal.ErrNoRun) {
		return now, fmt.Errorf("--since: %q is no run of the journal (synapse-doctor history lists them), no day such as 2026-11-01 and no age such as 7d", doctor.Clean(since))
	}
	if err != nil {
		return now, err
	}
	return r.Started, nil
}

// noEarlier says that there is nothing to compare with.
func noEarlier(since string, err error) error {
	if errors.Is(err, journal.ErrNoRun) || errors.Is(err, journal.ErrNoJournal) {
		return fmt.Errorf("--since %s: nothing was recorded of this homeserver until then: synapse-doctor check --record does that", doctor.Clean(since))
	}
	return err
}
