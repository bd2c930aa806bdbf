package allowlist

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Limits of what Load reads.
const (
	// MaxPrefixes is how many addresses and CIDRs all files together hold.
	MaxPrefixes = 100_000
	// MaxNames is how many DNS names all files together hold.
	MaxNames    = 1_000
	maxFiles    = 256
	maxFile     = 8 << 20
	maxProblems = 100
)

// Problem is a mistake in a whitelist file.
type Problem struct {
	File string // the path
	Line int    // from 1; 0: the file as a whole
	Err  error
}

// Error is "file:line: what is wrong".
func (p Problem) Error() string {
	if p.Line == 0 {
		return fmt.Sprintf("%s: %v", p.File, p.Err)
	}
	return fmt.Sprintf("%s:%d: %v", p.File, p.Line, p.Err)
}

// Unwrap is the cause.
func (p Problem) Unwrap() error { return p.Err }

// Load reads the files *.txt of a directory, in the order of their names and
// without descending: one address, CIDR or DNS name a line, # begins a comment.
// It returns the prefixes (canonical, sorted, each once), the names (in lower
// case, in the order of the files, each once) and every mistake; what is right
// is returned beside the mistakes. A directory that does not exist is empty.
// The caller owns the slices.
func Load(dir string) ([]netip.Prefix, []string, []Problem) {
	var l loader
	files, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		l.problem(dir, 0, err)
	}
	files = slices.DeleteFunc(files, func(f fs.DirEntry) bool { return filepath.Ext(f.Name()) != ".txt" })
	if len(files) > maxFiles {
		l.problem(dir, 0, fmt.Errorf("more than %d files: the rest is not read", maxFiles))
		files = files[:maxFiles]
	}
	for _, f := range files {
		name := filepath.Join(dir, f.Name())
		data, err := read(name)
		if err != nil {
			l.problem(name, 0, err)
			continue
		}
		l.file(name, data)
	}
	slices.SortFunc(l.prefixes, netip.Prefix.Compare)
	return l.prefixes, l.names, l.problems
}

// read returns what a regular file holds: a pipe would make the guard wait.
func read(name string) ([]byte, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, cause(err)
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("not a regular file")
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, cause(err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, cause(err)
	}
	if len(data) > maxFile {
		return nil, fmt.Errorf("larger than %d bytes: not a whitelist", maxFile)
	}
	return data, nil
}

// cause takes the path off an error, which a Problem names already.
func cause(err error) error {
	if p, ok := errors.AsType[*fs.PathError](err); ok {
		return fmt.Errorf("%s: %w", p.Op, p.Err)
	}
	return err
}

// loader gathers what the files hold.
type loader struct {
	prefixes []netip.Prefix
	names    []string
	problems []Problem
	had      map[string]bool // the canonical form of each entry
}

// problem notes a mistake; of very many the first.
func (l *loader) problem(file string, line int, err error) {
	switch n := len(l.problems); {
	case n < maxProblems-1:
		l.problems = append(l.problems, Problem{file, line, err})
	case n == maxProblems-1:
		l.problems = append(l.problems, Problem{file, line, errors.New("too many mistakes: this one and the rest are not listed")})
	}
}

func (l *loader) file(name string, data []byte) {
	data = bytes.TrimPrefix(data, []byte("\ufeff")) // the mark that Windows editors leave
	sc := bufio.NewScanner(bytes.NewReader(data))
	sc.Buffer(nil, maxFile+1)
	for line := 1; sc.Scan(); line++ {
		text, _, _ := strings.Cut(sc.Text(), "#")
		fields := strings.Fields(text)
		if len(fields) == 0 {
			continue
		}
		if len(fields) > 1 {
			l.problem(name, line, fmt.Errorf("%s: one entry a line (# begins a comment)", quote(strings.TrimSpace(text))))
			continue
		}
		if err := l.add(fields[0]); err != nil {
			l.problem(name, line, err)
		}
	}
	if err := sc.Err(); err != nil {
		l.problem(name, 0, err)
	}
}

func (l *loader) add(entry string) error {
	p, name, err := Parse(entry)
	if err != nil {
		return err
	}
	key := name
	if name == "" {
		key = p.String()
	}
	if l.had[key] {
		return nil
	}
	switch {
	case name != "" && len(l.names) >= MaxNames:
		return fmt.Errorf("more than %d DNS names: %s is left out", MaxNames, quote(name))
	case name != "":
		l.names = append(l.names, name)
	case len(l.prefixes) >= MaxPrefixes:
		return fmt.Errorf("more than %d addresses and CIDRs: %v is left out", MaxPrefixes, p)
	default:
		l.prefixes = append(l.prefixes, p)
	}
	if l.had == nil {
		l.had = map[string]bool{}
	}
	l.had[key] = true
	return nil
}
