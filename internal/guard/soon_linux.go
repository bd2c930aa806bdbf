package guard

import (
	"time"

	"golang.org/x/sys/unix"
)

// slice is how long the scheduler lets a thread run that is to start soon:
// since Linux 6.12 a thread that asks for shorter slices than others goes
// before them when it wakes, and gets no more of the processor for it
// (sched(7), sched_runtime of SCHED_OTHER). Earlier kernels ignore it. It is
// the shortest that the kernel takes.
const slice = 100 * time.Microsecond

// soon has the calling thread, to which the goroutine is locked, start without
// delay when it wakes; what it starts itself (iptables) does not inherit that.
// Its priority stays what the administrator made it: with a higher one, whoever
// makes blocks in a flood would keep the packets from being read.
func soon() {
	attr, err := unix.SchedGetAttr(0, 0)
	if err != nil || attr.Policy != unix.SCHED_NORMAL {
		return // somebody has thought of another policy
	}
	attr.Runtime, attr.Flags = uint64(slice), attr.Flags|unix.SCHED_FLAG_RESET_ON_FORK
	_ = unix.SchedSetAttr(0, attr, 0) // it is a matter of speed alone
}
