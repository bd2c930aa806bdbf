package engine

import (
	"strings"
)

// closest returns the word nearest to s: the same letters but for case, - and
// _, or at most a third of the letters (and three) changed. It returns ""
// where nothing is near.
func closest(s string, words []string) string {
	fold := func(w string) string {
		return strings.NewReplacer("-", "", "_", "", " ", "").Replace(strings.ToLower(w))
	}
	if len(s) > 64 {
		return ""
	}
	want := fold(s)
	best, bestDistance := "", min(3, (len(want)+2)/3)+1
	for _, w := range words {
		if d := editDistance(want, fold(w)); d < bestDistance {
			best, bestDistance = w, d
		}
	}
	return best
}

// editDistance counts insertions, deletions, replacements and swaps of
// neighbours that turn a into b.
func editDistance(a, b string) int {
	x, y := []rune(a), []rune(b)
	before, last, row := make([]int, len(y)+1), make([]int, len(y)+1), make([]int, len(y)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(x); i++ {
		row[0] = i
		for j := 1; j <= len(y); j++ {
			cost := 1
			if x[i-1] == y[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && x[i-1] == y[j-2] && x[i-2] == y[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(y)]
}

// didYouMean is the hint for an unknown word: the nearest known one, or the
// whole list where it is short.
func didYouMean(s string, words []string) string {
	if w := closest(s, words); w != "" {
		return "did you mean " + w + "?"
	}
	if len(words) <= 8 {
		return "known: " + strings.Join(words, ", ")
	}
	return ""
}
