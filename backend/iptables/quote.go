package iptables

import "strings"

// quoteArgs joins arguments into one line as `iptables -S` prints them and
// iptables-restore reads them: an argument with anything but plain characters
// stands in double quotes, with a backslash before " ' and \.
func quoteArgs(args []string) string {
	var b strings.Builder
	n := len(args)
	for _, a := range args {
		n += len(a) + 2
	}
	b.Grow(n)
	for i, a := range args {
		if i > 0 {
			b.WriteByte(' ')
		}
		quoteArg(&b, a)
	}
	return b.String()
}

func quoteArg(b *strings.Builder, a string) {
	if a != "" && strings.IndexFunc(a, needsQuotes) < 0 {
		b.WriteString(a)
		return
	}
	b.WriteByte('"')
	for rest := a; rest != ""; {
		i := strings.IndexAny(rest, `"'\`)
		if i < 0 {
			b.WriteString(rest)
			break
		}
		b.WriteString(rest[:i])
		b.WriteByte('\\')
		b.WriteByte(rest[i])
		rest = rest[i+1:]
	}
	b.WriteByte('"')
}

func needsQuotes(r rune) bool {
	switch {
	case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9':
		return false
	}
	return !strings.ContainsRune("-_./:!,=@+", r)
}

// splitArgs is the reverse of quoteArgs. It reports false where a quote is not
// closed.
func splitArgs(line string) ([]string, bool) {
	var (
		args           []string
		word           []byte
		inWord, quoted bool
	)
	for i := 0; i < len(line); i++ {
		c := line[i]
		switch {
		case quoted && c == '\\' && i+1 < len(line):
			i++
			word = append(word, line[i])
		case c == '"':
			quoted, inWord = !quoted, true
		case !quoted && (c == ' ' || c == '\t'):
			if inWord {
				args = append(args, string(word))
			}
			word, inWord = word[:0], false
		default:
			word, inWord = append(word, c), true
		}
	}
	if inWord {
		args = append(args, string(word))
	}
	return args, !quoted
}
