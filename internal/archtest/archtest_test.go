package archtest

import (
	"os"
	"strings"
	"testing"
	"testing/fstest"
)

// TestTree holds the whole project to the rules.
func TestTree(t *testing.T) {
	broken, err := Check(os.DirFS("../.."))
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range broken {
		t.Error(b)
	}
}

const ours = Module + "/"

// goFile is a file of the package in dir that imports the given paths.
func goFile(pkg string, imports ...string) string {
	text := "// Package " + pkg + " is for a test.\npackage " + pkg + "\n"
	for _, i := range imports {
		text += "import _ \"" + i + "\"\n"
	}
	return text
}

func lines(n int) string { return strings.Repeat("\n", n) }

// TestCheck breaks each rule once, beside a case that just keeps it.
func TestCheck(t *testing.T) {
	for _, tc := range []struct {
		name, path, text string
		want             string // part of the one complaint; empty: none
	}{
		{"vocabulary alone", "backend/a.go", goFile("backend", "net/netip"), ""},
		{"vocabulary imports policy", "backend/a.go", goFile("backend", ours+"firewall"), "shared by policy and kernel doors"},
		{"vocabulary imports a module", "record/a.go", goFile("record", "golang.org/x/sync/errgroup"), "standard library alone"},
		{"backend imports vocabulary", "backend/nft/a.go", goFile("nft", ours+"backend"), ""},
		{"backend imports the other", "backend/nft/a.go", goFile("nft", ours+"backend/iptables"), "never another backend"},
		{"engine imports capture", "engine/a.go", goFile("engine", ours+"capture"), "knows no kernel and no packet"},
		{"engine imports nftables", "engine/a.go", goFile("engine", "github.com/google/nftables"), "one door"},
		{"firewall imports expr", "firewall/a.go", goFile("firewall", "github.com/expr-lang/expr"), "engine's business"},
		{"firewall's door", "firewall/kernel_other.go", goFile("firewall", ours+"backend/nft"), ""},
		{"firewall beside its door", "firewall/manager.go", goFile("firewall", ours+"backend/nft"), "only its door file"},
		{"capture imports record", "capture/a.go", goFile("capture", ours+"record"), "knows no record"},
		{"decode imports record", "capture/decode/a.go", goFile("decode", ours+"record"), ""},
		{"decode imports capture", "capture/decode/a.go", goFile("decode", ours+"capture"), "bytes into records"},
		{"guard imports main", "internal/guard/a.go", goFile("guard", ours+"cmd/netcap-guard"), "top of the house"},
		{"guard imports a test tool", "internal/guard/a.go", goFile("guard", ours+"internal/nstest"), "tool for tests"},
		{"a test imports a test tool", "engine/a_test.go", goFile("engine", ours+"internal/nstest"), ""},
		{"a test imports the wiring", "engine/a_test.go", goFile("engine", ours+"internal/guard"), "top of the house"},
		{"main imports a backend", "cmd/netcap-guard/a.go", goFile("main", ours+"backend/nft"), "main parses flags"},
		{"netlab imports testing", "internal/netlab/a.go", goFile("netlab", "testing"), "brings its flags"},
		{"netlab imports backend", "internal/netlab/a.go", goFile("netlab", ours+"backend"), "a leaf"},
		{"nstest imports netlab", "internal/nstest/a.go", goFile("nstest", ours+"internal/netlab", "testing"), ""},
		{"nstest imports engine", "internal/nstest/a.go", goFile("nstest", ours+"engine"), "may depend on none"},
		{"demo imports firewall", "internal/demo/a.go", goFile("demo", ours+"firewall"), "from outside"},
		{"a new room", "sniffer/a.go", goFile("sniffer"), "no entry among the walls"},
		{"a new dependency", "engine/a.go", goFile("engine", "github.com/nobody/nothing"), "not in the table"},
		{"cmp in a test", "engine/a_test.go", goFile("engine", "github.com/google/go-cmp/cmp"), ""},
		{"cmp in the program", "engine/a.go", goFile("engine", "github.com/google/go-cmp/cmp"), "belongs in tests"},
		{"unix without the name", "capture/live.go", goFile("capture", "golang.org/x/sys/unix"), "named _linux.go"},
		{"unix behind a tag", "capture/live.go", "//go:build linux\n\n" + goFile("capture", "golang.org/x/sys/unix"), ""},
		{"a door alone", "capture/live_linux.go", goFile("capture", "golang.org/x/sys/unix"), "no counterpart _other.go"},
		{"file at the limit", "engine/a.go", goFile("engine") + lines(398), ""},
		{"file above the limit", "engine/a.go", goFile("engine") + lines(399), "at most 400"},
		{"test file at the limit", "engine/a_test.go", goFile("engine") + lines(698), ""},
		{"test file above the limit", "engine/a_test.go", goFile("engine") + lines(699), "at most 700"},
		{"function at the limit", "engine/a.go", goFile("engine") + "func f() {" + lines(58) + "}", ""},
		{"function above the limit", "engine/a.go", goFile("engine") + "func f() {" + lines(59) + "}", "at most 59"},
		{"table in a test", "engine/a_test.go", goFile("engine") + "func f() { g([]int{" + lines(90) + "}) }", ""},
		{"table in the program", "engine/a.go", goFile("engine") + "func f() { g([]int{" + lines(90) + "}) }", "at most 59"},
		{"func init", "engine/a.go", goFile("engine") + "func init() {}", "func init"},
		{"method init", "engine/a.go", goFile("engine") + "type t int\nfunc (t) init() {}", ""},
		{"no package comment", "engine/a.go", "package engine\n", "no package comment"},
		{"empty name", "capture/util/a.go", goFile("util"), "says nothing"},
		{"default logger", "engine/a.go", goFile("engine") + "import \"log/slog\"\nvar _ = slog.Default()", "logger is a parameter"},
		{"skip", "engine/a_test.go", goFile("engine") + "func f(t T) { t.Skip() }", "passes itself over"},
		{"skip over captures", "engine/a_test.go", goFile("engine") + "// NETCAP_GUARD_CAPTURES\nfunc f(t T) { t.Skip() }", ""},
		{"read-only table", "engine/a.go", goFile("engine") + "var v = map[int]int{1: 2}\nvar _ = v[1]", ""},
		{"written table", "engine/a.go", goFile("engine") + "var v = map[int]int{}\nfunc f() { v[1] = 2 }", "package variable v"},
		{"counter", "engine/a.go", goFile("engine") + "var n int\nfunc f() { n++ }", "package variable n"},
		{"shadowed variable", "engine/a.go", goFile("engine") + "var n = 1\nfunc f() { n := 2; n++ }", ""},
		{"home", "README.md", "see /ho" + "me/me/notes", "path of one machine"},
		{"url", "README.md", "see example.org/wo" + "rk/notes", ""},
		{"unfinished", "engine/a.go", goFile("engine") + "// TO" + "DO later", "finish it"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := Check(fstest.MapFS{tc.path: {Data: []byte(tc.text)}})
			if err != nil {
				t.Fatal(err)
			}
			if tc.want == "" && len(got) > 0 {
				t.Errorf("broken: %q, want none", got)
			}
			if tc.want != "" && (len(got) != 1 || !strings.Contains(got[0], tc.want)) {
				t.Errorf("broken: %q, want one with %q", got, tc.want)
			}
		})
	}
}

