package engine

import (
	"strings"
	"unicode"
)

// maxExcerpt is how much of a line an excerpt shows, in characters.
const maxExcerpt = 110

// Excerpt is the line on which the problem stands, with what is wrong
// underlined: two lines, each indented and ended, or nothing where the problem
// has no line. Characters that could steer a terminal are replaced.
func (p Problem) Excerpt() string {
	if p.source == "" || p.Column < 1 {
		return ""
	}
	line := []rune(strings.TrimRight(p.source, " \t\r\n"))
	at := p.Column - 1
	if at > len(line) {
		return ""
	}
	from := 0
	if at > maxExcerpt*3/4 {
		from = at - maxExcerpt/2
	}
	to := min(len(line), from+maxExcerpt)
	var shown, mark strings.Builder
	if from > 0 {
		shown.WriteString("…")
		mark.WriteString(" ")
	}
	for i, r := range line[from:to] {
		if !unicode.IsPrint(r) {
			r = ' '
		}
		shown.WriteRune(r)
		if from+i < at {
			mark.WriteString(" ")
		}
	}
	if to < len(line) {
		shown.WriteString("…")
	}
	mark.WriteString("^" + strings.Repeat("~", max(0, min(wordLength(line[at:]), to-at)-1)))
	return "    " + shown.String() + "\n    " + mark.String() + "\n"
}

// wordLength is how many characters belong together at the beginning: a word,
// a quoted text, or one.
func wordLength(text []rune) int {
	if len(text) == 0 {
		return 1
	}
	if quote := text[0]; quote == '"' || quote == '\'' {
		for i := 1; i < len(text); i++ {
			if text[i] == quote && text[i-1] != '\\' {
				return i + 1
			}
		}
		return len(text)
	}
	n := 0
	for n < len(text) && (unicode.IsLetter(text[n]) || unicode.IsDigit(text[n]) || strings.ContainsRune("_.-/", text[n])) {
		n++
	}
	return max(1, n)
}
