package capture_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/netcap-guard/netcap-guard/capture"
)

// asleep waits until the thread waits in the kernel.
func asleep(t *testing.T, thread int) {
	t.Helper()
	for limit := time.Now().Add(10 * time.Second); time.Now().Before(limit); runtime.Gosched() {
		data, err := os.ReadFile(fmt.Sprintf("/proc/self/task/%d/stat", thread))
		if err != nil {
			t.Fatal(err)
		}
		// pid (name) state ...; the name may hold anything.
		if _, state, _ := strings.Cut(string(data[strings.LastIndexByte(string(data), ')'):]), " "); state[0] == 'S' {
			return
		}
	}
	t.Fatal("Next does not wait")
}

// TestLiveEndsWithoutAnyPacket: who waits for the packets of a silent interface
// is woken by Close and by Finish themselves, whatever worker it is; no packet
// comes that could do it.
func TestLiveEndsWithoutAnyPacket(t *testing.T) {
	silent, _ := pair(t)
	for _, tt := range []struct {
		name string
		end  func(capture.LiveSource) error
		want error
	}{
		{"Close", capture.LiveSource.Close, os.ErrClosed},
		{"Finish", capture.LiveSource.Finish, io.EOF},
	} {
		for _, iface := range []string{silent, capture.AnyInterface} {
			t.Run(tt.name+" on "+iface, func(t *testing.T) {
				// Nothing at all, not even what the kernel itself says on a new interface.
				nothing := []bpf.RawInstruction{{Op: unix.BPF_RET | unix.BPF_K}}
				all, err := capture.OpenWorkers(capture.LiveConfig{Interface: iface, Workers: 2, RingBytes: 1 << 20, Filter: nothing})
				if err != nil {
					t.Fatal(err)
				}
				for _, src := range all {
					t.Cleanup(func() { _ = src.Close() })
					thread, done := make(chan int), make(chan error, 1)
					go func() {
						runtime.LockOSThread()
						defer runtime.UnlockOSThread()
						thread <- unix.Gettid()
						done <- src.Next(new(capture.Packet))
					}()
					asleep(t, <-thread)
					if err := tt.end(src); err != nil {
						t.Error(err)
					}
					select {
					case err := <-done:
						if !errors.Is(err, tt.want) {
							t.Errorf("Next: %v, want %v", err, tt.want)
						}
					case <-time.After(10 * time.Second):
						t.Fatal("Next still waits")
					}
					if s := src.Stats(); s != (capture.Stats{}) {
						t.Errorf("there were packets: %+v", s)
					}
				}
			})
		}
	}
}
