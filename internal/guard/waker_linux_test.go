package guard

import (
	"testing"
	"time"
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
	again <- struct{}{}
	select {
	case <-woken:
		t.Fatal("woken by nobody")
	case <-time.After(50 * time.Millisecond):
	}
	w.Wake()
	<-woken
	close(again)
}
