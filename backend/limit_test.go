package backend_test

import (
	"errors"
	"math"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/netcap-guard/netcap-guard/backend"
)

const aDay = 24 * time.Hour

func TestParseLimit(t *testing.T) {
	tests := []struct {
		rate  string
		burst int64
		want  backend.Limit
		err   string // part of the error
	}{
		{"10/second", 5, backend.Limit{Rate: 10, Per: time.Second, Burst: 5}, ""},
		{"1/s", 1, backend.Limit{Rate: 1, Per: time.Second, Burst: 1}, ""},
		{"3/M", 2, backend.Limit{Rate: 3, Per: time.Minute, Burst: 2}, ""},
		{" 7 / Hour ", math.MaxUint32, backend.Limit{Rate: 7, Per: time.Hour, Burst: math.MaxUint32}, ""},
		{"1/d", 5, backend.Limit{Rate: 1, Per: aDay, Burst: 5}, ""},
		{"0/s", 5, backend.Limit{}, "no whole number above 0"},
		{"-1/s", 5, backend.Limit{}, "no whole number above 0"},
		{"1.5/s", 5, backend.Limit{}, "no whole number above 0"},
		{"99999999999999999999/s", 5, backend.Limit{}, "no whole number above 0"},
		{"10/fortnight", 5, backend.Limit{}, `unknown unit "fortnight"`},
		{"10/", 5, backend.Limit{}, "unknown unit"},
		{"10/sec", 5, backend.Limit{}, "unknown unit"},
		{"10", 5, backend.Limit{}, "no slash"},
		{"", 5, backend.Limit{}, "no slash"},
		{"10/s", 0, backend.Limit{}, "burst 0"},
		{"10/s", -1, backend.Limit{}, "burst -1"},
		{"10/s", 1 << 32, backend.Limit{}, "burst 4294967296"},
	}
	for _, test := range tests {
		t.Run(test.rate+" "+strconv.FormatInt(test.burst, 10), func(t *testing.T) {
			got, err := backend.ParseLimit(test.rate, test.burst)
			if got != test.want {
				t.Errorf("read %s, want %s", got, test.want)
			}
			switch {
			case test.err == "" && err != nil:
				t.Error(err)
			case test.err != "" && (!errors.Is(err, backend.ErrInvalid) || !strings.Contains(err.Error(), test.err)):
				t.Errorf("error %v, want one with %q", err, test.err)
			}
		})
	}
}

func TestCheckLimit(t *testing.T) {
	limit := func(rate uint64, per time.Duration, burst uint32) backend.Limit {
		return backend.Limit{Rate: rate, Per: per, Burst: burst}
	}
	tests := []struct {
		limit backend.Limit
		// what nft and iptables say: nil, ErrInvalid or ErrUnsupported
		nft, iptables error
	}{
		{limit(10, time.Second, 5), nil, nil},
		{limit(1, aDay, 1), nil, nil},
		{limit(1, aDay, 5), nil, backend.ErrUnsupported},
		{limit(1, time.Hour, 24), nil, nil},
		{limit(1, time.Hour, 25), nil, backend.ErrUnsupported},
		{limit(1000000, time.Second, 1000), nil, nil},
		{limit(1000001, time.Second, 1), nil, backend.ErrUnsupported},
		{limit(700000, time.Second, 1), nil, backend.ErrUnsupported}, // would be 1,000,000
		{limit(60000000, time.Minute, 1), nil, nil},
		{limit(1000000000, time.Second, 1), nil, backend.ErrUnsupported},
		{limit(1000000001, time.Second, 1), backend.ErrUnsupported, backend.ErrUnsupported},
		{limit(math.MaxUint64, aDay, 1), backend.ErrUnsupported, backend.ErrUnsupported},
		{limit(1, aDay, 213503), nil, backend.ErrUnsupported},
		{limit(1, aDay, 213504), backend.ErrUnsupported, backend.ErrUnsupported}, // 2^64 ns
		{limit(1, time.Second, math.MaxUint32), nil, backend.ErrUnsupported},
		{limit(100000, time.Second, math.MaxUint32), nil, backend.ErrUnsupported},
		{limit(1000, time.Second, 1000000), nil, nil},
		{limit(1000, time.Second, 1000001), nil, backend.ErrUnsupported},
		{limit(0, time.Second, 5), backend.ErrInvalid, backend.ErrInvalid},
		{limit(1, time.Second, 0), backend.ErrInvalid, backend.ErrInvalid},
		{limit(1, 7*aDay, 5), backend.ErrInvalid, backend.ErrInvalid},
		{limit(1, 0, 5), backend.ErrInvalid, backend.ErrInvalid},
		{limit(1, -time.Second, 5), backend.ErrInvalid, backend.ErrInvalid},
	}
	for _, test := range tests {
		t.Run(test.limit.String(), func(t *testing.T) {
			for name, want := range map[string]error{"nft": test.nft, "iptables": test.iptables} {
				err := backend.CheckLimit(name, test.limit)
				if !errors.Is(err, want) {
					t.Errorf("%s: %v, want %v", name, err, want)
				}
				if want == nil {
					continue
				}
				if !strings.Contains(err.Error(), test.limit.String()) {
					t.Errorf("%s: the error does not name the limit %s: %v", name, test.limit, err)
				}
				if errors.Is(want, backend.ErrUnsupported) && !strings.Contains(err.Error(), name) {
					t.Errorf("the error does not name the backend %s: %v", name, err)
				}
			}
			wrong := errors.Is(test.nft, backend.ErrInvalid)
			if err := backend.CheckLimit("memory", test.limit); (err != nil) != wrong {
				t.Errorf("memory: %v, want an error: %t", err, wrong)
			}
		})
	}
}

func TestCheckLogPrefix(t *testing.T) {
	for _, good := range []string{"", "NETCAP: ", "SYN_FLOOD: ", "naïve café: ", strings.Repeat("x", 63), "a b 'c' {d} #e ;f", "%s"} {
		if err := backend.CheckLogPrefix(good); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	for _, bad := range []string{strings.Repeat("x", 64), strings.Repeat("é", 32), "a\nb", "nul\x00", "\xff", `say "x"`, `back\slash`, "$x", "tab\t"} {
		if err := backend.CheckLogPrefix(bad); !errors.Is(err, backend.ErrInvalid) {
			t.Errorf("%q: %v, want ErrInvalid", bad, err)
		}
	}
}

// FuzzParseLimit: what is read prints in a form that reads back the same, and
// no name and no limit makes CheckLimit panic.
func FuzzParseLimit(f *testing.F) {
	for _, s := range []string{"10/second", "1/d", " 7 / Hour ", "0/s", "18446744073709551615/m", "10/fortnight", "//", "1/ſ"} {
		f.Add(s, int64(5))
	}
	f.Fuzz(func(t *testing.T, rate string, burst int64) {
		l, err := backend.ParseLimit(rate, burst)
		if err != nil {
			if !errors.Is(err, backend.ErrInvalid) || l != (backend.Limit{}) {
				t.Fatalf("%s, %v", l, err)
			}
			return
		}
		printed, _, _ := strings.Cut(l.String(), " burst ")
		if again, err := backend.ParseLimit(printed, int64(l.Burst)); err != nil || again != l {
			t.Fatalf("%s reads back as %s, %v", l, again, err)
		}
		for _, name := range []string{"nft", "iptables", "memory", ""} {
			if err := backend.CheckLimit(name, l); errors.Is(err, backend.ErrInvalid) {
				t.Fatalf("%s: %v of a limit that was read", name, err)
			}
		}
	})
}
