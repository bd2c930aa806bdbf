package backend_test

import (
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/netcap-guard/netcap-guard/backend"
)

func at(ms int64) time.Time { return time.UnixMilli(ms) }

func TestCommentText(t *testing.T) {
	created := at(1_700_000_000_123)
	tests := []struct {
		name  string
		in    backend.Comment
		limit int
		want  string
	}{
		{"rule and reason", backend.Comment{Rule: "Block SSH", Reason: "10 in 5m", Created: created}, 127,
			"NETCAP: Block SSH; 10 in 5m; @1700000000123"},
		{"no reason", backend.Comment{Rule: "Block SSH", Created: created}, 127, "NETCAP: Block SSH; @1700000000123"},
		{"nothing", backend.Comment{Created: created}, 127, "NETCAP: ; @1700000000123"},
		{"no rule", backend.Comment{Reason: "by hand", Created: created}, 127, "NETCAP: ; by hand; @1700000000123"},
		{"separator in the rule", backend.Comment{Rule: "a; b", Reason: "c; d", Created: created}, 127,
			"NETCAP: a; b; c; d; @1700000000123/4"},
		{"quotes and controls", backend.Comment{Rule: `say "x"`, Reason: "a\\b\nc\x00", Created: created}, 127,
			"NETCAP: say 'x'; a/b?c?; @1700000000123"},
		{"reason cut", backend.Comment{Rule: "r", Reason: strings.Repeat("x", 200), Created: created}, 93,
			"NETCAP: r; " + strings.Repeat("x", 63) + "…; @1700000000123"},
		{"cut on a rune", backend.Comment{Rule: "r", Reason: strings.Repeat("é", 200), Created: created}, 93,
			"NETCAP: r; " + strings.Repeat("é", 31) + "…; @1700000000123"},
		{"long rule", backend.Comment{Rule: strings.Repeat("y", 80), Created: created}, 127,
			"NETCAP: " + strings.Repeat("y", 61) + "…; @1700000000123"},
		{"limit too small to keep", backend.Comment{Rule: "r", Created: created}, 1, "NETCAP: r; @1700000000123"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got := test.in.Encode(test.limit); got != test.want {
				t.Errorf("encoded\n%q, want\n%q", got, test.want)
			}
		})
	}
}

func TestDecodeCommentRefuses(t *testing.T) {
	for _, text := range []string{
		"", "NETCAP", "NETCAP: ", "NETCAP: x", "netcap: x; @1", "x; @1700000000123", "NETCAP: x; @", "NETCAP: x; @abc",
		"NETCAP: x; @-5", "NETCAP: x; @1/", "NETCAP: x; @1/9", "NETCAP: x; @1/-1", "NETCAP: a; b; @1/2", "NETCAP: x; @1700000000123 ",
		"NETCAP: x; @99999999999999999999",
	} {
		if c, ok := backend.DecodeComment(text); ok {
			t.Errorf("%q was read as %+v", text, c)
		}
	}
}

// FuzzComment: what was encoded decodes to the same, a rule name of up to
// MaxRuleName harmless bytes uncut; and whatever decodes encodes to something
// that decodes to the same again.
func FuzzComment(f *testing.F) {
	f.Add("Block SSH", "10 in 5m", int64(1_700_000_000_123), 127)
	f.Add("a; b", "; @12/3", int64(0), 93)
	f.Add("; @5", "x\x00\"\\\n", int64(1), 250)
	f.Add(strings.Repeat("é", 40), strings.Repeat("界", 99), int64(253_402_300_799_999), 100)
	f.Add("NETCAP: x; @1", "\xff\xfe; ", int64(-62_135_596_800_000), 0)
	f.Fuzz(func(t *testing.T, rule, reason string, ms int64, limit int) {
		const latest = 253_402_300_799_999 // the year 9999
		if ms < 0 || ms > latest {
			ms = time.Time{}.UnixMilli()
		}
		limit = max(93, min(limit, 1000))
		in := backend.Comment{Rule: rule, Reason: reason, Created: at(ms)}
		text := in.Encode(limit)
		if len(text) > limit || !utf8.ValidString(text) || strings.ContainsFunc(text, unicode.IsControl) || strings.ContainsAny(text, "\"\\") {
			t.Fatalf("%+v became %q (%d bytes, at most %d)", in, text, len(text), limit)
		}
		out, ok := backend.DecodeComment(text)
		if !ok {
			t.Fatalf("%+v became %q, which does not decode", in, text)
		}
		if !out.Created.Equal(in.Created) {
			t.Errorf("created %s, want %s", out.Created, in.Created)
		}
		if harmless(rule) && len(rule) <= backend.MaxRuleName && out.Rule != rule {
			t.Errorf("rule %q came back as %q in %q", rule, out.Rule, text)
		}
		if start, cut := strings.CutSuffix(out.Reason, "…"); harmless(reason) && out.Reason != reason && out.Reason != "" &&
			(!cut || !strings.HasPrefix(reason, start)) {
			t.Errorf("reason %q came back as %q in %q", reason, out.Reason, text)
		}
		if again, ok := backend.DecodeComment(out.Encode(limit)); !ok || again != out {
			t.Errorf("%+v came back as %+v the second time", out, again)
		}
	})
}

func harmless(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsRune(s, utf8.RuneError) && !strings.ContainsFunc(s, unicode.IsControl) &&
		!strings.ContainsAny(s, "\"\\") && strings.TrimSpace(s) == s
}

// FuzzDecodeComment: text from anybody's kernel object either is refused or is
// a comment that survives being written again.
func FuzzDecodeComment(f *testing.F) {
	f.Add("NETCAP: Block SSH; 10 in 5m; @1700000000123")
	f.Add("NETCAP: a; b; c; @1700000000123/4")
	f.Fuzz(func(t *testing.T, text string) {
		c, ok := backend.DecodeComment(text)
		if !ok {
			return
		}
		if !strings.HasPrefix(text, backend.CommentPrefix) {
			t.Errorf("%q has not our prefix and was read as %+v", text, c)
		}
		if _, ok := backend.DecodeComment(c.Encode(4096)); !ok {
			t.Errorf("%q was read as %+v, which encodes to what does not decode", text, c)
		}
	})
}
