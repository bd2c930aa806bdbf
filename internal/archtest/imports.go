package archtest

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
)

// checkImports applies the walls and the table of dependencies to one file.
func checkImports(f *source) []string {
	var broken []string
	w := wallOf(f.dir)
	if w == nil {
		return []string{f.path + ": package " + f.dir + " has no entry among the walls: say what it may import and why"}
	}
	for _, spec := range f.tree.Imports {
		imp, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			continue // the parser accepts only quoted paths
		}
		reason := ""
		if rel, ours := strings.CutPrefix(imp, Module+"/"); ours {
			reason = forbiddenInside(f, w, rel)
		} else if strings.Contains(strings.Split(imp, "/")[0], ".") {
			reason = forbiddenOutside(f, imp)
		} else if imp == "testing" && !f.test && !fits(f.dir, testTools()) {
			reason = "package testing brings its flags into the program"
		}
		if reason != "" {
			broken = append(broken, fmt.Sprintf("%s: imports %s: %s", f.path, imp, reason))
		}
	}
	return broken
}

// forbiddenInside returns why f may not import the module's package rel, or
// the empty string.
func forbiddenInside(f *source, w *wall, rel string) string {
	if rel == f.dir {
		return "" // an external test of the package itself
	}
	if fits(rel, crowns()) && !fits(rel, w.may) {
		return "it is the top of the house; " + w.reason
	}
	if f.test {
		return ""
	}
	if fits(rel, testTools()) && !fits(rel, w.may) {
		return "it is a tool for tests"
	}
	if !fits(rel, w.may) {
		return w.reason
	}
	for _, r := range doorRules() {
		if f.dir == r.dir && slices.Contains(r.imp, rel) && !isDoor(f.path) {
			return r.reason
		}
	}
	return ""
}

// forbiddenOutside returns why f may not import a package of another module.
func forbiddenOutside(f *source, imp string) string {
	for _, d := range dependencies() {
		if imp != d.module && !strings.HasPrefix(imp, d.module+"/") {
			continue
		}
		switch {
		case fits(f.dir, leaves()) && !f.test:
			return "the vocabularies import the standard library alone"
		case !mayUse(f, d.users):
			return d.reason
		case fits(imp, linuxOnly(), "/...") && !f.linux && !tagged(f):
			return "a door to the kernel stands in a file named _linux.go"
		}
		return ""
	}
	return "the module is not in the table of dependencies: decide who may use it and why"
}

func mayUse(f *source, users []string) bool {
	return slices.Contains(users, "*") || f.test && slices.Contains(users, "test") || fits(f.dir, users)
}

// isDoor reports whether the file's name carries the system it is for.
func isDoor(name string) bool {
	stem := strings.TrimSuffix(path.Base(name), ".go")
	return strings.HasSuffix(stem, "_linux") || strings.HasSuffix(stem, "_other")
}

// tagged reports whether a build constraint keeps the file to Linux.
func tagged(f *source) bool {
	for line := range strings.Lines(f.text) {
		if strings.HasPrefix(line, "package ") {
			return false
		}
		if strings.HasPrefix(line, "//go:build linux") {
			return true
		}
	}
	return false
}

func wallOf(dir string) *wall {
	for _, w := range walls() {
		if fits(dir, []string{w.dir}) {
			return &w
		}
	}
	return nil
}

// fits reports whether name is one of the patterns. A pattern that ends in
// /... stands for everything below it; suffixes are tried with every pattern.
func fits(name string, patterns []string, suffixes ...string) bool {
	for _, p := range patterns {
		for _, p := range append([]string{p}, with(p, suffixes)...) {
			above, below := strings.CutSuffix(p, "/...")
			if p == name || below && strings.HasPrefix(name, above+"/") {
				return true
			}
		}
	}
	return false
}

func with(p string, suffixes []string) []string {
	out := make([]string, 0, len(suffixes))
	for _, s := range suffixes {
		out = append(out, p+s)
	}
	return out
}
