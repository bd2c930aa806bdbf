package stream

import "math/bits"

const (
	minBuffer = 256
	// bufferSizes doubles from minBuffer on: to 256 KiB.
	bufferSizes = 11
)

// pool hands out buffers of a few sizes and takes them back. What it hands out
// and keeps together stays below its limit.
type pool struct {
	limit      int
	used, idle int
	free       [bufferSizes][][]byte
}

func sizeClass(n int) int {
	if n <= minBuffer {
		return 0
	}
	return bits.Len(uint(n-1)) - bits.Len(uint(minBuffer-1))
}

// get returns an empty buffer with room for n bytes; nil where the limit does
// not allow it, or where n is more than any buffer holds.
func (p *pool) get(n int) []byte {
	cl := sizeClass(n)
	if cl >= bufferSizes {
		return nil
	}
	size := minBuffer << cl
	if p.used+size > p.limit {
		return nil
	}
	p.used += size
	if f := p.free[cl]; len(f) > 0 {
		b := f[len(f)-1]
		p.free[cl] = f[:len(f)-1]
		p.idle -= size
		return b[:0]
	}
	if p.used+p.idle > p.limit {
		p.free, p.idle = [bufferSizes][][]byte{}, 0
	}
	return make([]byte, 0, size)
}

// put takes a buffer of get's back.
func (p *pool) put(b []byte) {
	if cap(b) == 0 {
		return
	}
	p.used -= cap(b)
	p.idle += cap(b)
	cl := sizeClass(cap(b))
	p.free[cl] = append(p.free[cl], b)
}
