package allowlist

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	for _, tt := range []struct{ name, in, want string }{
		{"address", "192.0.2.1", "192.0.2.1/32"},
		{"IPv6", "2001:DB8::1", "2001:db8::1/128"},
		{"mapped", "::ffff:192.0.2.1", "192.0.2.1/32"},
		{"CIDR", "192.0.2.0/24", "192.0.2.0/24"},
		{"host bits", "192.0.2.9/24", "192.0.2.0/24"},
		{"mapped CIDR", "::ffff:192.0.2.9/120", "192.0.2.0/24"},
		{"mapped CIDR too short", "::ffff:192.0.2.9/90", "!96 to 128"},
		{"everything", "0.0.0.0/0", "!every address"},
		{"everything, IPv6", "::/0", "!every address"},
		{"everything, mapped", "::ffff:0.0.0.0/96", "!every address"},
		{"zone", "fe80::1%eth0", "!zone"},
		{"zone in a CIDR", "fe80::1%eth0/64", "!not a CIDR"},
		{"length out of range", "192.0.2.0/33", "!not a CIDR"},
		{"URL", "https://example.org/", "!not a CIDR"},
		{"name", "Example.ORG", "example.org"},
		{"name with a final dot", "example.org.", "example.org."},
		{"one label", "bastion", "bastion"},
		{"underscore", "_x.example.org", "_x.example.org"},
		{"begins with digits", "1.example.org", "1.example.org"},
		{"mistyped address", "192.0.2.300", "!not a number"},
		{"short address", "192.0.2", "!not a number"},
		{"range", "192.0.2.1-192.0.2.9", "!not a number"},
		{"port", "example.org:22", "!has no place"},
		{"wildcard", "*.example.org", "!has no place"},
		{"negation", "!example.org", "!has no place"},
		{"international", "bücher.example", "!xn-- form"},
		{"empty label", "example..org", "!each part"},
		{"only a dot", ".", "!1 to 253"},
		{"nothing", "", "!1 to 253"},
		{"hyphen first", "-a.example.org", "!hyphen"},
		{"hyphen last", "a-.example.org", "!hyphen"},
		{"long label", strings.Repeat("a", 64) + ".org", "!each part"},
		{"longest label", strings.Repeat("a", 63) + ".org", strings.Repeat("a", 63) + ".org"},
		{"long name", strings.Repeat("a.", 126) + "ab", "!1 to 253"},
		{"longest name", strings.Repeat("a.", 126) + "a.", strings.Repeat("a.", 126) + "a."},
		{"control character", "a\x1b[2Jb", "!has no place"},
		{"very long text is not repeated", strings.Repeat("*", 1<<16), "!\"..."},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p, name, err := Parse(tt.in)
			if want, bad := strings.CutPrefix(tt.want, "!"); bad {
				if err == nil || !strings.Contains(err.Error(), want) || len(err.Error()) > 400 {
					t.Errorf("got %v %q %v, want an error with %q", p, name, err, want)
				}
				return
			}
			got := name
			if name == "" {
				got = p.String()
			}
			if err != nil || got != tt.want || name != "" && p.IsValid() {
				t.Errorf("got %v %q %v, want %s", p, name, err, tt.want)
			}
		})
	}
}

// FuzzParse: what is accepted is canonical, and accepted again as itself.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"192.0.2.9/24", "::ffff:1.2.3.4/120", "Example.org.", "fe80::1%eth0", "0.0.0.0/0", "a-b._c", "1.2.3"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, name, err := Parse(s)
		if err != nil {
			if p.IsValid() || name != "" {
				t.Errorf("%q: an error and %v %q", s, p, name)
			}
			return
		}
		if p.IsValid() == (name != "") {
			t.Fatalf("%q: prefix %v and name %q", s, p, name)
		}
		if name != "" {
			if _, again, err := Parse(name); again != name || err != nil {
				t.Errorf("%q -> %q -> %q, %v", s, name, again, err)
			}
			return
		}
		if p != p.Masked() || p.Addr().Is4In6() || p.Bits() == 0 || p.Addr().Zone() != "" {
			t.Errorf("%q: %v is not canonical", s, p)
		}
		if again, _, err := Parse(p.String()); again != p || err != nil {
			t.Errorf("%q -> %v -> %v, %v", s, p, again, err)
		}
	})
}

