package firewall

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// lockDir holds one lock file for each chain and network namespace. It is
// root's, so that no other user can keep the guard from starting.
const lockDir = "/run/netcap-guard"

// chainLock is the right to manage one chain in one network namespace. The
// kernel gives it back when the process dies, however it dies.
type chainLock struct{ file *os.File }

// lockChain takes the lock, or fails with ErrInUse naming the process that
// has it. Where the lock file cannot be made (a container with a read-only
// /run) it warns and goes on without.
func lockChain(chain string, log *slog.Logger) (*chainLock, error) {
	name, err := lockFile(chain)
	if err == nil {
		err = os.MkdirAll(lockDir, 0o755)
	}
	var f *os.File
	if err == nil {
		f, err = os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	}
	if err != nil {
		log.Warn("no lock against a second guard", "error", err)
		return nil, nil
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		defer f.Close()
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock %s: %w", name, err)
		}
		return nil, fmt.Errorf("chain %s is %w by process %s", chain, ErrInUse, holder(name))
	}
	if err := f.Truncate(0); err == nil {
		_, err = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
		if err != nil {
			log.Warn("lock file without a process number", "file", name, "error", err)
		}
	}
	return &chainLock{f}, nil
}

// lockFile names the lock after the chain and the network namespace of the
// calling thread: the same chain in two namespaces is two chains.
func lockFile(chain string) (string, error) {
	var st syscall.Stat_t
	if err := syscall.Stat("/proc/thread-self/ns/net", &st); err != nil {
		return "", fmt.Errorf("stat network namespace: %w", err)
	}
	return filepath.Join(lockDir, fmt.Sprintf("%s-%d.lock", chain, st.Ino)), nil
}

func holder(name string) string {
	data, err := os.ReadFile(name)
	if pid := strings.TrimSpace(string(data)); err == nil && pid != "" {
		return pid
	}
	return "unknown"
}

// release gives the lock back. The file stays: removing it would let a third
// process lock a new file of the same name beside one who waits on the old.
func (l *chainLock) release() error {
	if l == nil {
		return nil
	}
	return l.file.Close()
}
