package engine

import (
	"strings"
	"unicode"

	"go.yaml.in/yaml/v3"
)

// locate finds where the character of a scalar's value at offset stands in
// the file. YAML moves white space about (block indentation, folding) but
// keeps every other character, so the n-th of those is the same in the value
// and in the file.
func (f *file) locate(n *yaml.Node, value string, offset int) (line, column int) {
	runes := []rune(value)
	offset = min(offset, len(runes))
	nth, ahead := 0, false
	for _, r := range runes[:offset] {
		if !unicode.IsSpace(r) {
			nth++
		}
	}
	if offset == len(runes) || unicode.IsSpace(runes[offset]) {
		nth, ahead = nth-1, true // there is nothing there: point behind the last character
	}
	line, column = n.Line, n.Column
	if nth < 0 {
		return line, column
	}
	block := n.Style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0
	if block {
		line, column = line+1, 1
	}
	for ; line <= len(f.lines); line, column = line+1, 1 {
		text := []rune(strings.TrimRight(f.lines[line-1], "\r"))
		for i := column - 1; i < len(text); i++ {
			width, counts := character(n, text, i, line == n.Line && i == n.Column-1)
			if counts && nth == 0 {
				if ahead {
					i += width
				}
				return line, i + 1
			}
			if counts {
				nth--
			}
			i += width - 1
		}
	}
	return n.Line, n.Column
}

// character says how many characters of the file one character of the value
// takes at i, and whether it counts: white space and the quote at the
// beginning do not.
func character(n *yaml.Node, text []rune, i int, first bool) (width int, counts bool) {
	quoted := n.Style&(yaml.DoubleQuotedStyle|yaml.SingleQuotedStyle) != 0
	switch r := text[i]; {
	case unicode.IsSpace(r), first && quoted:
		return 1, false
	case n.Style&yaml.DoubleQuotedStyle != 0 && r == '\\' && i+1 < len(text):
		return 2, !strings.ContainsRune("nt r", text[i+1])
	case n.Style&yaml.SingleQuotedStyle != 0 && r == '\'' && i+1 < len(text) && text[i+1] == '\'':
		return 2, true
	}
	return 1, true
}
