package guard

import (
	"container/heap"
	"errors"
	"io"

	"github.com/netcap-guard/netcap-guard/capture"
)

// merged delivers the packets of several captures in the order of their time
// stamps: windows are counted on packet time, and files that follow each
// other in any order must not fold two days into one moment. Each packet
// keeps its number in its own file.
type merged struct {
	sources []capture.Source
	heads   headHeap
	errs    []error // of captures that ended in an error
	begun   bool
	index   int // of the source of the last packet
}

// head is the next packet of one source.
type head struct {
	src   capture.Source
	order int
	pkt   capture.Packet
}

func merge(sources []capture.Source) *merged { return &merged{sources: sources} }

// next fills p with the earliest packet, io.EOF after the last one of all. An
// error of one source ends that source only; see errs.
func (m *merged) next(p *capture.Packet) error {
	if len(m.sources) == 1 {
		return m.only(p)
	}
	if !m.begun {
		m.begun = true
		for i, s := range m.sources {
			h := &head{src: s, order: i}
			if m.advance(h) {
				heap.Push(&m.heads, h)
			}
		}
	} else if len(m.heads) > 0 {
		// The head's data was handed out and is free to be overwritten now.
		if m.advance(m.heads[0]) {
			heap.Fix(&m.heads, 0)
		} else {
			heap.Pop(&m.heads)
		}
	}
	if len(m.heads) == 0 {
		return io.EOF
	}
	*p, m.index = m.heads[0].pkt, m.heads[0].order
	return nil
}

// only is next for a single capture, without the detour.
func (m *merged) only(p *capture.Packet) error {
	err := m.sources[0].Next(p)
	if err == nil || errors.Is(err, io.EOF) {
		return err
	}
	m.errs = append(m.errs, err)
	return io.EOF
}

func (m *merged) advance(h *head) bool {
	err := h.src.Next(&h.pkt)
	if err != nil && !errors.Is(err, io.EOF) {
		m.errs = append(m.errs, err)
	}
	return err == nil
}

// headHeap orders heads by time; of equal times the source named first goes
// first.
type headHeap []*head

func (h headHeap) Len() int { return len(h) }
func (h headHeap) Less(i, j int) bool {
	if h[i].pkt.Time != h[j].pkt.Time {
		return h[i].pkt.Time < h[j].pkt.Time
	}
	return h[i].order < h[j].order
}
func (h headHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }

// Push is container/heap's: use heap.Push.
func (h *headHeap) Push(v any) {
	e, _ := v.(*head)
	*h = append(*h, e)
}

// Pop is container/heap's: use heap.Pop.
func (h *headHeap) Pop() any {
	last := len(*h) - 1
	e := (*h)[last]
	*h = (*h)[:last]
	return e
}
