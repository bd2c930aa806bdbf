package iptables

import (
	"crypto/sha256"
	"encoding/base32"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/netcap-guard/netcap-guard/backend"
)

// A rate limit is one rule (several where it has many holes) that asks a
// hashlimit table. The table counts by address, masked to the length of the
// block's prefix: so there is one bucket for the whole prefix, and all blocks
// of one limit, target and length share a table, each with its own bucket in
// it. A table for each block would be simpler, but the kernel looks a table up
// in a list whenever it takes a rule, and the legacy program hands it every
// rule anew: 10,000 rate limits took ten times as long as 10,000 drops.

const (
	// meterMark begins the name of a rate limit's table. What follows is a
	// hash, 13 characters: 15 bytes in all, the most that a table of revision 1
	// of hashlimit has (IFNAMSIZ without its NUL).
	meterMark = "N-"
	// meterSize is the table's width, 8 KB; left alone it has 64 KB on a machine
	// of more than 1 GB. meterMax is the highest that the kernel takes: a table
	// that is full drops every packet that needs another bucket, and it needs
	// one a block at most.
	meterSize, meterMax = 1024, 1 << 20
	// meterSweep is how often the kernel looks for buckets to free. The
	// default is once a second.
	meterSweep = 60 * time.Second
)

// meterEncoding is base32 in lower case, which a file name in /proc may have.
func meterEncoding() *base32.Encoding {
	return base32.NewEncoding("0123456789abcdefghijklmnopqrstuv").WithPadding(base32.NoPadding)
}

// meterName names the hashlimit table of a block. A table has the rate of the
// rule that came first, so everything that tells two tables apart is in the
// name. The same block for longer keeps its table, and with it what its bucket
// holds.
func meterName(chain string, b backend.Block) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "1 %s %s %d %s", chain, b.Target, b.Prefix.Bits(), b.Limit))
	return meterMark + meterEncoding().EncodeToString(sum[:8])
}

// isMeterName reports whether meterName could have written s.
func isMeterName(s string) bool {
	hash, ok := strings.CutPrefix(s, meterMark)
	sum, err := meterEncoding().DecodeString(hash)
	return ok && err == nil && len(sum) == 8 && meterEncoding().EncodeToString(sum) == hash
}

// meterArgs is the match for packets above the rule's limit. backend.CheckLimit
// has taken the limit.
func (r rule) meterArgs() []string {
	side := map[backend.Target]string{backend.Source: "src", backend.Destination: "dst"}[r.target]
	a := []string{
		"-m", "hashlimit", "--hashlimit-above", fmt.Sprintf("%d/%s", r.limit.Rate, unitOf(r.limit.Per).name),
		"--hashlimit-burst", strconv.FormatUint(uint64(r.limit.Burst), 10),
		"--hashlimit-mode", side + "ip", "--hashlimit-name", r.meter,
		"--hashlimit-htable-size", strconv.Itoa(meterSize), "--hashlimit-htable-max", strconv.Itoa(meterMax),
		"--hashlimit-htable-gcinterval", strconv.FormatInt(meterSweep.Milliseconds(), 10),
		"--hashlimit-htable-expire", strconv.FormatUint(refill(r.limit), 10),
	}
	if !r.prefix.IsSingleIP() {
		a = append(a, "--hashlimit-"+side+"mask", strconv.Itoa(r.prefix.Bits()))
	}
	return a
}

// refill is how long an empty bucket takes to fill up, in milliseconds, rounded
// up. The kernel frees a bucket that saw no packet for the time given as
// htable-expire and makes a full one for the next packet, so a shorter time
// (the default is one unit of the rate) would give a sender that pauses more
// than the limit.
func refill(l backend.Limit) uint64 {
	micros := interval(l) * uint64(l.Burst)
	return max((micros+999)/1000, 1)
}

// interval is the time between two packets at the rate, in the microseconds
// in which hashlimit counts.
func interval(l backend.Limit) uint64 { return uint64(l.Per/time.Microsecond) / l.Rate }

// unit is a unit of time as iptables writes it.
type unit struct {
	name string
	per  time.Duration
}

// units are from the longest to the shortest.
func units() []unit {
	return []unit{{"day", 24 * time.Hour}, {"hour", time.Hour}, {"min", time.Minute}, {"sec", time.Second}}
}

func unitOf(per time.Duration) unit {
	for _, u := range units() {
		if u.per == per {
			return u
		}
	}
	return unit{}
}

// defaultExpire is what iptables takes for htable-expire, by the unit of the
// rate.
func defaultExpire(name string) string {
	for _, u := range units() {
		if u.name == name {
			return strconv.FormatInt(u.per.Milliseconds(), 10)
		}
	}
	return ""
}

// listedRate is how iptables lists a rate: in the shortest unit in which what
// it loses by rounding is less than what it shows (iptables 1.8.9).
func listedRate(l backend.Limit) string {
	micros := interval(l)
	show := units()[0]
	for _, u := range units()[1:] {
		whole := uint64(u.per / time.Microsecond)
		if micros > whole || whole/micros < whole%micros {
			break
		}
		show = u
	}
	return fmt.Sprintf("%d/%s", uint64(show.per/time.Microsecond)/micros, show.name)
}

// parseLimit is the reverse of backend.Limit.String, for limits that iptables
// can have.
func parseLimit(s string) (backend.Limit, bool) {
	rate, burst, ok := strings.Cut(s, " burst ")
	n, err := strconv.ParseInt(burst, 10, 64)
	if !ok || err != nil {
		return backend.Limit{}, false
	}
	l, err := backend.ParseLimit(rate, n)
	return l, err == nil && l.String() == s && backend.CheckLimit(name, l) == nil
}

// exactMeter undoes what the listing does to a rate limit's hashlimit match,
// for a deletion must give the same numbers. A rate that is not ours stays as
// it is listed.
func exactMeter(args []string, r rule) []string {
	from := slices.Index(args, "hashlimit") - 1
	if from < 0 || args[from] != "-m" {
		return args
	}
	to := from + 2
	for to+1 < len(args) && strings.HasPrefix(args[to], "--hashlimit-") {
		if args[to] == "--hashlimit-above" && args[to+1] != listedRate(r.limit) {
			return args
		}
		to += 2
	}
	return slices.Replace(slices.Clone(args), from, to, r.meterArgs()...)
}