// dir makes a directory of files.
func dir(t *testing.T, files map[string]string) string {
	t.Helper()
	d := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(d, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return d
}

// said lists problems without the directory.
func said(d string, problems []Problem) []string {
	var out []string
	for _, p := range problems {
		out = append(out, strings.TrimPrefix(strings.TrimPrefix(p.Error(), d), "/"))
	}
	return out
}

func TestLoad(t *testing.T) {
	d := dir(t, map[string]string{
		"20-office.txt": "\ufeff# the office\r\n192.0.2.9/24\r\n\r\n  2001:db8::1   # the gateway\r\nVPN.example.org\r\n",
		"10-names.txt":  "vpn.example.org\nbackup.example.org\n192.0.2.0/24",
		"30-bad.txt":    "198.51.100.1\n192.0.2.300\nexample.org 192.0.2.1\n#only a comment\n203.0.113.0/99\n",
		"notes.md":      "no whitelist",
		"40-off.txt~":   "nonsense !",
	})
	if err := os.Mkdir(filepath.Join(d, "50-dir.txt"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("nowhere", filepath.Join(d, "60-link.txt")); err != nil {
		t.Fatal(err)
	}
	prefixes, names, problems := Load(d)
	if got, want := fmt.Sprint(prefixes), "[192.0.2.0/24 198.51.100.1/32 2001:db8::1/128]"; got != want {
		t.Errorf("prefixes %s, want %s", got, want)
	}
	if got, want := fmt.Sprint(names), "[vpn.example.org backup.example.org]"; got != want {
		t.Errorf("names %s, want %s", got, want)
	}
	want := []string{
		`30-bad.txt:2: "192.0.2.300" is neither an address, a CIDR nor a DNS name: the last part of a name is not a number`,
		`30-bad.txt:3: "example.org 192.0.2.1": one entry a line (# begins a comment)`,
		`30-bad.txt:5: "203.0.113.0/99" is not a CIDR`,
		`50-dir.txt: not a regular file`,
		`60-link.txt: stat: no such file or directory`,
	}
	if got := said(d, problems); !reflect.DeepEqual(got, want) {
		t.Errorf("problems\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestLoadOfNothing(t *testing.T) {
	for _, d := range []string{filepath.Join(t.TempDir(), "absent"), t.TempDir()} {
		if prefixes, names, problems := Load(d); len(prefixes)+len(names)+len(problems) != 0 {
			t.Errorf("%s: %v %v %v", d, prefixes, names, problems)
		}
	}
	file := filepath.Join(dir(t, map[string]string{"f": ""}), "f")
	if _, _, problems := Load(file); len(problems) != 1 {
		t.Errorf("a file for a directory: %v", problems)
	}
}

func TestLoadIsBounded(t *testing.T) {
	var names, addrs, bad strings.Builder
	for i := range MaxNames + 2 {
		fmt.Fprintf(&names, "h%d.example.org\n", i)
	}
	for i := range MaxPrefixes + 1 {
		fmt.Fprintf(&addrs, "%v\n", netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}))
	}
	for range 1000 {
		bad.WriteString("?\n")
	}
	d := dir(t, map[string]string{"a.txt": names.String(), "b.txt": addrs.String(), "c.txt": strings.Repeat("#", maxFile+1), "d.txt": bad.String()})
	prefixes, got, problems := Load(d)
	if len(prefixes) != MaxPrefixes || len(got) != MaxNames {
		t.Errorf("%d prefixes, %d names", len(prefixes), len(got))
	}
	if len(problems) != maxProblems {
		t.Fatalf("%d problems listed", len(problems))
	}
	for i, want := range []string{
		`a.txt:1001: more than 1000 DNS names: "h1000.example.org" is left out`,
		`a.txt:1002: more than 1000 DNS names: "h1001.example.org" is left out`,
		"b.txt:100001: more than 100000 addresses and CIDRs: 10.1.134.160/32 is left out",
		"c.txt: larger than 8388608 bytes: not a whitelist",
	} {
		if got := said(d, problems)[i]; got != want {
			t.Errorf("problem %d: %s, want %s", i, got, want)
		}
	}
	if last := problems[maxProblems-1].Error(); !strings.Contains(last, "too many mistakes") {
		t.Errorf("the last: %s", last)
	}
}

func TestLoadOfManyFiles(t *testing.T) {
	files := map[string]string{}
	for i := range maxFiles + 1 {
		files[fmt.Sprintf("%04d.txt", i)] = fmt.Sprintf("10.0.%d.%d\n", i>>8, i&255)
	}
	d := dir(t, files)
	prefixes, _, problems := Load(d)
	if len(prefixes) != maxFiles || len(problems) != 1 || !strings.Contains(problems[0].Error(), "more than 256 files") {
		t.Errorf("%d prefixes, %v", len(prefixes), problems)
	}
}
