package capture

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync/atomic"
)

// OpenFile opens a capture file: pcap or pcapng, told apart by their first
// bytes, or a gzip of either. The path "-" is standard input. Errors wrap
// fs.ErrNotExist and its like, ErrFormat, ErrLinkType or ErrTruncated, or what
// the system says of a read that failed.
func OpenFile(path string) (Source, error) {
	if path == "-" {
		return OpenReader(os.Stdin, "standard input")
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open capture: %w", err)
	}
	src, err := OpenReader(f, path)
	if err != nil {
		_ = f.Close() // the reason why it cannot be read says more
		return nil, err
	}
	return src, nil
}

// OpenReader reads a capture from r; name is what errors call it. Nothing is
// assumed of r but Read; where it is an io.Closer, the source's Close closes
// it.
func OpenReader(r io.Reader, name string) (Source, error) {
	f := &file{name: name}
	f.closer, _ = r.(io.Closer)
	f.in.r = r
	src, err := f.open()
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	f.format = src
	return f, nil
}

// format is one file format's reader. Its next delivers packets as Source
// does; name and kind of the error are added by file.
type format interface {
	next(f *file, p *Packet) error
}

// file is a Source over one capture file. Its goroutine owns all but the
// published counters.
type file struct {
	name   string
	closer io.Closer
	in     blockReader
	format format

	number, unsupported uint64
	err                 error // sticky

	received, skipped atomic.Uint64 // published for Stats
	closed            atomic.Bool
}

// The first four bytes of the formats, read as little endian.
const (
	magicMicros  = 0xa1b2c3d4
	magicNanos   = 0xa1b23c4d
	magicSection = 0x0a0d0d0a // the same in both byte orders
)

// open unpacks gzip and reads the file's header.
func (f *file) open() (format, error) {
	head, err := f.in.peek(4)
	if err == nil && bytes.Equal(head[:2], []byte{0x1f, 0x8b}) {
		packed := f.in
		z, zerr := gzip.NewReader(&packed)
		if zerr != nil {
			return nil, badGzip(zerr)
		}
		f.in = blockReader{r: z}
		head, err = f.in.peek(4)
	}
	switch {
	case errors.Is(err, io.EOF):
		return nil, fmt.Errorf("%w: it is empty", ErrFormat)
	case errors.Is(err, io.ErrUnexpectedEOF):
		return nil, fmt.Errorf("%w: it is only %d bytes long", ErrFormat, len(head))
	case err != nil:
		return nil, damaged(err)
	}
	switch le, be := binary.LittleEndian.Uint32(head), binary.BigEndian.Uint32(head); {
	case le == magicMicros || le == magicNanos:
		return openPcap(f, false, le == magicNanos)
	case be == magicMicros || be == magicNanos:
		return openPcap(f, true, be == magicNanos)
	case le == magicSection:
		return openPcapng(f)
	}
	return nil, fmt.Errorf("%w: it begins with % x, neither pcap nor pcapng", ErrFormat, head)
}

// badGzip is the error of a gzip header that cannot be read: that of the
// read, where that is what failed.
func badGzip(err error) error {
	if errors.Is(err, gzip.ErrHeader) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: gzip: %w", ErrFormat, err)
	}
	return err
}

// Next implements Source.
func (f *file) Next(p *Packet) error {
	if f.closed.Load() {
		return fmt.Errorf("read %s: %w", f.name, os.ErrClosed)
	}
	if f.err != nil {
		return f.err
	}
	err := f.format.next(f, p)
	if err == nil {
		if f.number++; f.number&0x3ff == 0 {
			f.publish()
		}
		p.Number = f.number
		return nil
	}
	f.publish()
	if !errors.Is(err, io.EOF) {
		err = fmt.Errorf("read %s: packet %d: %w", f.name, f.number+1, err)
	}
	f.err = err
	return err
}

// skip counts a packet of an unsupported link type.
func (f *file) skip() {
	f.number++
	f.unsupported++
}

func (f *file) publish() {
	f.received.Store(f.number - f.unsupported)
	f.skipped.Store(f.unsupported)
}

// Stats implements Source.
func (f *file) Stats() Stats {
	return Stats{Received: f.received.Load(), Unsupported: f.skipped.Load()}
}

// Close implements Source. A Next that waits for more of a pipe returns when
// the pipe does.
func (f *file) Close() error {
	if f.closed.Swap(true) || f.closer == nil {
		return nil
	}
	if err := f.closer.Close(); err != nil {
		return fmt.Errorf("close %s: %w", f.name, err)
	}
	return nil
}

// damaged is the error of a read in the middle of a file. One that wraps
// ErrTruncated says that the file ends there or that its gzip is broken; what
// the system says of a read that failed stays what it is.
func damaged(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return ErrTruncated
	}
	_, corrupt := errors.AsType[flate.CorruptInputError](err)
	if corrupt || errors.Is(err, gzip.ErrChecksum) || errors.Is(err, gzip.ErrHeader) || errors.Is(err, errTooLong) {
		return fmt.Errorf("%w: %w", ErrTruncated, err)
	}
	if path, ok := errors.AsType[*fs.PathError](err); ok {
		return path.Err // the caller names the file
	}
	return err
}
