package guard

import (
	"errors"
	"hash/maphash"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/netcap-guard/netcap-guard/backend"
	"github.com/netcap-guard/netcap-guard/engine"
	"github.com/netcap-guard/netcap-guard/firewall"
	"github.com/netcap-guard/netcap-guard/internal/nflog"
)

const (
	// Kernel log events a second, and how many at once: of one source, and of
	// all together. A flood that is logged is no flood of events.
	sourceLogRate, sourceLogBurst = 10, 20
	totalLogRate, totalLogBurst   = 500, 1000
	// logSources is how many sources are told apart; two that share a place
	// share its allowance.
	logSources = 1024
	// kernelLogRetry is how often a group that somebody else reads is asked
	// for again.
	kernelLogRetry = 30 * time.Second
)

// kernelLog reads what kernel log rules say and makes events of it. It opens
// its group when the first rule or block asks for it, so that a guard that
// logs nothing keeps it free for others.
type kernelLog struct {
	log     *slog.Logger
	group   uint16
	manager *firewall.Manager
	emit    func(p *nflog.Packet, rule string)
	open    func(group uint16) (logReader, error)

	unavailable, suppressed atomic.Uint64

	mu     sync.Mutex  // guards what follows
	wanted bool        // something logs to the group
	reader logReader   // nil: not open
	past   nflog.Stats // of the readers before
	tried  time.Time
	closed bool
	done   sync.WaitGroup
}

// logReader is what there is to do with an nflog.Reader.
type logReader interface {
	Run(f func(*nflog.Packet)) error
	Stats() nflog.Stats
	Close() error
}

func openLog(group uint16) (logReader, error) { return nflog.Open(nflog.Config{Group: group}) }

// look opens the group where something logs to it, a rule or a block of
// before; it is asked when the rules have changed.
func (k *kernelLog) look(now time.Time, rules *engine.RuleSet) {
	wanted := logsInKernel(rules, k.manager)
	k.mu.Lock()
	k.wanted = k.wanted || wanted
	k.mu.Unlock()
	k.retry(now)
}

// retry opens the group where it is wanted and not open. A group that somebody
// else reads is warned of once, counted, and asked for again later: blocking
// goes on without it.
func (k *kernelLog) retry(now time.Time) {
	if k == nil {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	again := !k.tried.IsZero()
	if !k.wanted || k.reader != nil || k.closed || again && now.Sub(k.tried) < kernelLogRetry {
		return
	}
	k.tried = now
	reader, err := k.open(k.group)
	if err != nil {
		if k.unavailable.Add(1); !again {
			k.log.Warn("what the kernel logs is not seen, everything else goes on (nflog_group chooses another group)", "error", err)
		}
		return
	}
	if again {
		k.log.Warn("what the kernel logs is seen now", "NFLOG group", k.group)
	}
	k.reader = reader
	k.done.Go(func() { k.read(reader) })
}

// logsInKernel reports whether a rule that runs, or a block of before, has the
// kernel log.
func logsInKernel(rules *engine.RuleSet, m *firewall.Manager) bool {
	for _, r := range rules.Rules() {
		for i := range r.Actions {
			if a := &r.Actions[i]; r.Runs() && a.Enabled && a.Kernel {
				return true
			}
		}
	}
	for _, b := range m.GetActiveBlocks() {
		if b.Action == backend.Log.String() {
			return true
		}
	}
	return false
}

// read reads until the reader is closed or fails; one that fails is given up,
// and retry opens another.
func (k *kernelLog) read(reader logReader) {
	limit := newLogLimit()
	err := reader.Run(func(p *nflog.Packet) {
		now := time.Now()
		if !limit.allow(p.Src, now) {
			k.suppressed.Add(1)
			return
		}
		if p.Time.IsZero() {
			p.Time = now
		}
		k.emit(p, k.rule(p))
	})
	if err == nil {
		return
	}
	k.mu.Lock()
	n := reader.Stats()
	k.past.Received += n.Received
	k.past.Lost += n.Lost
	k.past.Malformed += n.Malformed
	k.past.Overruns += n.Overruns
	k.reader = nil
	k.mu.Unlock()
	k.log.Error("what the kernel logs is not seen any more, until the group can be opened anew", "error", errors.Join(err, reader.Close()))
}

// rule is whose log rule a packet met; empty where that has ended meanwhile.
func (k *kernelLog) rule(p *nflog.Packet) string {
	for _, b := range k.manager.LogRules(p.Src, p.Dst) {
		if b.LogPrefix == p.Prefix {
			return b.RuleName
		}
	}
	return ""
}

// close gives the group up and joins the reader.
func (k *kernelLog) close() error {
	if k == nil {
		return nil
	}
	k.mu.Lock()
	k.closed = true
	reader := k.reader
	k.mu.Unlock()
	var err error
	if reader != nil {
		err = reader.Close()
	}
	k.done.Wait()
	return err
}

// stats are the counters so far; zeros where nothing was ever opened.
func (k *kernelLog) stats() kernelLogStats {
	if k == nil {
		return kernelLogStats{}
	}
	s := kernelLogStats{Unavailable: k.unavailable.Load(), Suppressed: k.suppressed.Load()}
	k.mu.Lock()
	defer k.mu.Unlock()
	s.Packets, s.Lost, s.Malformed = k.past.Received, k.past.Lost, k.past.Malformed
	if k.reader != nil {
		n := k.reader.Stats()
		s.Packets += n.Received
		s.Lost += n.Lost
		s.Malformed += n.Malformed
	}
	return s
}

// logLimit bounds the events of one source and of all; it has one user.
type logLimit struct {
	seed    maphash.Seed
	total   tokens
	sources [logSources]sourceTokens
}

type sourceTokens struct {
	addr netip.Addr
	tokens
}

// tokens is a bucket of them; the zero one is empty, and has been for long.
type tokens struct {
	left float64
	last time.Time
}

func (b *tokens) take(now time.Time, rate, burst float64) bool {
	b.left = min(b.left+now.Sub(b.last).Seconds()*rate, burst)
	b.last = now
	if b.left < 1 {
		return false
	}
	b.left--
	return true
}

func newLogLimit() *logLimit { return &logLimit{seed: maphash.MakeSeed()} }

func (l *logLimit) allow(src netip.Addr, now time.Time) bool {
	s := &l.sources[maphash.Comparable(l.seed, src)%logSources]
	if s.addr != src {
		*s = sourceTokens{addr: src}
	}
	return s.take(now, sourceLogRate, sourceLogBurst) && l.total.take(now, totalLogRate, totalLogBurst)
}
