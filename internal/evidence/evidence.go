// Package evidence keeps the packets that led to a block. Each worker copies
// what it evaluates onto a tape of fixed size; when a rule has somebody blocked,
// the last packets of that address are taken from all tapes and written to a
// pcapng file that carries the rule's name.
//
// Everything is bounded: the tapes, the packets of a file, the blocks that wait
// to be written, and how many files and bytes there are; the oldest give way.
// What is lost by that is counted.
package evidence

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"
)

// Config says what is kept, and where. Zero values take the defaults.
type Config struct {
	// Directory holds the files. It is made, for its owner alone, if need be.
	Directory string
	// Packets are how many of an address a file holds at most; 0 = 64.
	Packets int
	// Memory is how many bytes each tape takes; 0 = 16 MiB.
	Memory int
	// Files and Bytes bound the directory; 0 = 1,000 files, 256 MiB.
	Files int
	Bytes int64
	// Application is named in each file as its writer.
	Application string
	// Inline has Collect write the file itself.
	Inline bool
	// Log gets a line when files cannot be written. Nil discards it.
	Log *slog.Logger
}

const (
	defaultPackets = 64
	defaultMemory  = 16 << 20
	defaultFiles   = 1000
	defaultBytes   = 256 << 20
	// maxWaiting bounds the cases that wait to be written.
	maxWaiting = 256
)

func (c Config) filled() (Config, error) {
	if c.Packets <= 0 {
		c.Packets = defaultPackets
	}
	if c.Memory <= 0 {
		c.Memory = defaultMemory
	}
	if c.Files <= 0 {
		c.Files = defaultFiles
	}
	if c.Bytes <= 0 {
		c.Bytes = defaultBytes
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	var err error
	c.Directory, err = filepath.Abs(c.Directory)
	return c, err
}

// Stats are a Keeper's counters.
type Stats struct {
	Files, Bytes uint64 // that there are now
	Written      uint64 // files
	Evicted      uint64 // files that gave way to others
	Lost         uint64 // blocks without a file: too many waited
	Failed       uint64 // files that could not be written
	Missed       uint64 // packets that were not copied, because their tape was being read
}

// Case is a block whose packets are to be kept.
type Case struct {
	// Prefix was blocked, as a destination or as a source.
	Prefix      netip.Prefix
	Destination bool
	Rule        string
	// At is the time of the packet that led to it; later ones are left out.
	At time.Time
}

// Keeper makes tapes and writes files. Its methods are safe for concurrent use.
type Keeper struct {
	cfg Config
	dir directory

	order atomic.Uint64 // of the packets that counted

	mu    sync.Mutex // guards tapes
	tapes []*Tape

	cases   chan named
	closing sync.RWMutex // guards closed against a Collect under way
	closed  bool
	done    chan struct{}

	lost atomic.Uint64
}

// named is a case and the file it goes to.
type named struct {
	Case
	file string
}

// Open makes the directory, and looks what is in it from earlier. Close the
// keeper when done.
func Open(cfg Config) (*Keeper, error) {
	cfg, err := cfg.filled()
	if err != nil {
		return nil, fmt.Errorf("evidence: %w", err)
	}
	k := &Keeper{cfg: cfg, cases: make(chan named, maxWaiting), done: make(chan struct{})}
	if err := k.dir.open(cfg); err != nil {
		return nil, fmt.Errorf("evidence: %w", err)
	}
	go func() {
		defer close(k.done)
		for c := range k.cases {
			k.write(c)
		}
	}()
	return k, nil
}

// NewTape makes the tape of one worker.
func (k *Keeper) NewTape() *Tape {
	t := newTape(k.cfg.Memory, &k.order)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.tapes = append(k.tapes, t)
	return t
}

// Collect has the packets of a case written, and returns the path of the file
// that they go to; empty where too much waits to be written, or where the file
// could not be written at once (Config.Inline). It does not wait otherwise.
func (k *Keeper) Collect(c Case) string {
	n := named{c, k.dir.path(c)}
	if k.cfg.Inline {
		if !k.write(n) {
			return ""
		}
		return n.file
	}
	k.closing.RLock()
	defer k.closing.RUnlock()
	if !k.closed {
		select {
		case k.cases <- n:
			return n.file
		default:
		}
	}
	k.lost.Add(1)
	return ""
}

// write reports whether the file is there.
func (k *Keeper) write(c named) bool {
	k.mu.Lock()
	tapes := k.tapes
	k.mu.Unlock()
	return k.dir.write(c, lastOf(tapes, c.Case, k.cfg.Packets))
}

// Close writes what waits, as long as ctx allows.
func (k *Keeper) Close(ctx context.Context) error {
	k.closing.Lock()
	if !k.closed {
		k.closed = true
		close(k.cases)
	}
	k.closing.Unlock()
	select {
	case <-k.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("evidence of %d blocks is not written: %w", len(k.cases), ctx.Err())
	}
}

// Stats reads the counters.
func (k *Keeper) Stats() Stats {
	s := k.dir.stats()
	s.Lost = k.lost.Load()
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, t := range k.tapes {
		s.Missed += t.missed.Load()
	}
	return s
}
