package guard

import (
	"context"
	"errors"
	"io"
	"os"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"

	"github.com/netcap-guard/netcap-guard/capture"
)

// checkEvery is how many packets a replay reads between two looks at whether
// it was told to end.
const checkEvery = 1024

// openSources opens all captures or all interfaces. The captures' reads end
// with ctx.
func (r *runner) openSources(ctx context.Context, replay bool) error {
	names := r.cfg.Interfaces
	open := r.openInterface
	if replay {
		names = r.cfg.Read
		open = func(name string) ([]capture.Source, error) {
			src, err := r.openFile(ctx.Done(), name)
			return []capture.Source{src}, err
		}
	}
	for _, name := range names {
		sources, err := open(name)
		if err != nil {
			r.closeSources()
			return err
		}
		r.sources = append(r.sources, sources...)
	}
	return nil
}

// openFile opens a capture, with a progress bar where a person looks on.
func (r *runner) openFile(done <-chan struct{}, name string) (capture.Source, error) {
	if name == stdinArg {
		return capture.OpenReader(interruptible(done, r.env.In), "standard input")
	}
	f, err := os.Open(name)
	if err != nil {
		return capture.OpenFile(name) // it has the words for it
	}
	if info, err := f.Stat(); err == nil && info.Mode()&os.ModeNamedPipe != 0 {
		return capture.OpenReader(interruptible(done, f), name)
	}
	if len(r.cfg.Read) != 1 || r.cfg.Quiet || !isTerminal(r.env.Err) {
		_ = f.Close() // nothing was read of it
		return capture.OpenFile(name)
	}
	size := int64(-1)
	if info, err := f.Stat(); err == nil && info.Mode().IsRegular() {
		size = info.Size()
	}
	bar := progressbar.NewOptions64(size, progressbar.OptionSetWriter(r.env.Err),
		progressbar.OptionShowBytes(true), progressbar.OptionClearOnFinish(),
		progressbar.OptionThrottle(100*time.Millisecond), progressbar.OptionSetDescription(name))
	src, err := capture.OpenReader(&barReader{f, bar}, name)
	if err != nil {
		_ = f.Close() // why it cannot be read says more
	}
	return src, err
}

// pipeReader is a reader whose Read can be told to end: whoever waits for a pipe
// must not keep the program from ending.
type pipeReader struct {
	done <-chan struct{}
	buf  []byte
	rest []byte // of buf, not yet read
	err  error
	got  chan streamed
	next chan []byte
}

// streamed is what one Read of the pipe gave.
type streamed struct {
	n   int
	err error
}

// interruptible starts the goroutine that waits for the pipe. If it waits when
// done is closed it is left behind: nothing can wake a read of a pipe, and the
// process is about to end.
func interruptible(done <-chan struct{}, in io.Reader) io.Reader {
	s := &pipeReader{done: done, buf: make([]byte, 256<<10), got: make(chan streamed), next: make(chan []byte)}
	go func() {
		for b := range s.next {
			n, err := in.Read(b)
			select {
			case s.got <- streamed{n, err}:
			case <-done:
				return
			}
		}
	}()
	return s
}

// Read gives what the pipe gave; once done is closed, context.Canceled.
func (s *pipeReader) Read(p []byte) (int, error) {
	if len(s.rest) == 0 && s.err == nil {
		select {
		case <-s.done:
			s.err = context.Canceled
		case s.next <- s.buf:
			select {
			case r := <-s.got:
				s.rest, s.err = s.buf[:r.n], r.err
			case <-s.done:
				s.err = context.Canceled
			}
		}
		if s.err != nil {
			close(s.next)
		}
	}
	n := copy(p, s.rest)
	s.rest = s.rest[n:]
	if n == 0 && s.err != nil {
		return 0, s.err
	}
	return n, nil
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// barReader moves a progress bar with what is read of a file.
type barReader struct {
	*os.File
	bar *progressbar.ProgressBar
}

func (b *barReader) Read(p []byte) (int, error) {
	n, err := b.File.Read(p)
	_ = b.bar.Add(n) // a bar that cannot be drawn is no failure of the replay
	if err != nil {
		_ = b.bar.Finish()
	}
	return n, err
}

// replay reads the captures to their end, on packet time.
func (r *runner) replay(ctx context.Context) error {
	w := newWorker(r.shared)
	r.workers = []*worker{w}
	m := merge(r.sources)
	var p capture.Packet
	var second int64
	for n := 0; n%checkEvery != 0 || ctx.Err() == nil; n++ {
		if err := m.next(&p); err != nil {
			break // io.EOF: merged keeps the errors of single captures
		}
		if len(r.sources) > 1 {
			r.events.from = r.cfg.Read[m.index]
		}
		if s := p.Time / int64(time.Second); s != second {
			second = s
			r.manager.Advance(time.Unix(0, p.Time))
		}
		w.take(&p, p.Number)
	}
	w.publish()
	r.manager.Advance(time.Unix(0, w.set.Time))
	if ctx.Err() != nil {
		return nil // told to end; a capture that was cut by that is no error
	}
	return r.captureErrors(m.errs)
}

// captureErrors warns of captures that were evaluated as far as they go, and
// fails where nothing could be decoded at all.
func (r *runner) captureErrors(errs []error) error {
	var unsupported uint64
	for _, s := range r.sources {
		unsupported += s.Stats().Unsupported
	}
	if r.workers[0].packets.load() > 0 {
		for _, err := range errs {
			r.log.Warn("evaluated as far as it goes", "error", err)
		}
		return nil
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if unsupported > 0 {
		return Exit(ExitFailed, "nothing can be decoded: all %d packets have an unsupported link type", unsupported)
	}
	return nil
}
