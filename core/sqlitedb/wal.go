package sqlitedb

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// WAL is what a -wal holds.
type WAL struct {
	Path   string
	Exists bool
	Size   int64
	Frames int // valid frames of committed transactions
	// Pending are the pages whose last committed content is not yet in the database file: what reading without the -wal would
	// miss. Frames that were all checkpointed leave none.
	Pending int
	// PagesAfter is the length of the database in pages after the last committed transaction; 0 without one.
	PagesAfter int64
}

const (
	walHeaderSize   = 32
	frameHeaderSize = 24
	walMagic        = 0x377f0682 // plus 1 where checksums are over big-endian words
)

// readWAL reads the -wal of the database file path. A frame counts up to the last commit before the first one whose salts or
// checksum are wrong, which is what SQLite itself recovers.
func readWAL(ctx context.Context, path string) (WAL, error) {
	w := WAL{Path: path + "-wal"}
	f, err := os.Open(w.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return w, nil
	}
	if err != nil {
		return w, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return w, err
	}
	w.Exists, w.Size = true, info.Size()
	last, pageSize, err := w.committed(ctx, bufio.NewReaderSize(f, 1<<20))
	if err != nil || w.Frames == 0 {
		return w, err
	}
	return w, w.compare(ctx, f, path, last, pageSize)
}

// committed finds the offset of each committed page's last content.
func (w *WAL) committed(ctx context.Context, r io.Reader) (last map[uint32]int64, pageSize int, err error) {
	header := make([]byte, walHeaderSize)
	if _, err := io.ReadFull(r, header); err != nil {
		return nil, 0, w.ended(err)
	}
	m := binary.BigEndian.Uint32(header)
	pageSize = int(binary.BigEndian.Uint32(header[8:]))
	if m&^1 != walMagic || pageSize < 512 || pageSize > 65536 || pageSize&(pageSize-1) != 0 {
		return nil, 0, nil
	}
	var order binary.ByteOrder = binary.LittleEndian
	if m&1 != 0 {
		order = binary.BigEndian
	}
	sum := walChecksum(order, [2]uint32{}, header[:24])
	if sum != sumAt(header[24:]) {
		return nil, 0, nil
	}
	last, open := map[uint32]int64{}, map[uint32]int64{}
	frame := make([]byte, frameHeaderSize+pageSize)
	for n := 0; ; n++ {
		if n%lookEvery == 0 && ctx.Err() != nil {
			return nil, 0, context.Cause(ctx)
		}
		if _, err := io.ReadFull(r, frame); err != nil {
			return last, pageSize, w.ended(err)
		}
		page, size := binary.BigEndian.Uint32(frame), binary.BigEndian.Uint32(frame[4:])
		if page == 0 || !bytes.Equal(frame[8:16], header[16:24]) {
			return last, pageSize, nil
		}
		sum = walChecksum(order, walChecksum(order, sum, frame[:8]), frame[frameHeaderSize:])
		if sum != sumAt(frame[16:]) {
			return last, pageSize, nil
		}
		open[page] = walHeaderSize + int64(n)*int64(len(frame)) + frameHeaderSize
		if size == 0 {
			continue
		}
		for p, at := range open {
			last[p] = at
		}
		clear(open)
		w.Frames, w.PagesAfter = n+1, int64(size)
	}
}

// ended is nil where the -wal ends, in the midst of a frame perhaps.
func (w *WAL) ended(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil
	}
	return fmt.Errorf("read %s: %w", w.Path, err)
}

// compare counts the committed pages that the database file has not, or has otherwise.
func (w *WAL) compare(ctx context.Context, wal *os.File, path string, last map[uint32]int64, pageSize int) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	inWAL, inFile := make([]byte, pageSize), make([]byte, pageSize)
	n := 0
	for page, at := range last {
		if n++; n%lookEvery == 0 && ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if int64(page) > w.PagesAfter {
			continue // it was cut off by a later transaction
		}
		if _, err := wal.ReadAt(inWAL, at); err != nil {
			return fmt.Errorf("read %s: %w", w.Path, err)
		}
		if _, err := f.ReadAt(inFile, int64(page-1)*int64(pageSize)); err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("read %s: %w", path, err)
		} else if err != nil || !bytes.Equal(inWAL, inFile) {
			w.Pending++
		}
	}
	if w.Pending == 0 && info.Size() != w.PagesAfter*int64(pageSize) {
		w.Pending++ // the last transactions only made it shorter
	}
	return nil
}

func sumAt(b []byte) [2]uint32 {
	return [2]uint32{binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[4:])}
}

// walChecksum goes on with a checksum of SQLite's file format, section 4.2, over a multiple of eight bytes.
func walChecksum(order binary.ByteOrder, s [2]uint32, b []byte) [2]uint32 {
	for ; len(b) >= 8; b = b[8:] {
		s[0] += order.Uint32(b) + s[1]
		s[1] += order.Uint32(b[4:]) + s[0]
	}
	return s
}