func TestOneDoorForEachSystem(t *testing.T) {
	door := goFile("firewall", ours+"backend/nft")
	fsys := fstest.MapFS{
		"firewall/a_linux.go": {Data: []byte(door)},
		"firewall/b_other.go": {Data: []byte(door)},
	}
	if got, err := Check(fsys); err != nil || len(got) > 0 {
		t.Errorf("one door each: %q, %v", got, err)
	}
	fsys["firewall/c_linux.go"] = &fstest.MapFile{Data: []byte(door)}
	if got, err := Check(fsys); err != nil || len(got) != 1 || !strings.Contains(got[0], "more than one door") {
		t.Errorf("two doors for Linux: %q, %v", got, err)
	}
}

// TestVariableOfAnotherFile: a write is found also where the variable stands
// in another file of the package.
func TestVariableOfAnotherFile(t *testing.T) {
	got, err := Check(fstest.MapFS{
		"engine/a.go": {Data: []byte(goFile("engine") + "var n int")},
		"engine/b.go": {Data: []byte("package engine\nfunc f() { n = 1 }")},
	})
	if err != nil || len(got) != 1 || !strings.Contains(got[0], "engine/b.go: writes to package variable n") {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestPassedOver(t *testing.T) {
	bad := &fstest.MapFile{Data: []byte("package util\nfunc init() {}")}
	got, err := Check(fstest.MapFS{"testdata/a.go": bad, ".git/a.go": bad, "vendor/x/a.go": bad, "bin/a.go": bad})
	if err != nil || len(got) > 0 {
		t.Errorf("got %q, %v; want nothing looked at", got, err)
	}
	if _, err := Check(fstest.MapFS{"engine/a.go": {Data: []byte("no Go")}}); err == nil {
		t.Error("a file that does not parse gives no error")
	}
}
