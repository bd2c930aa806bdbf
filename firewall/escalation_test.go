package firewall

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/netcap-guard/netcap-guard/backend"
)

// The n-th block lasts as long as the n-th step, whatever else happens to the
// address in between.
func TestEscalation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := dry(t, nil)
		steps := []time.Duration{10 * time.Minute, time.Hour, 24 * time.Hour}
		ask := func(edit func(*Request)) (Outcome, time.Duration) {
			t.Helper()
			req := Request{Prefix: numbered(1), Duration: time.Second, Escalation: steps, ByRule: true}
			if edit != nil {
				edit(&req)
			}
			res, err := m.Block(t.Context(), req)
			if err != nil {
				t.Fatal(err)
			}
			if res.Block.ExpiresAt.IsZero() {
				return res.Outcome, 0
			}
			return res.Outcome, time.Until(res.Block.ExpiresAt)
		}
		other := func(r *Request) { r.Prefix = numbered(2) }
		dst := func(r *Request) { r.Target = backend.Destination }
		plain := func(r *Request) { r.Escalation = nil }
		short := func(r *Request) { r.EscalationMemory = time.Hour }
		forever := func(r *Request) { r.Escalation = []time.Duration{0} }
		log := func(r *Request) { r.Action = backend.Log }
		for i, tt := range []struct {
			wait    time.Duration
			edit    func(*Request)
			outcome Outcome
			lasts   time.Duration
		}{
			{0, nil, Created, 10 * time.Minute},
			{0, nil, Duplicate, 10 * time.Minute},
			{time.Minute, nil, Extended, 10 * time.Minute}, // it keeps its step
			{0, other, Created, 10 * time.Minute},
			{0, dst, Created, 10 * time.Minute},
			{10 * time.Minute, nil, Created, time.Hour},
			{0, log, Created, time.Second},
			{time.Hour, plain, Created, time.Second}, // asked for without: counts for nothing
			{time.Second, nil, Created, 24 * time.Hour},
			{24 * time.Hour, nil, Created, 24 * time.Hour}, // the last one again
			{24 * time.Hour, short, Created, 10 * time.Minute},
			{28 * 24 * time.Hour, nil, Created, 24 * time.Hour}, // two are within the memory
			{31 * 24 * time.Hour, nil, Created, 10 * time.Minute},
			{time.Hour, forever, Created, 0},
		} {
			time.Sleep(tt.wait)
			synctest.Wait()
			if o, d := ask(tt.edit); o != tt.outcome || d != tt.lasts {
				t.Errorf("request %d: %s for %v, want %s for %v", i, o, d, tt.outcome, tt.lasts)
			}
		}
		if got := m.Escalations(); got.Remembered != 3 || got.Evicted != 0 {
			t.Errorf("%+v", got)
		}
	})
}

// A rate limit that a block replaces counts, and so does the block; what is
// weaker than what is there does not.
func TestEscalationOfTheStronger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := dry(t, nil)
		for i, tt := range []struct {
			action backend.Action
			want   string
		}{
			{backend.RateLimit, "created 1m0s"},
			{backend.Drop, "created 1h0m0s"},
			{backend.RateLimit, "duplicate 1h0m0s"},
			{backend.Reject, "duplicate 1h0m0s"},
		} {
			res, err := m.Block(t.Context(), Request{
				Prefix: numbered(1), Action: tt.action, Limit: backend.Limit{Rate: 1, Per: time.Second, Burst: 1},
				Escalation: []time.Duration{time.Minute, time.Hour, 9 * time.Hour},
			})
			if err != nil {
				t.Fatal(err)
			}
			if got := fmt.Sprint(res.Outcome, " ", time.Until(res.Block.ExpiresAt)); got != tt.want {
				t.Errorf("request %d: %s, want %s", i, got, tt.want)
			}
		}
	})
}

