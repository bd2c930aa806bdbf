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

// openSources opens all captures or all interfaces.
func (r *runner) openSources(replay bool) error {
	open, names := r.openInterface, r.cfg.Interfaces
	if replay {
		open, names = r.openFile, r.cfg.Read
	}
	for _, name := range names {
		src, err := open(name)
		if err != nil {
			r.closeSources()
			return err
		}
		r.sources = append(r.sources, src)
	}
	return nil
}

// openFile opens a capture, with a progress bar where a person looks on.
func (r *runner) openFile(name string) (capture.Source, error) {
	if name == stdinArg {
		return capture.OpenReader(r.env.In, "standard input")
	}
	f, err := os.Open(name)
	if err != nil || len(r.cfg.Read) != 1 || r.cfg.Quiet || !isTerminal(r.env.Err) {
		if err == nil {
			_ = f.Close() // nothing was read of it
		}
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
		if s := p.Time / int64(time.Second); s != second {
			second = s
			r.manager.Advance(time.Unix(0, p.Time))
		}
		w.packet(&p, p.Number)
	}
	r.manager.Advance(time.Unix(0, w.set.Time))
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
