package backend

import (
	"fmt"
	"math"
	"math/bits"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Limit is the rate of a RateLimit: Rate packets in each Per pass, and at the
// beginning, or after a rest, Burst at once. It is a token bucket of Burst
// tokens, full at first, into which Rate tokens fall each Per. A block of a
// prefix has one bucket for the whole prefix.
type Limit struct {
	Rate  uint64
	Per   time.Duration // a second, a minute, an hour or a day
	Burst uint32
}

const (
	day = 24 * time.Hour
	// MaxLogPrefix is the longest LogPrefix in bytes: struct xt_nflog_info
	// keeps 64 with the terminating zero.
	MaxLogPrefix = 63
)

// limitUnits are the units of a rate, by the name a listing gives them.
func limitUnits() []struct {
	name string
	per  time.Duration
} {
	return []struct {
		name string
		per  time.Duration
	}{{"second", time.Second}, {"minute", time.Minute}, {"hour", time.Hour}, {"day", day}}
}

// String is the limit as nft prints it: "10/second burst 5".
func (l Limit) String() string {
	unit := l.Per.String()
	for _, u := range limitUnits() {
		if u.per == l.Per {
			unit = u.name
		}
	}
	return fmt.Sprintf("%d/%s burst %d", l.Rate, unit, l.Burst)
}

// ParseLimit reads a rate ("10/second", "3/m": second, minute, hour or day, or
// the first letter, in any case, with spaces around the parts) and takes burst
// beside it. An error wraps ErrInvalid and says what is wrong; what only some
// backends can express is CheckLimit's to say.
func ParseLimit(rate string, burst int64) (Limit, error) {
	number, unit, ok := strings.Cut(rate, "/")
	if !ok {
		return Limit{}, fmt.Errorf("%w: rate %q has no slash (write it like 10/minute)", ErrInvalid, rate)
	}
	n, err := strconv.ParseUint(strings.TrimSpace(number), 10, 64)
	if err != nil || n == 0 {
		return Limit{}, fmt.Errorf("%w: rate %q: %q is no whole number above 0", ErrInvalid, rate, number)
	}
	if burst < 1 || burst > math.MaxUint32 {
		return Limit{}, fmt.Errorf("%w: burst %d (use 1 to %d)", ErrInvalid, burst, uint32(math.MaxUint32))
	}
	unit = strings.ToLower(strings.TrimSpace(unit))
	for _, u := range limitUnits() {
		if unit == u.name || unit == u.name[:1] {
			return Limit{Rate: n, Per: u.per, Burst: uint32(burst)}, nil
		}
	}
	return Limit{}, fmt.Errorf("%w: rate %q: unknown unit %q (use second, minute, hour or day)", ErrInvalid, rate, unit)
}

// bucket is how a kernel keeps a Limit: each packet costs a whole number of
// ticks.
type bucket struct {
	what  string
	ticks uint64 // a second
	// most is the largest content of a bucket, in ticks.
	most uint64
	// burst is the largest burst at any rate.
	burst uint32
}

// bucketOf returns how the named backend's kernel part counts; false for a
// backend that has no bounds of its own.
//
// nft (nft_limit.c): nanoseconds in 64 bits. iptables (xt_hashlimit.c,
// revision 2 and later): microseconds, multiplied by what fills 64 bits at a
// full day, rounded down to a power of two a jiffy; a product above that wraps,
// and only some of those that do are refused (at HZ=250 the kernel takes
// 1/hour with a burst of 47, and keeps fewer). A day is right for every HZ.
// Its program takes bursts of at most a million (iptables 1.8.9).
func bucketOf(backendName string) (bucket, bool) {
	switch backendName {
	case "nft":
		return bucket{what: "nft limit", ticks: 1e9, most: math.MaxUint64, burst: math.MaxUint32}, true
	case "iptables":
		return bucket{what: "hashlimit", ticks: 1e6, most: 86400 * 1e6, burst: 1e6}, true
	}
	return bucket{}, false
}

// CheckLimit says whether the named backend ("nft", "iptables"; any other name
// has no bounds of its own) can enforce l. An error wraps ErrInvalid where no
// backend could, for the limit itself is wrong (a rate or a burst of 0, a Per
// that is no second, minute, hour or day), and ErrUnsupported, naming backend
// and limit, where this one cannot: a rate above what it counts in or one that
// it would round by more than a tenth, or a burst that its bucket cannot hold.
func CheckLimit(backendName string, l Limit) error {
	switch {
	case l.Rate == 0:
		return fmt.Errorf("%w: rate limit %s: a rate of 0", ErrInvalid, l)
	case l.Burst == 0:
		return fmt.Errorf("%w: rate limit %s: a burst of 0", ErrInvalid, l)
	case l.Per != time.Second && l.Per != time.Minute && l.Per != time.Hour && l.Per != day:
		return fmt.Errorf("%w: rate limit %s: packets in each %s (use a second, a minute, an hour or a day)", ErrInvalid, l, l.Per)
	}
	k, bounded := bucketOf(backendName)
	if !bounded {
		return nil
	}
	unable := func(why string) error {
		return fmt.Errorf("rate limit %s: %w: %s: %s: %s", l, ErrUnsupported, backendName, k.what, why)
	}
	whole := k.ticks * uint64(l.Per/time.Second)
	cost := whole / l.Rate
	if cost == 0 {
		return unable(fmt.Sprintf("more than %d/second", k.ticks))
	}
	if kept := whole / cost; kept-l.Rate > l.Rate/10 {
		return unable(fmt.Sprintf("the nearest rate it can keep is %d", kept))
	}
	if l.Burst > k.burst {
		return unable(fmt.Sprintf("the largest burst is %d", k.burst))
	}
	if over, content := bits.Mul64(cost, uint64(l.Burst)); over != 0 || content > k.most {
		return unable(fmt.Sprintf("the largest burst at this rate is %d", k.most/cost))
	}
	return nil
}

// CheckLogPrefix says whether every backend can carry s in front of a log
// line and give it back unchanged: at most MaxLogPrefix bytes of printable
// text. Refused with ErrInvalid are control characters, invalid UTF-8, the
// quote and the backslash (nft prints them unescaped, and reads its own listing
// wrongly then) and the dollar sign (nft takes it for one of its variables).
func CheckLogPrefix(s string) error {
	if len(s) > MaxLogPrefix {
		return fmt.Errorf("%w: log prefix of %d bytes (at most %d)", ErrInvalid, len(s), MaxLogPrefix)
	}
	bad := strings.IndexFunc(s, func(r rune) bool {
		return r == utf8.RuneError || unicode.IsControl(r) || strings.ContainsRune("\"\\$", r)
	})
	if bad >= 0 {
		return fmt.Errorf("%w: log prefix %q: the character at byte %d cannot be in one", ErrInvalid, s, bad)
	}
	return nil
}