// The table behaves as a list of all blocks that forgets whole addresses when
// it is full.
func TestEscalationTable(t *testing.T) {
	rng := rand.New(rand.NewPCG(4, 4))
	for range 20 {
		const limit = 8
		table := newEscalations(limit, time.Hour)
		now := time.Unix(1_700_000_000, 0)
		blocks := map[whom][]time.Time{}
		var order []whom // the oldest first
		evicted := uint64(0)
		for range 2000 {
			now = now.Add(time.Duration(rng.IntN(120)) * time.Second)
			w := whom{numbered(rng.IntN(12)), backend.Target(rng.IntN(2))}
			want := 0
			for _, at := range blocks[w] {
				if now.Sub(at) < time.Hour {
					want++
				}
			}
			if got := table.count(w, now, time.Hour); got != min(want, MaxEscalation) {
				t.Fatalf("%v: %d blocks within the memory, want %d", w, got, want)
			}
			switch rng.IntN(4) {
			case 0: // a start of the next process
				list, changed := table.copy(now)
				if !changed {
					continue
				}
				order = slices.DeleteFunc(order, func(w whom) bool {
					old := now.Sub(blocks[w][len(blocks[w])-1]) >= time.Hour
					if old {
						delete(blocks, w)
					}
					return old
				})
				table = newEscalations(limit, time.Hour)
				table.load(list, now)
				if n, _ := table.stats(); n != len(order) {
					t.Fatalf("%d remembered, want %d", n, len(order))
				}
				evicted = 0
			default:
				if blocks[w] == nil && len(order) == limit {
					delete(blocks, order[0])
					order = order[1:]
					evicted++
				}
				order = append(slices.DeleteFunc(order, func(o whom) bool { return o == w }), w)
				blocks[w] = append(blocks[w], now)
				if len(blocks[w]) > MaxEscalation {
					blocks[w] = blocks[w][1:]
				}
				table.note(w, now)
			}
			if _, n := table.stats(); n != evicted {
				t.Fatalf("%d evicted, want %d", n, evicted)
			}
		}
	}
}

func sampleEscalations() []remembered {
	return []remembered{
		{whom{netip.MustParsePrefix("192.0.2.1/32"), backend.Source}, []int64{1_700_000_000, 1_700_000_600}},
		{whom{netip.MustParsePrefix("2001:db8::/64"), backend.Destination}, []int64{1_700_001_000}},
	}
}

func TestEscalationFileGolden(t *testing.T) {
	var b bytes.Buffer
	if err := encodeEscalations(&b, sampleEscalations()); err != nil {
		t.Fatal(err)
	}
	want := "netcap-guard escalation 1\nsource 192.0.2.1/32 1700000000 1700000600\ndestination 2001:db8::/64 1700001000\n"
	if b.String() != want {
		t.Errorf("the file is\n%swant\n%s", b.String(), want)
	}
	got, err := decodeEscalations(b.Bytes())
	if err != nil || !reflect.DeepEqual(got, sampleEscalations()) {
		t.Errorf("read back %+v, %v", got, err)
	}
}

func brokenEscalations() map[string]string {
	const head = escalationHeader + "\n"
	return map[string]string{
		"empty":                   "",
		"another file":            "root:x:0:0\n",
		"a later version":         "netcap-guard escalation 2\n",
		"no times":                head + "source 192.0.2.1/32\n",
		"an unknown target":       head + "src 192.0.2.1/32 1\n",
		"no prefix":               head + "source 192.0.2.1 1\n",
		"host bits":               head + "source 192.0.2.1/24 1\n",
		"a mapped prefix":         head + "source ::ffff:192.0.2.1/128 1\n",
		"no number":               head + "source 192.0.2.1/32 yesterday\n",
		"a leading zero":          head + "source 192.0.2.1/32 01\n",
		"times in disorder":       head + "source 192.0.2.1/32 2 1\n",
		"twice":                   head + strings.Repeat("source 192.0.2.1/32 1\n", 2),
		"too many times":          head + "source 192.0.2.1/32" + strings.Repeat(" 1", MaxEscalation+1) + "\n",
		"a line without end":      head + "source " + strings.Repeat("1", 4096),
		"a carriage return":       head + "source 192.0.2.1/32 1\r\n",
		"cut in a number":         head + "source 192.0.2.1/32 17000",
		"cut in the middle":       head + "source 192.0.2.1/32 1\nsource 192.0",
		"zeros after a power cut": head + strings.Repeat("\x00", 100),
	}
}

func TestEscalationFileBroken(t *testing.T) {
	for name, text := range brokenEscalations() {
		t.Run(name, func(t *testing.T) {
			if got, err := decodeEscalations([]byte(text)); err == nil {
				t.Errorf("read as %+v", got)
			}
		})
	}
}

func FuzzEscalationFile(f *testing.F) {
	var b bytes.Buffer
	if err := encodeEscalations(&b, sampleEscalations()); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	for _, text := range brokenEscalations() {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		list, err := decodeEscalations(data)
		if err != nil {
			return
		}
		var again bytes.Buffer
		if err := encodeEscalations(&again, list); err != nil {
			t.Fatal(err)
		}
		if again.String() != string(data) {
			t.Errorf("%q was read and written as %q", data, again.String())
		}
		table := newEscalations(3, time.Hour)
		table.load(list, time.Unix(1_700_000_000, 0))
		if n, _ := table.stats(); n > 3 {
			t.Errorf("%d of three remembered", n)
		}
	})
}

