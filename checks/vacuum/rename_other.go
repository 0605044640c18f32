//go:build !linux

package vacuum

// renameNew gives a file a name that is not taken.
func renameNew(from, to string) error { return linkNew(from, to) }
