package engine

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// Limits on what Load reads.
const (
	maxFileSize = 1 << 20 // bytes a file
	maxFiles    = 1000    // files a directory
)

// Source is where rules come from. The zero Source holds none.
type Source struct {
	read func() ([]document, []Problem)
}

// document is one rule file's text.
type document struct {
	name string
	data []byte
}

// Bytes is a rule file held in memory; name stands in the problems found in
// it. The Source keeps data and does not change it.
func Bytes(name string, data []byte) Source {
	return Source{read: func() ([]document, []Problem) {
		if len(data) > maxFileSize {
			return nil, []Problem{tooLarge(name)}
		}
		return []document{{name, data}}, nil
	}}
}

// Path is a rule file, or a directory whose .yml and .yaml files are read in
// the order of their names, not recursively.
func Path(name string) Source {
	return Source{read: func() ([]document, []Problem) {
		info, err := os.Stat(name)
		if err != nil {
			return nil, []Problem{{File: name, Message: "cannot read rules: " + cause(err)}}
		}
		if !info.IsDir() {
			return readAll(os.DirFS(filepath.Dir(name)), []string{filepath.Base(name)}, filepath.Dir(name))
		}
		return readDir(os.DirFS(name), name)
	}}
}

// FS is the .yml and .yaml files at the root of a file system, in the order
// of their names, not recursively. The name stands before theirs in problems.
func FS(fsys fs.FS, name string) Source {
	return Source{read: func() ([]document, []Problem) { return readDir(fsys, name) }}
}

func readDir(fsys fs.FS, dir string) ([]document, []Problem) {
	entries, err := fs.ReadDir(fsys, ".")
	if err != nil {
		return nil, []Problem{{File: dir, Message: "cannot read rules: " + cause(err)}}
	}
	var names []string
	for _, e := range entries {
		ext := strings.ToLower(path.Ext(e.Name()))
		if !e.IsDir() && (ext == ".yml" || ext == ".yaml") && !strings.HasPrefix(e.Name(), ".") {
			names = append(names, e.Name())
		}
	}
	if len(names) > maxFiles {
		return nil, []Problem{{File: dir, Message: fmt.Sprintf("more than %d rule files", maxFiles)}}
	}
	slices.Sort(names)
	return readAll(fsys, names, dir)
}

// readAll reads the named files; one that cannot be read does not keep the
// others from being checked.
func readAll(fsys fs.FS, names []string, dir string) ([]document, []Problem) {
	var docs []document
	var errs []Problem
	for _, n := range names {
		shown := filepath.Join(dir, n)
		data, err := readFile(fsys, n)
		switch {
		case err != nil:
			errs = append(errs, Problem{File: shown, Message: "cannot read rules: " + cause(err)})
		case len(data) > maxFileSize:
			errs = append(errs, tooLarge(shown))
		default:
			docs = append(docs, document{shown, data})
		}
	}
	return docs, errs
}

func readFile(fsys fs.FS, name string) ([]byte, error) {
	f, err := fsys.Open(name)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFileSize+1))
	return data, errors.Join(err, f.Close())
}

func tooLarge(name string) Problem {
	return Problem{File: name, Message: fmt.Sprintf("rule file is larger than %d bytes", maxFileSize),
		Hint: "split it into several files of one folder"}
}

// cause strips the path that an *fs.PathError repeats.
func cause(err error) string {
	if pe, ok := errors.AsType[*fs.PathError](err); ok {
		return pe.Err.Error()
	}
	return err.Error()
}
