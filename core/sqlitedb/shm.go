package sqlitedb

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// WALIndex is what a -shm, the index of a -wal that its processes share, says of it.
type WALIndex struct {
	Path         string
	Exists       bool   // and was written to
	Frames       uint32 // committed
	Checkpointed uint32 // of these, copied into the database file
}

// walIndexVersion is that of every SQLite since 3.7.0.
const walIndexVersion = 3007000

func readIndex(path string) (WALIndex, error) {
	x := WALIndex{Path: path + "-shm"}
	f, err := os.Open(x.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return x, nil
	}
	if err != nil {
		return x, err
	}
	defer f.Close()
	b := make([]byte, 100)
	switch _, err := io.ReadFull(f, b); {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return x, nil
	case err != nil:
		return x, fmt.Errorf("read %s: %w", x.Path, err)
	}
	// In the machine's own byte order, since it is mapped memory; twice the same header, unless it is being written.
	if binary.NativeEndian.Uint32(b) != walIndexVersion || string(b[:48]) != string(b[48:96]) {
		return x, nil
	}
	x.Exists = true
	x.Frames = binary.NativeEndian.Uint32(b[16:])
	x.Checkpointed = binary.NativeEndian.Uint32(b[96:])
	return x, nil
}
