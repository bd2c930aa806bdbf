package nft_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// besideEnv is set in the processes that beside starts.
const besideEnv = "NETCAP_GUARD_TEST_BESIDE"

// beside runs the calling test in processes of their own, all at once, each in a
// network namespace of its own, beside those of other tests: most of what the
// contract takes is waiting. Each part is a pattern of subtests to run, and
// behind a minus one of what to leave out of them. It reports true in such a
// process, where the test is to be done.
func beside(t *testing.T, parts ...string) bool {
	t.Helper()
	if os.Getenv(besideEnv) != "" {
		return true
	}
	t.Parallel()
	var all sync.WaitGroup
	for _, part := range parts {
		run, skip, _ := strings.Cut(part, " - ")
		args := []string{"-test.v", "-test.run=^" + t.Name() + "$" + run}
		if skip != "" {
			args = append(args, "-test.skip=^"+t.Name()+"$"+skip)
		}
		all.Go(func() {
			if out, err := elsewhere(t, args); err != nil {
				t.Errorf("%s: %v\n%s", args, err, out)
			}
		})
	}
	all.Wait()
	return false
}

// elsewhere runs this test binary again.
func elsewhere(t *testing.T, args []string) (string, error) {
	exe, err := os.Executable()
	if err != nil {
		return "", err
	}
	ctx := t.Context()
	if end, ok := t.Deadline(); ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, end.Add(-5*time.Second))
		defer cancel()
	}
	cmd := exec.CommandContext(ctx, exe, args...)
	// Without the mark of nstest it makes itself a namespace.
	cmd.Env = append(slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, "NETCAP_GUARD_TEST_NETNS_FROM=")
	}), besideEnv+"=1")
	out, err := cmd.CombinedOutput()
	switch text := string(out); {
	case err != nil:
		return text, err
	case !strings.Contains(text, "--- PASS: "), strings.Contains(text, "--- SKIP"):
		return text, errors.New("nothing was tested, or not all")
	}
	return "", nil
}