// What is remembered survives the process, in a file of the owner alone, which
// is written seldom and in one step.
func TestEscalationIsKept(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	synctest.Test(t, func(t *testing.T) {
		start := func() *Manager {
			return on(t, backend.NewMemory(nil), func(c *ManagerConfig) { c.StateDir = dir })
		}
		block := func(m *Manager, n int, want time.Duration) {
			t.Helper()
			res, err := m.Block(t.Context(), Request{Prefix: numbered(n), Escalation: []time.Duration{time.Minute, time.Hour}})
			if err != nil {
				t.Fatal(err)
			}
			if got := time.Until(res.Block.ExpiresAt); res.Outcome != Created || got != want {
				t.Errorf("block of %v: %s for %v, want %v", numbered(n), res.Outcome, got, want)
			}
		}
		m := start()
		file := filepath.Join(dir, "escalation-NETCAP")
		block(m, 1, time.Minute)
		synctest.Wait()
		info, err := os.Stat(file) // a crash may come at once
		if err != nil || info.Mode() != 0o600 {
			t.Fatalf("file %v, %v", info, err)
		}
		first, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		block(m, 2, time.Minute)
		synctest.Wait()
		if again, err := os.ReadFile(file); err != nil || !bytes.Equal(again, first) {
			t.Errorf("written again within %v: %s, %v", saveEvery, again, err)
		}
		time.Sleep(saveEvery)
		synctest.Wait()
		if again, err := os.ReadFile(file); err != nil || bytes.Equal(again, first) {
			t.Errorf("not written again after %v, %v", saveEvery, err)
		}
		if err := m.Close(); err != nil { // writes what is left
			t.Fatal(err)
		}
		m = start()
		if got := m.Escalations(); got.Remembered != 2 || got.Failed != 0 {
			t.Errorf("%+v", got)
		}
		block(m, 1, time.Hour)
		block(m, 3, time.Minute)
		synctest.Wait() // for what is being written
		if list, err := os.ReadDir(dir); err != nil || len(list) != 1 {
			t.Errorf("the directory has %v, %v", list, err)
		}
	})
}

// A file that cannot be read is not a broken one: it stays where it is, and is
// read, and written again, once it can be.
func TestEscalationFileUnreadable(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "escalation-NETCAP")
	good := filepath.Join(dir, "good")
	w := whom{numbered(1), backend.Source}
	before := escalationHeader + "\nsource " + numbered(1).String() + " 1700000000\n"
	if err := errors.Join(os.WriteFile(good, []byte(before), 0o600), os.Symlink(file, file)); err != nil { // ELOOP, for root as well
		t.Fatal(err)
	}
	now := time.Unix(1_700_000_100, 0)
	var log lockedBuffer
	table := newEscalations(10, time.Hour)
	k := newKeeper(table, file, func() time.Time { return now }, log.logger())
	for range 2 {
		table.note(w, now)
		k.save()
	}
	if got := k.failed.Load(); got != 2 || strings.Count(log.String(), "level=") != 1 || !strings.Contains(log.String(), "cannot be read") {
		t.Errorf("%d failures, log %s", got, log.String())
	}
	if to, err := os.Readlink(file); err != nil || to != file {
		t.Errorf("the file was touched: %q, %v", to, err)
	}
	if err := errors.Join(os.Remove(file), os.Rename(good, file)); err != nil {
		t.Fatal(err)
	}
	table.note(whom{numbered(2), backend.Source}, now)
	k.save()
	want := before[:len(before)-1] + " 1700000100 1700000100\nsource " + numbered(2).String() + " 1700000100\n"
	if got, err := os.ReadFile(file); err != nil || string(got) != want {
		t.Errorf("%v, the file is\n%swant\n%s", err, got, want)
	}
	if list, err := os.ReadDir(dir); err != nil || len(list) != 1 {
		t.Errorf("the directory has %v, %v", list, err)
	}
}

