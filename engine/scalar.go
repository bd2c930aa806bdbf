package engine

import (
	"math"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

const maxListItems = 64 // tags, mitre ids

// text reads a string. Numbers and booleans are no strings here: what YAML
// made of them may not be what was written.
func (f *file) text(e entry) (string, bool) {
	n := e.val
	if n.Kind != yaml.ScalarNode {
		f.errorAt(n, "", "%s must be a text, not %s", e.key.Value, describe(n))
		return "", false
	}
	if strings.HasPrefix(n.Tag, "!") && !strings.HasPrefix(n.Tag, "!!") {
		f.errorAt(n, "put it in quotes", "YAML takes the ! at the beginning of %s for a tag", e.key.Value)
		return "", false
	}
	if n.Tag != "!!str" && n.Tag != "!!timestamp" {
		f.errorAt(n, "put it in quotes if a text is meant", "%s must be a text, not %s", e.key.Value, n.Value)
		return "", false
	}
	return n.Value, true
}

// integer reads a whole number of at least low and at most high.
func (f *file) integer(e entry, low, high int) (int, bool) {
	if e.val.Kind != yaml.ScalarNode || e.val.Tag != "!!int" {
		hint := ""
		if _, err := strconv.Atoi(strings.TrimSpace(e.val.Value)); err == nil && e.val.Kind == yaml.ScalarNode {
			hint = "write it without quotes"
		}
		f.errorAt(e.val, hint, "%s must be a whole number, not %s", e.key.Value, describe(e.val))
		return 0, false
	}
	v, err := strconv.ParseInt(strings.ReplaceAll(e.val.Value, "_", ""), 0, 64)
	if err != nil {
		v = math.MaxInt64
	}
	switch {
	case v < 0 && low >= 0:
		f.errorAt(e.val, "", "%s is negative", e.key.Value)
	case v < int64(low):
		f.errorAt(e.val, "", "%s must be at least %d", e.key.Value, low)
	case v > int64(high):
		f.errorAt(e.val, "", "%s must be at most %d", e.key.Value, high)
	default:
		return int(v), true
	}
	return 0, false
}

// boolean reads true or false, and YAML 1.1's yes, no, on, off.
func (f *file) boolean(e entry) (bool, bool) {
	if e.val.Kind == yaml.ScalarNode && (e.val.Tag == "!!bool" || e.val.Tag == "!!str" && e.val.Style == 0) {
		switch strings.ToLower(e.val.Value) {
		case "true", "yes", "on":
			return true, true
		case "false", "no", "off":
			return false, true
		}
	}
	f.errorAt(e.val, "", "%s must be true or false, not %s", e.key.Value, describe(e.val))
	return false, false
}

// texts reads a list of strings, or one string as a list of one.
func (f *file) texts(e entry) []string {
	if e.val.Kind == yaml.ScalarNode {
		if s, ok := f.text(e); ok {
			return []string{s}
		}
		return nil
	}
	if e.val.Kind != yaml.SequenceNode {
		f.errorAt(e.val, "", "%s must be a text or a list of texts, not %s", e.key.Value, describe(e.val))
		return nil
	}
	if len(e.val.Content) > maxListItems {
		f.errorAt(e.val, "", "%s has more than %d items", e.key.Value, maxListItems)
		return nil
	}
	var out []string
	for _, item := range e.val.Content {
		item = f.resolve(item)
		if item == nil {
			return out
		}
		if s, ok := f.text(entry{e.key, item}); ok {
			out = append(out, s)
		}
	}
	return out
}

// duration reads a whole number of units, or a duration string.
func (f *file) duration(e entry, unit time.Duration) (time.Duration, bool) {
	if e.val.Kind == yaml.ScalarNode && e.val.Tag == "!!int" {
		n, ok := f.integer(e, 0, int(maxDuration/unit))
		return time.Duration(n) * unit, ok
	}
	if e.val.Kind != yaml.ScalarNode || e.val.Tag == "!!bool" {
		f.errorAt(e.val, "", "%s must be a duration like 30m or a whole number, not %s", e.key.Value, describe(e.val))
		return 0, false
	}
	d, err := ParseDuration(e.val.Value)
	if err != nil {
		f.errorAt(e.val, "write it like 90s, 30m, 2h, 7d or 1w", "%s: %v", e.key.Value, err)
		return 0, false
	}
	return d, true
}
