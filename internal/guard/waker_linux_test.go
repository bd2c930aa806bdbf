package guard

import (
	"testing"

	"golang.org/x/sys/unix"
)

// TestWaker: a wake-up that nobody waits for yet is not lost, many are one, and
// without one nobody is woken.
func TestWaker(t *testing.T) {
	t.Parallel()
	w := newWaker()
	if w == nil {
		t.Fatal("no eventfd")
	}
	defer w.close()
	woken := make(chan struct{})
	again := make(chan struct{})
	go func() {
		for range again {
			w.Wait()
			woken <- struct{}{}
		}
	}()
	for range 3 {
		w.Wake()
	}
	again <- struct{}{}
	<-woken
	fds := []unix.PollFd{{Fd: int32(w.fd), Events: unix.POLLIN}}
	if n, err := unix.Poll(fds, 0); n != 0 || err != nil {
		t.Fatalf("the next Wait would be woken by nobody (%v)", err)
	}
	again <- struct{}{}
	w.Wake()
	<-woken
	close(again)
}
