package archtest

import (
	"fmt"
	"go/ast"
	"go/token"
	"path"
	"regexp"
	"slices"
	"strings"
)

// checkFile applies the rules that one file can break alone.
func checkFile(f *source) []string {
	var broken []string
	limit := maxFile
	if f.test {
		limit = maxTestFile
	}
	if n := strings.Count(f.text, "\n"); n > limit {
		broken = append(broken, fmt.Sprintf("%s: %d lines, at most %d: split it by noun", f.path, n, limit))
	}
	for _, d := range f.tree.Decls {
		fn, ok := d.(*ast.FuncDecl)
		if !ok {
			continue
		}
		if fn.Recv == nil && fn.Name.Name == "init" {
			broken = append(broken, f.path+": func init: nothing happens before main asks for it")
		}
		n := f.lines(fn)
		if f.test {
			n -= f.tables(fn)
		}
		if n > maxFunc {
			broken = append(broken, fmt.Sprintf("%s: func %s has %d lines, at most %d", f.path, fn.Name.Name, n, maxFunc))
		}
	}
	return append(broken, checkCalls(f)...)
}

// lines is how many lines a node stands on.
func (f *source) lines(n ast.Node) int {
	return f.fset.Position(n.End()).Line - f.fset.Position(n.Pos()).Line + 1
}

// tables is how many lines of a test function are table: a case more makes a
// test better, not longer.
func (f *source) tables(fn *ast.FuncDecl) int {
	sum := 0
	ast.Inspect(fn, func(n ast.Node) bool {
		lit, ok := n.(*ast.CompositeLit)
		if ok {
			sum += f.lines(lit) - 1
		}
		return !ok
	})
	return sum
}

// checkCalls finds calls that a library must not make and tests that pass
// themselves over.
func checkCalls(f *source) []string {
	var broken []string
	ast.Inspect(f.tree, func(n ast.Node) bool {
		sel, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		on, ok := sel.X.(*ast.Ident)
		if !ok {
			return true
		}
		switch name := on.Name + "." + sel.Sel.Name; name {
		case "slog.Default", "slog.SetDefault":
			if !f.test && !strings.HasPrefix(f.dir, "cmd/") {
				broken = append(broken, f.path+": "+name+": the logger is a parameter")
			}
		case "t.Skip", "t.Skipf", "t.SkipNow", "b.Skip", "b.Skipf", "tb.Skip", "tb.Skipf":
			if !strings.Contains(f.text, captures) {
				broken = append(broken, f.path+": "+name+": a test that passes itself over proves nothing; only those over "+captures+" may")
			}
		}
		return true
	})
	return broken
}

// captures is the variable that names the folder of captures; without it the
// tests over that folder, and no others, may be passed over.
const captures = "NETCAP_GUARD_CAPTURES"

// checkPackage applies the rules about a package as a whole.
func checkPackage(dir string, pkg []*source) []string {
	var broken []string
	if slices.Contains(emptyNames(), path.Base(dir)) {
		broken = append(broken, dir+": the name says nothing about what is inside")
	}
	documented, linux, other, onlyTests := false, "", false, true
	doors := map[string][]string{}
	for _, f := range pkg {
		onlyTests = onlyTests && f.test
	}
	for _, f := range pkg {
		if !f.test || onlyTests {
			documented = documented || f.tree.Doc.Text() != ""
		}
		if f.test {
			continue
		}
		if f.linux {
			linux = f.path
		}
		other = other || strings.HasSuffix(f.path, "_other.go")
		for _, r := range doorRules() {
			if r.dir == dir && importsAny(f, r.imp) {
				doors[system(f.path)] = append(doors[system(f.path)], f.path)
			}
		}
	}
	if !documented {
		broken = append(broken, dir+": no package comment")
	}
	if linux != "" && !other {
		broken = append(broken, linux+": has no counterpart _other.go: the package must build and say so on other systems")
	}
	for _, files := range doors {
		if len(files) > 1 {
			broken = append(broken, fmt.Sprintf("%s: more than one door for a system: %v", dir, files))
		}
	}
	return append(broken, checkVariables(pkg)...)
}

