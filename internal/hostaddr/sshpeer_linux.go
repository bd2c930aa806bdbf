package hostaddr

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// maxAncestors bounds the walk to the process that sshd started; sudo, a
// shell and a terminal multiplexer make a handful.
const maxAncestors = 32

// sshPeers looks for SSH_CONNECTION in this process's environment and in its
// ancestors', because sudo drops the variable.
func sshPeers() ([]Entry, error) {
	out := parseSSHConnection(os.Getenv("SSH_CONNECTION"))
	pid := os.Getppid()
	for range maxAncestors {
		if pid <= 1 {
			break
		}
		env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
		if err == nil {
			for v := range bytes.SplitSeq(env, []byte{0}) {
				if value, ok := bytes.CutPrefix(v, []byte("SSH_CONNECTION=")); ok {
					out = append(out, parseSSHConnection(string(value))...)
				}
			}
		}
		pid = parentOf(pid)
	}
	return out, nil
}

// parentOf returns the parent of a process, 0 when it cannot be told. The
// program's name in /proc/PID/stat may hold spaces and parentheses, so the
// fields are counted from the last parenthesis.
func parentOf(pid int) int {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	f := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(f) < 2 {
		return 0
	}
	ppid, err := strconv.Atoi(f[1])
	if err != nil {
		return 0
	}
	return ppid
}
