package record

import (
	"fmt"
	"strings"
)

// String is the test as a person writes it: Flags & 0x12 in [2].
func (t Test) String() string {
	field := t.Field
	if t.Mask != 0 {
		field = fmt.Sprintf("%s & %#x", field, t.Mask)
	}
	switch {
	case len(t.Prefixes) > 0:
		return fmt.Sprintf("%s %s %v", field, t.Op, t.Prefixes)
	case len(t.Texts) > 0:
		return fmt.Sprintf("%s %s %q", field, t.Op, t.Texts)
	}
	return fmt.Sprintf("%s %s %v", field, t.Op, t.Values)
}

// String lists the cases, and says whether they are all that the expression
// asks for: TCP: Flags & 0x12 in [2] and DstPort in [22] (exact).
func (c Conditions) String() string {
	cases := make([]string, len(c.Cases))
	for i, k := range c.Cases {
		tests := make([]string, len(k))
		for j, t := range k {
			tests[j] = t.String()
		}
		if cases[i] = strings.Join(tests, " and "); cases[i] == "" {
			cases[i] = "anything"
		}
	}
	text := strings.Join(cases, " or ")
	if text == "" {
		text = "nothing"
	}
	how := "implied"
	if c.Exact {
		how = "exact"
	}
	return fmt.Sprintf("%s: %s (%s)", c.Type, text, how)
}
