package firewall

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/netcap-guard/netcap-guard/backend"
)

// The file is text, a line each subject, so that a person can read and prune
// it:
//
//	netcap-guard escalation 1
//	source 192.0.2.1/32 1764000000 1764003600
//
// A target, a prefix, and the times of its blocks in Unix seconds, ascending.
const (
	escalationHeader = "netcap-guard escalation 1"
	// maxEscalationFile bounds what is read: a million lines of 256 bytes.
	maxEscalationFile = 256 << 20
)

// encodeEscalations writes the file.
func encodeEscalations(w io.Writer, list []remembered) error {
	buf := bufio.NewWriterSize(w, 1<<16)
	_, _ = buf.WriteString(escalationHeader + "\n") // the writer keeps its error for Flush
	var line []byte
	for _, r := range list {
		line = append(append(line[:0], r.Target.String()...), ' ')
		line = r.Prefix.AppendTo(line)
		for _, t := range r.Times {
			line = strconv.AppendInt(append(line, ' '), t, 10)
		}
		_, _ = buf.Write(append(line, '\n'))
	}
	return buf.Flush()
}

// decodeEscalations reads what encodeEscalations wrote, and refuses anything
// else: a file that is half right is wrong.
func decodeEscalations(data []byte) ([]remembered, error) {
	header, data, ok := bytes.Cut(data, []byte("\n"))
	if !ok || string(header) != escalationHeader {
		return nil, fmt.Errorf("%w: the first line is not %q", backend.ErrInvalid, escalationHeader)
	}
	var out []remembered
	seen := make(map[whom]bool)
	for n := 2; len(data) > 0; n++ {
		var line []byte
		var one remembered
		line, data, ok = bytes.Cut(data, []byte("\n"))
		err := fmt.Errorf("%w: it has no end", backend.ErrInvalid)
		if ok {
			one, err = decodeEscalation(string(line))
		}
		if err == nil && seen[one.whom] {
			err = fmt.Errorf("%w: %s %v twice", backend.ErrInvalid, one.Target, one.Prefix)
		}
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		seen[one.whom] = true
		out = append(out, one)
	}
	return out, nil
}

func decodeEscalation(line string) (r remembered, err error) {
	words := strings.Split(line, " ")
	if len(words) < 3 || len(words) > 2+MaxEscalation {
		return r, fmt.Errorf("%w: %d words", backend.ErrInvalid, len(words))
	}
	if r.Target, err = backend.ParseTarget(words[0]); err != nil || words[0] != r.Target.String() {
		return r, fmt.Errorf("%w: target %q", backend.ErrInvalid, words[0])
	}
	if r.Prefix, err = netip.ParsePrefix(words[1]); err != nil || words[1] != r.Prefix.String() {
		return r, fmt.Errorf("%w: prefix %q", backend.ErrInvalid, words[1])
	}
	if canon, err := backend.Canonical(r.Prefix); err != nil || canon != r.Prefix {
		return r, fmt.Errorf("%w: prefix %q is not canonical", backend.ErrInvalid, words[1])
	}
	for _, w := range words[2:] {
		t, err := strconv.ParseInt(w, 10, 64)
		if err != nil || w != strconv.FormatInt(t, 10) {
			return r, fmt.Errorf("%w: time %q", backend.ErrInvalid, w)
		}
		if n := len(r.Times); n > 0 && t < r.Times[n-1] {
			return r, fmt.Errorf("%w: time %q comes before the one in front of it", backend.ErrInvalid, w)
		}
		r.Times = append(r.Times, t)
	}
	return r, nil
}

// saveEvery is the least time between two writes of the file.
const saveEvery = 5 * time.Second

// keeper writes the escalations to their file, on a goroutine of its own.
type keeper struct {
	table  *escalations
	file   string
	now    func() time.Time
	log    *slog.Logger
	failed atomic.Uint64
	said   bool // that the file cannot be read or written; run's own
	loaded bool // what the file had is in the table; run's own
	wake   chan struct{}
}

// newKeeper loads what an earlier run remembered, and finds out whether it can
// be written. A file whose content is not ours is kept aside, under its name
// with .broken and the time, and the table begins empty. One that cannot be
// read is left as it is until it can.
func newKeeper(table *escalations, file string, now func() time.Time, log *slog.Logger) *keeper {
	k := &keeper{table: table, file: file, now: now, log: log, wake: make(chan struct{}, 1)}
	if err := k.load(); err != nil {
		k.warn("what was remembered of earlier blocks cannot be read: the escalation begins anew", err)
	}
	if err := tryDirectory(filepath.Dir(file)); err != nil {
		k.warn("what is remembered of blocks cannot be written: with the guard it is forgotten", err)
	}
	return k
}

// warn says once that something is wrong with the file.
func (k *keeper) warn(what string, err error) {
	if !k.said {
		k.said = true
		k.log.Warn(what, "file", k.file, "error", err)
	}
}

// load reads the file into the table, if that was not done yet.
func (k *keeper) load() error {
	if k.loaded {
		return nil
	}
	list, err := readEscalations(k.file)
	switch {
	case err == nil:
		k.table.load(list, k.now())
	case errors.Is(err, fs.ErrNotExist):
	case errors.Is(err, backend.ErrInvalid):
		aside := k.file + ".broken-" + k.now().UTC().Format("20060102T150405.000Z")
		if err := os.Rename(k.file, aside); err != nil {
			return fmt.Errorf("keep a broken file aside: %w", err)
		}
		k.log.Warn("what was remembered of earlier blocks is broken: the escalation begins anew", "file", k.file, "kept_as", aside, "error", err)
	default:
		return err
	}
	k.loaded = true
	return nil
}

// tryDirectory reports why no file can be written to a directory, which it
// makes if it is missing.
func tryDirectory(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, ".try-*")
	if err != nil {
		return err
	}
	return errors.Join(f.Close(), os.Remove(f.Name()))
}

func readEscalations(file string) ([]remembered, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(f, maxEscalationFile+1))
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	if len(data) > maxEscalationFile {
		return nil, fmt.Errorf("%w: more than %d bytes", backend.ErrInvalid, maxEscalationFile)
	}
	return decodeEscalations(data)
}

// changed has the file written soon.
func (k *keeper) changed() {
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// run writes the file when something has changed: at once, so that a crash
// forgets little, but at most every saveEvery, and a last time when ctx ends.
func (k *keeper) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			k.save()
			return
		case <-k.wake:
		}
		k.save()
		pause := time.NewTimer(saveEvery)
		select {
		case <-ctx.Done():
		case <-pause.C:
		}
		pause.Stop()
	}
}

// save writes the file if anything has changed, over none that was not read. A
// failure is counted, said once, and tried again with the next change.
func (k *keeper) save() {
	err := k.load()
	list, changed := k.table.copy(k.now())
	if !changed {
		return
	}
	if err == nil {
		err = writeFile(k.file, func(w io.Writer) error { return encodeEscalations(w, list) })
	}
	if err != nil {
		k.table.touch()
		k.failed.Add(1)
		k.warn("what is remembered of blocks could not be written", err)
	}
}

// writeFile replaces a file in one step, for its owner alone: who reads it
// sees the old or the new one, also after a loss of power.
func writeFile(name string, write func(io.Writer) error) (err error) {
	dir := filepath.Dir(name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, "."+filepath.Base(name)+"-*") // mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	if err := errors.Join(write(f), f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), name); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return nil //nolint:nilerr // the file is written; only its name may not survive a loss of power
	}
	_ = d.Sync() // not every file system can
	return d.Close()
}