// system is what a door file's name says after the last underscore.
func system(name string) string {
	return strings.TrimSuffix(name[strings.LastIndex(name, "_")+1:], ".go")
}

func importsAny(f *source, rels []string) bool {
	return slices.ContainsFunc(f.tree.Imports, func(i *ast.ImportSpec) bool {
		return slices.Contains(rels, strings.TrimPrefix(strings.Trim(i.Path.Value, `"`), Module+"/"))
	})
}

// checkVariables reports every package variable that some function writes to.
func checkVariables(pkg []*source) []string {
	vars := map[string]*ast.ValueSpec{}
	for _, f := range pkg {
		if f.test {
			continue
		}
		for _, d := range f.tree.Decls {
			gen, ok := d.(*ast.GenDecl)
			if !ok || gen.Tok != token.VAR {
				continue
			}
			for _, s := range gen.Specs {
				if spec, ok := s.(*ast.ValueSpec); ok {
					for _, n := range spec.Names {
						vars[n.Name] = spec
					}
				}
			}
		}
	}
	var broken []string
	for _, f := range pkg {
		ast.Inspect(f.tree, func(n ast.Node) bool {
			for _, target := range written(n) {
				if id := root(target); id != nil && isPackageVar(id, vars) {
					broken = append(broken, fmt.Sprintf("%s: writes to package variable %s: state belongs to a value somebody owns", f.path, id.Name))
				}
			}
			return true
		})
	}
	return broken
}

// written returns the expressions that a statement writes to.
func written(n ast.Node) []ast.Expr {
	switch s := n.(type) {
	case *ast.AssignStmt:
		if s.Tok != token.DEFINE {
			return s.Lhs
		}
	case *ast.IncDecStmt:
		return []ast.Expr{s.X}
	}
	return nil
}

// root is the variable at the bottom of x[i], x.f, *x and the like.
func root(e ast.Expr) *ast.Ident {
	for {
		switch x := e.(type) {
		case *ast.Ident:
			return x
		case *ast.IndexExpr:
			e = x.X
		case *ast.SelectorExpr:
			e = x.X
		case *ast.StarExpr:
			e = x.X
		case *ast.ParenExpr:
			e = x.X
		default:
			return nil
		}
	}
}

// isPackageVar tells a package variable from a local of the same name: the
// parser resolves locals and the variables of the same file, and leaves those
// of other files open.
func isPackageVar(id *ast.Ident, vars map[string]*ast.ValueSpec) bool {
	spec, ok := vars[id.Name]
	return ok && id.Name != "_" && (id.Obj == nil || id.Obj.Decl == spec)
}

// checkText applies to every text of the tree.
func checkText(name, text string) []string {
	var broken []string
	machine, open := machinePath(), unfinished()
	for i, line := range strings.Split(text, "\n") {
		if found := machine.FindString(line); found != "" {
			broken = append(broken, fmt.Sprintf("%s:%d: path of one machine: %s", name, i+1, found))
		}
		if found := open.FindString(line); found != "" && strings.HasSuffix(name, ".go") {
			broken = append(broken, fmt.Sprintf("%s:%d: %s: finish it or say in an error what cannot be done", name, i+1, found))
		}
	}
	return broken
}

// machinePath matches homes and work folders of somebody's machine. The
// classes of one letter keep the patterns from matching themselves.
func machinePath() *regexp.Regexp {
	return regexp.MustCompile(`(^|[^\w.])/([h]ome/\w+/|[w]ork/|[U]sers/\w+/|[r]oot/go)`)
}

func unfinished() *regexp.Regexp {
	return regexp.MustCompile(`\b([T]ODO|[F]IXME|[X]XX)\b`)
}
