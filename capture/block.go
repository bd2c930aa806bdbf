package capture

import (
	"errors"
	"io"
)

const (
	// blockSize is how much is asked of a file at once: what still fits the
	// caches near the core was measured to be fastest.
	blockSize = 512 << 10
	// maxPacket bounds one packet's captured bytes. It is the largest snap
	// length tcpdump and Wireshark write (D-Bus excepted), four times over.
	maxPacket = 1 << 20
	// maxNeed bounds what is asked of a blockReader in one piece: a packet
	// and the headers around it.
	maxNeed = maxPacket + 4096
)

var errTooLong = errors.New("claims more bytes than any packet has")

// blockReader gives a stream in pieces that lie in one buffer. It reads as
// much as the stream has ready and never waits for more than was asked of it.
type blockReader struct {
	r        io.Reader
	buf      []byte
	pos, end int
	err      error // the stream's own, sticky; behind what is in buf
}

// peek returns the next n bytes without consuming them, valid until the next
// call. With fewer left it returns those and io.EOF (none) or
// io.ErrUnexpectedEOF (some), or the stream's error.
func (b *blockReader) peek(n int) ([]byte, error) {
	if b.end-b.pos >= n {
		return b.buf[b.pos : b.pos+n : b.pos+n], nil
	}
	return b.fill(n)
}

// next is peek that consumes what it returns without an error.
func (b *blockReader) next(n int) ([]byte, error) {
	if b.end-b.pos >= n {
		data := b.buf[b.pos : b.pos+n : b.pos+n]
		b.pos += n
		return data, nil
	}
	data, err := b.fill(n)
	if err == nil {
		b.pos += n
	}
	return data, err
}

// fill makes n bytes available in one piece.
func (b *blockReader) fill(n int) ([]byte, error) {
	if n > maxNeed {
		return nil, errTooLong
	}
	have := b.end - b.pos
	if len(b.buf)-b.pos < n {
		if len(b.buf) < n {
			grown := make([]byte, max(blockSize, n))
			copy(grown, b.buf[b.pos:b.end])
			b.buf = grown
		} else {
			copy(b.buf, b.buf[b.pos:b.end])
		}
		b.pos, b.end = 0, have
	}
	for empty := 0; b.end-b.pos < n && b.err == nil; {
		var got int
		got, b.err = b.r.Read(b.buf[b.end:])
		b.end += got
		if empty++; got > 0 {
			empty = 0
		} else if empty > 100 && b.err == nil {
			b.err = io.ErrNoProgress
		}
	}
	data := b.buf[b.pos:min(b.end, b.pos+n):min(b.end, b.pos+n)]
	switch {
	case len(data) == n:
		return data, nil
	case !errors.Is(b.err, io.EOF):
		return data, b.err
	case len(data) == 0:
		return data, io.EOF
	}
	return data, io.ErrUnexpectedEOF
}

// skip consumes n bytes of any number.
func (b *blockReader) skip(n int) error {
	for n > 0 {
		piece := min(n, blockSize)
		data, err := b.peek(piece)
		b.pos += len(data)
		if err != nil {
			return err
		}
		n -= piece
	}
	return nil
}

// Read implements io.Reader, for gzip.
func (b *blockReader) Read(p []byte) (int, error) {
	if b.pos == b.end {
		if b.err != nil {
			return 0, b.err
		}
		if _, err := b.peek(1); err != nil {
			return 0, err
		}
	}
	n := copy(p, b.buf[b.pos:b.end])
	b.pos += n
	return n, nil
}

// ReadByte implements io.ByteReader, so that gzip adds no buffer of its own.
func (b *blockReader) ReadByte() (byte, error) {
	data, err := b.next(1)
	if err != nil {
		return 0, err
	}
	return data[0], nil
}
