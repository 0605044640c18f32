package pgdb

import "time"

// In libpq 0 leaves a keepalive setting to the system; in package net 0 means Go's own value, and less than 0 the system's.
func orSystem(n int) int {
	if n <= 0 {
		return -1
	}
	return n
}

func seconds(n int) time.Duration {
	if n <= 0 {
		return -1
	}
	return time.Duration(n) * time.Second
}