// A broken file is kept aside and said; the guard starts.
func TestEscalationFileKeptAside(t *testing.T) {
	for name, text := range brokenEscalations() {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			file := filepath.Join(dir, "escalation-NETCAP")
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			synctest.Test(t, func(t *testing.T) {
				var log lockedBuffer
				m := on(t, backend.NewMemory(nil), func(c *ManagerConfig) { c.StateDir, c.Logger = dir, log.logger() })
				if _, err := m.Block(t.Context(), Request{Prefix: numbered(1), Escalation: []time.Duration{time.Minute}}); err != nil {
					t.Fatal(err)
				}
				if err := m.Close(); err != nil {
					t.Fatal(err)
				}
				if got := strings.Count(log.String(), "is broken"); got != 1 || strings.Count(log.String(), "level=WARN") != 1 {
					t.Errorf("%d warnings: %s", got, log.String())
				}
			})
			aside, err := filepath.Glob(file + ".broken-*")
			if err != nil || len(aside) != 1 {
				t.Fatalf("kept aside: %v, %v", aside, err)
			}
			if kept, err := os.ReadFile(aside[0]); err != nil || string(kept) != text {
				t.Errorf("kept %q, %v", kept, err)
			}
			if fresh, err := os.ReadFile(file); err != nil || !strings.HasPrefix(string(fresh), escalationHeader) {
				t.Errorf("the new file is %q, %v", fresh, err)
			}
		})
	}
}

// Where the file cannot be written blocks go on; it is counted and said once.
func TestEscalationCannotBeKept(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(dir, nil, 0o600); err != nil { // no directory
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		var log lockedBuffer
		m := on(t, backend.NewMemory(nil), func(c *ManagerConfig) { c.StateDir, c.Logger = dir, log.logger() })
		if got := log.String(); strings.Count(got, "level=") != 1 || !strings.Contains(got, "file="+dir) {
			t.Errorf("at start: %s", got)
		}
		for i := range 3 {
			if _, err := m.Block(t.Context(), Request{Prefix: numbered(i), Escalation: []time.Duration{time.Hour}}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(2 * saveEvery)
			synctest.Wait()
		}
		if got := m.Escalations(); got.Failed != 3 || got.Remembered != 3 {
			t.Errorf("%+v", got)
		}
		if got := strings.Count(log.String(), "level="); got != 1 {
			t.Errorf("said %d times: %s", got, log.String())
		}
	})
}

// A write that fails in the middle leaves the file as it was, and no other.
func TestWriteFile(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "x")
	for _, text := range []string{"one", "two"} {
		if err := writeFile(name, func(w io.Writer) error { _, err := io.WriteString(w, text); return err }); err != nil {
			t.Fatal(err)
		}
	}
	err := writeFile(name, func(w io.Writer) error {
		_, _ = io.WriteString(w, "half")
		return fs.ErrInvalid
	})
	if got, rerr := os.ReadFile(name); err == nil || rerr != nil || string(got) != "two" {
		t.Errorf("%v; the file is %q, %v", err, got, rerr)
	}
	if list, err := os.ReadDir(dir); err != nil || len(list) != 1 {
		t.Errorf("the directory has %v, %v", list, err)
	}
}

func TestEscalationBadInput(t *testing.T) {
	m := dry(t, nil)
	for name, req := range map[string]Request{
		"too many steps":    {Escalation: make([]time.Duration, MaxEscalation+1)},
		"a negative step":   {Escalation: []time.Duration{time.Hour, -1}},
		"a negative memory": {Escalation: []time.Duration{time.Hour}, EscalationMemory: -1},
		"a prefix of 129":   {IPv6Prefix: 129},
		"a negative prefix": {IPv6Prefix: -1},
	} {
		t.Run(name, func(t *testing.T) {
			req.Prefix = numbered(1)
			if res, err := m.Block(t.Context(), req); res.Outcome != Failed || err == nil {
				t.Errorf("%s, %v", res.Outcome, err)
			}
		})
	}
	if got := stats(m); got != "errors=5" {
		t.Errorf("statistics %q", got)
	}
}

// A replay escalates on packet time and touches no file.
func TestEscalationInReplay(t *testing.T) {
	dir := t.TempDir()
	m := dry(t, func(c *ManagerConfig) { c.PacketTime, c.StateDir = true, dir })
	t0 := time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
	for i, want := range []time.Duration{time.Minute, time.Hour, time.Hour} {
		at := t0.Add(time.Duration(i) * 2 * time.Hour)
		res, err := m.Block(t.Context(), Request{Prefix: numbered(1), At: at, Escalation: []time.Duration{time.Minute, time.Hour}})
		if err != nil || res.Block.ExpiresAt.Sub(at) != want {
			t.Errorf("block %d: %+v, %v, want %v", i, res, err, want)
		}
	}
	if list, err := os.ReadDir(dir); err != nil || len(list) > 0 {
		t.Errorf("the directory has %v, %v", list, err)
	}
}
