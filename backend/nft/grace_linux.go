package nft

import (
	"errors"

	"golang.org/x/sys/unix"
)

// barrierGlobal is MEMBARRIER_CMD_GLOBAL (membarrier(2), Linux 4.3).
const barrierGlobal = 1

// grace waits until every packet that was under way when it was called has
// gone through its hook: the kernel keeps a packet inside one RCU read section
// from the first rule to the last, and this command waits for all of them
// (kernel/sched/membarrier.c calls synchronize_rcu; 5 to 30 ms).
//
// Where the kernel refuses (with nohz_full processors EINVAL, under a seccomp
// filter ENOSYS or EPERM), it does not wait: see Backend.Apply for what that
// means.
func grace() {
	for {
		_, _, errno := unix.Syscall(unix.SYS_MEMBARRIER, barrierGlobal, 0, 0)
		if !errors.Is(errno, unix.EINTR) {
			return
		}
	}
}
