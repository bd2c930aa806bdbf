package record_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/netcap-guard/netcap-guard/record"
)

// written lists the fields that the sources of the decoders assign, or hand on
// for somebody else to fill.
func written(t *testing.T, patterns ...string) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	note := func(e ast.Expr) {
		if s, ok := e.(*ast.SelectorExpr); ok {
			names[s.Sel.Name] = true
		}
	}
	for _, pattern := range patterns {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %v", pattern, err)
		}
		for _, name := range files {
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			ast.Inspect(file, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.AssignStmt:
					for _, left := range n.Lhs {
						note(left)
					}
				case *ast.UnaryExpr:
					if n.Op == token.AND {
						note(n.X)
					}
				}
				return true
			})
		}
	}
	return names
}

// TestUnfilled: the table has exactly the fields that no decoder fills.
func TestUnfilled(t *testing.T) {
	packets := written(t, "../capture/decode/*.go")
	from := map[record.Type]map[string]bool{
		record.TypeHTTP: written(t, "../capture/stream/message/http*.go"),
		record.TypeSSH:  written(t, "../capture/stream/message/ssh.go"),
	}
	tls := written(t, "../capture/stream/message/tls*.go")
	from[record.TypeTLSClientHello], from[record.TypeTLSServerHello] = tls, tls
	for _, typ := range record.Types() {
		if !typ.Served() {
			continue
		}
		names, ok := from[typ]
		if !ok {
			names = packets
		}
		var unfilled []string
		fields := reflect.TypeOf(typ.New()).Elem()
		for i := range fields.NumField() {
			if name := fields.Field(i).Name; !names[name] {
				unfilled = append(unfilled, name)
			}
		}
		slices.Sort(unfilled)
		if got := record.Unfilled(typ); !slices.Equal(got, unfilled) {
			t.Errorf("%s: the table has %v, decoders never fill %v", typ, got, unfilled)
		}
	}
}
