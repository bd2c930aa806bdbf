// Package archtest holds the project's rules of construction as code: which
// package may import which, where the doors to the kernel stand, how long a
// file and a function may be. Its test applies them to the whole tree, so a
// change that breaks a wall says so and says why the wall is there.
package archtest

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// Module is the import path of the project.
const Module = "github.com/netcap-guard/netcap-guard"

// source is one Go file, parsed.
type source struct {
	path  string // slash-separated, from the root
	dir   string
	text  string
	tree  *ast.File
	fset  *token.FileSet
	test  bool
	linux bool // compiled on Linux only, by its name
}

// Check reads every file below the root of fsys and returns the broken rules,
// sorted, one line each beginning with the file's or package's path. Hidden
// folders, testdata and build output are passed over. The error is for a tree
// that cannot be read or parsed.
func Check(fsys fs.FS) ([]string, error) {
	files, texts, err := load(fsys)
	if err != nil {
		return nil, err
	}
	var broken []string
	for _, f := range files {
		broken = append(broken, checkImports(f)...)
		broken = append(broken, checkFile(f)...)
	}
	byDir := map[string][]*source{}
	for _, f := range files {
		byDir[f.dir] = append(byDir[f.dir], f)
	}
	for dir, pkg := range byDir {
		broken = append(broken, checkPackage(dir, pkg)...)
	}
	for name, text := range texts {
		broken = append(broken, checkText(name, text)...)
	}
	slices.Sort(broken)
	return broken, nil
}

// load returns the parsed Go files and, by path, every text of the tree.
func load(fsys fs.FS) ([]*source, map[string]string, error) {
	var files []*source
	texts := map[string]string{}
	err := fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if passedOver(name) {
				return fs.SkipDir
			}
			return nil
		}
		if !isText(name) || !d.Type().IsRegular() {
			return nil
		}
		data, err := fs.ReadFile(fsys, name)
		if err != nil {
			return err
		}
		texts[name] = string(data)
		if path.Ext(name) != ".go" {
			return nil
		}
		f, err := parse(name, string(data))
		files = append(files, f)
		return err
	})
	if err != nil {
		return nil, nil, fmt.Errorf("read the tree: %w", err)
	}
	return files, texts, nil
}

func parse(name, text string) (*source, error) {
	f := &source{
		path: name, dir: path.Dir(name), text: text, fset: token.NewFileSet(),
		test:  strings.HasSuffix(name, "_test.go"),
		linux: strings.HasSuffix(strings.TrimSuffix(strings.TrimSuffix(name, ".go"), "_test"), "_linux"),
	}
	var err error
	f.tree, err = parser.ParseFile(f.fset, name, text, parser.ParseComments)
	return f, err
}

func passedOver(dir string) bool {
	base := path.Base(dir)
	return dir != "." && (strings.HasPrefix(base, ".") && base != ".ci" ||
		slices.Contains([]string{"testdata", "vendor", "bin", "dist"}, base))
}

func isText(name string) bool {
	return slices.Contains([]string{"", ".go", ".md", ".yml", ".yaml", ".sh", ".service"}, path.Ext(name)) &&
		!strings.HasSuffix(name, ".test")
}
