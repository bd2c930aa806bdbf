package engine

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// maxDuration keeps deadlines within what kernels and time.Time can hold.
const maxDuration = 100 * 365 * 24 * time.Hour

// ParseDuration reads a duration as rules write it: Go's syntax (1h30m) with
// the units d (24 hours) and w (7 days) added. Negative durations, unknown
// units and anything above 100 years are errors.
func ParseDuration(s string) (time.Duration, error) {
	text := strings.TrimSpace(s)
	if text == "0" {
		return 0, nil
	}
	if text == "" {
		return 0, errors.New("empty duration")
	}
	if strings.HasPrefix(text, "-") {
		return 0, fmt.Errorf("duration %q is negative", s)
	}
	var total time.Duration
	for text != "" {
		part, rest, err := nextPart(text)
		if err != nil {
			return 0, fmt.Errorf("duration %q: %w", s, err)
		}
		if total += part; total < 0 || total > maxDuration {
			return 0, fmt.Errorf("duration %q is longer than 100 years", s)
		}
		text = rest
	}
	return total, nil
}

// nextPart takes one number with its unit off the front of s.
func nextPart(s string) (time.Duration, string, error) {
	n := 0
	for n < len(s) && (s[n] >= '0' && s[n] <= '9' || s[n] == '.') {
		n++
	}
	u := n
	for u < len(s) && s[u] != '.' && (s[u] < '0' || s[u] > '9') {
		u++
	}
	number, unit, rest := s[:n], s[n:u], s[u:]
	switch {
	case number == "":
		return 0, "", fmt.Errorf("a number is missing before %q", unit)
	case unit == "":
		return 0, "", fmt.Errorf("a unit is missing after %s (use s, m, h, d or w)", number)
	case unit == "d" || unit == "w":
		hours := 24.0
		if unit == "w" {
			hours = 7 * 24
		}
		v, err := strconv.ParseFloat(number, 64)
		if err != nil || v*hours > maxDuration.Hours() {
			return 0, "", fmt.Errorf("%s%s is out of range", number, unit)
		}
		return time.Duration(math.Round(v * hours * float64(time.Hour))), rest, nil
	}
	d, err := time.ParseDuration(number + unit)
	if err != nil {
		return 0, "", fmt.Errorf("%q is no number with a unit (use s, m, h, d or w)", number+unit)
	}
	return d, rest, nil
}
