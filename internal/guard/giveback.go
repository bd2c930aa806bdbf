package guard

import (
	"runtime/debug"
	"sync"
	"time"
)

const (
	// giveBackFrom is how many entries of requests leave enough garbage behind
	// to be worth a collection: some megabytes.
	giveBackFrom = 10_000
	// giveBackAfter is how long nothing large may have been asked for: a long
	// list comes in parts, and one collection after the last is enough.
	giveBackAfter = time.Second
)

// giveBack returns the memory of large requests to the kernel when they are
// over: the runtime alone would keep it for minutes, and until then a guard
// looks twice as large as it is. The zero value is ready; it is safe for
// concurrent use.
type giveBack struct {
	free func() // nil = debug.FreeOSMemory

	mu      sync.Mutex // guards what follows
	entries int        // since the last time
	timer   *time.Timer
}

// after notes a request or an answer of n entries that is over.
func (g *giveBack) after(n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.entries += n
	switch {
	case g.entries < giveBackFrom:
	case g.timer == nil:
		g.timer = time.AfterFunc(giveBackAfter, g.now)
	default:
		g.timer.Reset(giveBackAfter)
	}
}

func (g *giveBack) now() {
	g.mu.Lock()
	g.entries = 0
	g.mu.Unlock()
	if g.free != nil {
		g.free()
		return
	}
	debug.FreeOSMemory()
}

// end leaves what is left to the end of the process.
func (g *giveBack) end() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.timer != nil {
		g.timer.Stop()
	}
}
