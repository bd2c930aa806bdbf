package evidence

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/netcap-guard/netcap-guard/capture"
)

// A file is named 20260102T030405.678901Z_192.0.2.1_block-ssh-brute-force.pcapng:
// the time of the packet that led to the block, whom it blocks, and the rule.
const (
	timeFormat = "20060102T150405.000000Z"
	suffix     = ".pcapng"
	// temporary files begin so; they are none of ours once they are whole.
	temporary = ".evidence-"
	// stale is how old a temporary file is that nobody is writing any more.
	stale = time.Hour
	// maxSlug bounds the rule's part of a name.
	maxSlug = 64
	// failRest is the least time between two lines about failures.
	failRest = time.Minute
)

// ours tells our files from those of others, which are left alone.
func ours() *regexp.Regexp {
	return regexp.MustCompile(`^\d{8}T\d{6}\.\d{6}Z_[0-9a-f.p-]+_[0-9a-z-]*\.pcapng$`)
}

// directory holds files, the oldest of which give way.
type directory struct {
	cfg Config

	mu     sync.Mutex // guards what follows; held while a file is written
	files  []file     // the oldest first
	bytes  int64
	counts Stats
	told   time.Time // when a failure was told of last
}

type file struct {
	name string
	size int64
	at   time.Time // of its last change
}

// open makes the directory and finds the files that are in it.
func (d *directory) open(cfg Config) error {
	d.cfg = cfg
	if err := os.MkdirAll(cfg.Directory, 0o700); err != nil {
		return err
	}
	list, err := os.ReadDir(cfg.Directory)
	if err != nil {
		return err
	}
	own := ours()
	for _, e := range list {
		info, err := e.Info()
		if err != nil || !info.Mode().IsRegular() {
			continue // gone meanwhile, or nothing that we write
		}
		switch {
		case own.MatchString(e.Name()):
			d.files = append(d.files, file{e.Name(), info.Size(), info.ModTime()})
			d.bytes += info.Size()
		case strings.HasPrefix(e.Name(), temporary) && time.Since(info.ModTime()) > stale:
			_ = os.Remove(filepath.Join(cfg.Directory, e.Name())) // it is in nobody's way
		}
	}
	slices.SortFunc(d.files, func(a, b file) int { return cmp.Or(a.at.Compare(b.at), strings.Compare(a.name, b.name)) })
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.evict()
}

// path is where a case's file is to be.
func (d *directory) path(c Case) string {
	name := c.At.UTC().Format(timeFormat) + "_" + prefixPart(c.Prefix) + "_" + slug(c.Rule) + suffix
	return filepath.Join(d.cfg.Directory, name)
}

// prefixPart is the address or the prefix as a name has it.
func prefixPart(p netip.Prefix) string {
	s := strings.ReplaceAll(p.Addr().Unmap().String(), ":", "-")
	if !p.IsSingleIP() {
		s += fmt.Sprintf("p%d", p.Bits())
	}
	return s
}

// slug is a rule's name with nothing in it that a file's name should not have.
func slug(rule string) string {
	var b strings.Builder
	for _, r := range strings.ToLower(rule) {
		if b.Len() == maxSlug {
			break
		}
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			b.WriteRune(r)
		} else if s := b.String(); s != "" && !strings.HasSuffix(s, "-") {
			b.WriteByte('-')
		}
	}
	return strings.TrimSuffix(b.String(), "-")
}

// write writes the packets of a case, and makes room for them.
func (d *directory) write(c named, packets []found) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	size, err := d.create(c, packets)
	if err == nil {
		d.counts.Written++
		name := filepath.Base(c.file)
		d.files = slices.DeleteFunc(d.files, func(f file) bool {
			if f.name == name {
				d.bytes -= f.size // it was replaced
			}
			return f.name == name
		})
		d.files = append(d.files, file{name: name, size: size})
		d.bytes += size
		err = d.evict()
	} else {
		d.counts.Failed++
	}
	if err != nil && (d.told.IsZero() || time.Since(d.told) > failRest) {
		d.told = time.Now()
		d.cfg.Log.Warn("evidence", "error", err)
	}
	return err == nil
}

// create writes one file and returns its size. Who lists the directory sees it
// only when it is whole.
func (d *directory) create(c named, packets []found) (size int64, err error) {
	f, err := os.CreateTemp(d.cfg.Directory, temporary+"*") // 0600
	if err != nil {
		return 0, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	out := &counted{f: f}
	err = errors.Join(fill(out, c, packets, d.cfg.Application), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), c.file)
	}
	return out.n, err
}

// counted counts what is written.
type counted struct {
	f *os.File
	n int64
}

func (c *counted) Write(p []byte) (int, error) {
	n, err := c.f.Write(p)
	c.n += int64(n)
	return n, err
}

// fill writes the packets; the one that led to the block carries the rule's
// name as the section does.
func fill(out *counted, c named, packets []found, application string) error {
	w, err := capture.NewPcapngWriter(out, capture.PcapngSection{Application: application, Comment: c.Rule})
	if err != nil {
		return err
	}
	for i := range packets {
		comment := ""
		if packets[i].crossed {
			comment = c.Rule
		}
		if err := w.Write(&packets[i].Packet, comment); err != nil {
			return err
		}
	}
	return nil
}

// evict removes the oldest files until the rest is within bounds; the newest
// stays. It runs with mu held.
func (d *directory) evict() error {
	for len(d.files) > 1 && (len(d.files) > d.cfg.Files || d.bytes > d.cfg.Bytes) {
		oldest := d.files[0]
		err := os.Remove(filepath.Join(d.cfg.Directory, oldest.name))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		d.files, d.bytes = d.files[1:], d.bytes-oldest.size
		d.counts.Evicted++
	}
	return nil
}

func (d *directory) stats() Stats {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.counts
	s.Files, s.Bytes = uint64(len(d.files)), uint64(max(d.bytes, 0))
	return s
}

// Files are the paths of the directory's files about exactly this prefix, the
// oldest packet's first; none where there is no directory.
func Files(dir string, p netip.Prefix) ([]string, error) {
	list, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("evidence: %w", err)
	}
	var out []string
	own, part := ours(), "_"+prefixPart(p.Masked())+"_"
	for _, e := range list { // in the order of their names
		if own.MatchString(e.Name()) && strings.Contains(e.Name(), part) {
			out = append(out, filepath.Join(dir, e.Name()))
		}
	}
	return out, nil
}
