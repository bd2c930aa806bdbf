package guard

import (
	"encoding/json"
	"fmt"
	"io"
	"time"
)

const (
	// writeLimit bounds how long the end waits for events to be written.
	writeLimit = 2 * time.Second
	// maxTogether is about how many bytes are written together.
	maxTogether = 64 << 10
)

// lines are those of some events for one file or stream.
type lines struct {
	text []byte
	ends []int // of each event, whether it has a line here or not
}

func (l *lines) reset() { l.text, l.ends = l.text[:0], l.ends[:0] }

// write writes the lines together, and where that fails the rest one by one.
// failed is told of each event that has a line here which was not written.
func (l *lines) write(w io.Writer, failed func(event int, err error)) {
	if len(l.text) == 0 {
		return
	}
	written, err := w.Write(l.text)
	if err == nil {
		return
	}
	begin, reported := 0, false
	for i, end := range l.ends {
		switch {
		case begin == end || end <= written:
		case !reported:
			reported = true
			failed(i, err)
		default:
			if _, err := w.Write(l.text[begin:end]); err != nil {
				failed(i, err)
			}
		}
		begin = end
	}
}

// start has events wait for a goroutine that writes them, until close.
func (e *events) start() {
	e.queue, e.done = make(chan *event, maxQueued), make(chan struct{})
	go func() {
		defer close(e.done)
		for ev := range e.queue {
			_ = e.write(ev) // counted by write
		}
	}()
}

// close writes what waits, as far as somebody takes it within writeLimit, and
// closes the file. Later events are lost.
func (e *events) close() error {
	e.count.Lock()
	first := !e.closed
	e.closed = true
	if first && e.queue != nil {
		close(e.queue)
	}
	e.count.Unlock()
	if e.queue != nil {
		limit := time.NewTimer(writeLimit)
		defer limit.Stop()
		select {
		case <-e.done:
		case <-limit.C:
			// Whoever has the other end is not reading: the writer's goroutine
			// ends with the process.
			e.count.Lock()
			defer e.count.Unlock()
			return fmt.Errorf("%d events were not taken from standard output", len(e.queue)+e.taken+1)
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.file == nil {
		return nil
	}
	err := e.file.Close()
	e.file = nil
	return err
}

// write writes an event, and those of the queue that are there by now, as far as
// they can be written together; it waits for whoever reads.
func (e *events) write(ev *event) error {
	e.mu.Lock()
	lost, err := e.writeLines(ev)
	e.mu.Unlock()
	if lost == 0 {
		return nil
	}
	e.count.Lock()
	first := e.lose(lost, err)
	e.count.Unlock()
	if first && e.queue != nil { // a replay ends with the error
		e.logger.Warn("events are lost, the number of them is in the statistics", "error", err)
	}
	return err
}

// writeLines returns how many events could not be written, and why the first
// could not. It runs with e.mu held.
func (e *events) writeLines(ev *event) (lost uint64, why error) {
	e.toFile.reset()
	e.toOut.reset()
	missed := make(map[int]struct{}) // lost to the file and to the stream is lost once
	failed := func(i int, err error) {
		missed[i] = struct{}{}
		if why == nil {
			why = err
		}
	}
	for i := 0; ev != nil; i++ {
		if err := e.encode(ev); err != nil {
			failed(i, err)
		}
		ev = e.another()
	}
	if e.file != nil {
		e.toFile.write(e.file, failed)
	}
	e.toOut.write(e.out, failed)
	e.count.Lock()
	e.taken = 0
	e.count.Unlock()
	return uint64(len(missed)), why
}

// another takes the next event, to be written together with those before; nil =
// there is none.
func (e *events) another() *event {
	if e.queue == nil || len(e.toFile.text) >= maxTogether || len(e.toOut.text) >= maxTogether {
		return nil
	}
	e.count.Lock()
	defer e.count.Unlock()
	select {
	case ev := <-e.queue:
		if ev != nil { // else it is closed
			e.taken++
		}
		return ev
	default:
		return nil
	}
}

// encode adds an event to what is to be written.
func (e *events) encode(ev *event) error {
	defer func() {
		e.toFile.ends = append(e.toFile.ends, len(e.toFile.text))
		e.toOut.ends = append(e.toOut.ends, len(e.toOut.text))
	}()
	if e.json || e.file != nil {
		line, err := json.Marshal(ev)
		if err != nil {
			return fmt.Errorf("encode event: %w", err)
		}
		line = append(line, '\n')
		if e.file != nil {
			e.toFile.text = append(e.toFile.text, line...)
		}
		if e.json {
			e.toOut.text = append(e.toOut.text, line...)
			return nil
		}
	}
	if e.verbose || !ev.again() {
		e.toOut.text = append(e.toOut.text, ev.human()...)
	}
	return nil
}

// lose counts losses and reports whether they are the first. It runs with
// e.count held.
func (e *events) lose(n uint64, err error) bool {
	e.lost += n
	if e.err == nil {
		e.err = err
	}
	return e.lost == n
}
