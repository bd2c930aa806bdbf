package guard

import (
	"bufio"
	"bytes"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/netcap-guard/netcap-guard/engine"
	"github.com/netcap-guard/netcap-guard/firewall"
)

// TestStalledOutput: standard output is a pipe that nobody reads. Events pile
// up to the queue's bound and are counted as lost; nobody waits, and the end
// comes all the same.
func TestStalledOutput(t *testing.T) {
	r, w := io.Pipe()
	defer func() { _ = r.Close() }() // lets the writer end
	e, err := openEvents(Config{Output: OutputJSON}, w)
	if err != nil {
		t.Fatal(err)
	}
	e.start()
	emitted := make(chan struct{})
	go func() {
		defer close(emitted)
		for range maxQueued + 100 {
			e.log(engine.LogEvent{Prefix: "X: "})
		}
	}()
	select {
	case <-emitted:
	case <-time.After(30 * time.Second):
		t.Fatal("who emits an event waits for who reads it")
	}
	if lost, _ := e.losses(); lost < 99 || lost > 100 {
		t.Errorf("lost %d events, want the 100 beyond the queue (the writer may hold one)", lost)
	}
	if err := e.close(); err == nil {
		t.Error("close does not say that events were not taken")
	}
	if err := e.emit(&event{}); err == nil {
		t.Error("an event after the end is not lost")
	}
}

// TestEventsOfALongList: who lifts many blocks waits for a reader that is
// slower, and loses no event; where there is no reader it waits once, and the
// first loss is said at once.
func TestEventsOfALongList(t *testing.T) {
	const many = 3 * maxQueued
	lift := func(e *events) (took time.Duration) {
		began := time.Now()
		for range many {
			e.block(firewall.Event{Kind: firewall.Unblocked, By: firewall.ByManual})
		}
		return time.Since(began)
	}
	for _, tt := range []struct {
		name   string
		reader func(io.Reader)
		lost   uint64
		said   int
		took   time.Duration
	}{
		{"a slow reader", func(r io.Reader) {
			for lines := bufio.NewScanner(r); lines.Scan(); {
				time.Sleep(10 * time.Microsecond)
			}
		}, 0, 0, time.Minute},
		// The end of the wait and a look are due at once, and either goes first.
		{"none", func(io.Reader) {}, many - maxQueued - 1, 1, roomLimit + 10*roomLook},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, w := io.Pipe()
				defer func() { _ = r.Close() }() // lets the writer end
				var log bytes.Buffer
				e, err := openEvents(Config{Output: OutputJSON}, w)
				if err != nil {
					t.Fatal(err)
				}
				e.logger = slog.New(slog.NewTextHandler(&log, nil))
				e.start()
				read := make(chan struct{})
				go func() {
					defer close(read)
					tt.reader(r)
				}()
				if took := lift(e); took > tt.took {
					t.Errorf("it took %v, want at most %v", took, tt.took)
				}
				lost, _ := e.losses()
				if said := strings.Count(log.String(), "events are lost"); lost != tt.lost || said != tt.said {
					t.Errorf("lost %d, want %d; said %d times: %s", lost, tt.lost, said, log.String())
				}
				_ = e.close() // says what nobody took
				_ = w.Close()
				<-read
			})
		})
	}
}

// TestQueuedEventsAreWritten: a reader that takes everything gets everything,
// in order.
func TestQueuedEventsAreWritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "out")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	e, err := openEvents(Config{Output: OutputJSON}, f)
	if err != nil {
		t.Fatal(err)
	}
	e.start()
	for _, p := range []string{"a", "b", "c"} {
		e.log(engine.LogEvent{Prefix: p})
	}
	if err := e.close(); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Count(string(data), "\n"); got != 3 || !strings.Contains(string(data), `"prefix":"c"`) {
		t.Errorf("written: %s", data)
	}
}

// TestInterruptible: a pipe on which nothing comes does not keep the reader.
func TestInterruptible(t *testing.T) {
	pr, pw := io.Pipe()
	defer func() { _ = pw.Close() }() // lets the reader's goroutine end
	done := make(chan struct{})
	in := interruptible(done, pr)
	go func() {
		_, _ = pw.Write([]byte("abc")) // the reader checks what came
	}()
	buf := make([]byte, 2)
	if n, err := io.ReadFull(in, buf); n != 2 || err != nil || string(buf) != "ab" {
		t.Fatalf("read %q, %v", buf[:n], err)
	}
	if n, err := in.Read(buf); n != 1 || err != nil {
		t.Fatalf("read %d, %v", n, err)
	}
	ended := make(chan error, 1)
	go func() {
		_, err := in.Read(buf)
		ended <- err
	}()
	close(done)
	select {
	case err := <-ended:
		if err == nil {
			t.Error("no error at the end")
		}
	case <-time.After(30 * time.Second):
		t.Fatal("Read waits for a pipe that gives nothing")
	}
}

// TestInterruptiblePassesTheEnd: what a pipe ends with comes after its data.
func TestInterruptiblePassesTheEnd(t *testing.T) {
	data, err := io.ReadAll(interruptible(make(chan struct{}), strings.NewReader("hello")))
	if err != nil || string(data) != "hello" {
		t.Errorf("read %q, %v", data, err)
	}
}
