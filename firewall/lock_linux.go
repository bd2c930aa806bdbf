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
	var l *chainLock
	if err == nil {
		l, err = lockNamed(chain, name)
	}
	switch {
	case errors.Is(err, ErrInUse):
		return nil, err
	case err != nil:
		log.Warn("no lock against a second guard", "error", err)
		return nil, nil
	}
	if _, err := l.file.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0); err != nil {
		log.Warn("lock file without a process number", "file", name, "error", err)
	}
	return l, nil
}

// lockNamed opens and locks the file of that name. Its owner removes the file
// before he lets go of it: who waited for that file holds a lock on a file
// without a name, which excludes nobody, and tries again.
func lockNamed(chain, name string) (*chainLock, error) {
	for {
		f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return nil, err
		}
		if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
			_ = f.Close() // nothing was written
			if !errors.Is(err, syscall.EWOULDBLOCK) {
				return nil, fmt.Errorf("lock %s: %w", name, err)
			}
			return nil, fmt.Errorf("chain %s is %w by process %s", chain, ErrInUse, holder(name))
		}
		mine, err := f.Stat()
		if err != nil {
			return nil, errors.Join(err, f.Close())
		}
		if named, err := os.Stat(name); err == nil && os.SameFile(mine, named) {
			return &chainLock{f}, nil
		}
		_ = f.Close() // nothing was written
	}
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

// release gives the lock back and leaves no file behind.
func (l *chainLock) release() error {
	if l == nil {
		return nil
	}
	return errors.Join(os.Remove(l.file.Name()), l.file.Close())
}
