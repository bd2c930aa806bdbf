package engine

import (
	"slices"

	"github.com/netcap-guard/netcap-guard/record"
)

// Limits of an automaton.
const (
	// maxNeedle is how much of a literal is looked for; the expression looks
	// at the rest.
	maxNeedle = 12
	// maxStates bounds its memory, 4 bytes a state and class of bytes.
	maxStates = 1 << 16
)

// automaton finds all of a set of literals in one pass over a text, folded as
// record.Fold does it: Aho and Corasick's machine (1975) as a table with a
// column for each byte that occurs in a literal and one for all others. It is
// immutable.
type automaton struct {
	class [256]uint8
	shift uint8
	// next holds the following state's row, and found where a literal ends in
	// that state.
	next []uint32
	// owners lists, by state, whose literals end there.
	owners [][]int32
	// min is the length of the shortest literal.
	min int
}

// found marks a state in which a literal ends.
const found = 1 << 31

// newAutomaton looks for the literals of each owner, which must be folded and
// not empty. It returns nil where they are too many.
func newAutomaton(literals [][]string) *automaton {
	a := &automaton{min: maxNeedle}
	classes := 1
	for _, list := range literals {
		for _, s := range list {
			for _, b := range []byte(needle(s)) {
				if a.class[b] == 0 {
					a.class[b] = uint8(classes)
					classes++
				}
			}
		}
	}
	for 1<<a.shift < classes {
		a.shift++
	}
	a.grow()
	for owner, list := range literals {
		for _, s := range list {
			if !a.add(needle(s), int32(owner)) {
				return nil
			}
		}
	}
	a.connect()
	return a
}

func needle(s string) string { return s[:min(len(s), maxNeedle)] }

// grow adds a state without any transition.
func (a *automaton) grow() uint32 {
	a.next = append(a.next, make([]uint32, 1<<a.shift)...)
	a.owners = append(a.owners, nil)
	return uint32(len(a.owners) - 1)
}

// add makes the path of one literal. Until connect, 0 is no transition.
func (a *automaton) add(literal string, owner int32) bool {
	a.min = min(a.min, len(literal))
	state := uint32(0)
	for _, b := range []byte(literal) {
		at := state<<a.shift | uint32(a.class[b])
		if a.next[at] == 0 {
			if len(a.owners) == maxStates {
				return false
			}
			state = a.grow()
			a.next[at] = state
		}
		state = a.next[at]
	}
	if !slices.Contains(a.owners[state], owner) {
		a.owners[state] = append(a.owners[state], owner)
	}
	return true
}

// connect fills in, breadth first, where to go on after a literal fails, and
// makes the states rows with their mark.
func (a *automaton) connect() {
	fail := make([]uint32, len(a.owners))
	queue := []uint32{0}
	for len(queue) > 0 {
		state := queue[0]
		queue = queue[1:]
		for c := range uint32(1) << a.shift {
			at := state<<a.shift | c
			onFail := uint32(0)
			if state != 0 {
				onFail = a.next[fail[state]<<a.shift|c]
			}
			child := a.next[at]
			if child == 0 {
				a.next[at] = onFail
				continue
			}
			fail[child] = onFail
			for _, o := range a.owners[onFail] {
				if !slices.Contains(a.owners[child], o) {
					a.owners[child] = append(a.owners[child], o)
				}
			}
			queue = append(queue, child)
		}
	}
	for i, state := range a.next {
		a.next[i] = state << a.shift
		if a.owners[state] != nil {
			a.next[i] |= found
		}
	}
}

// scanner is a place in a text.
type scanner[T string | []byte] struct {
	*automaton
	text  T
	at    int
	state uint32
}

func scan[T string | []byte](a *automaton, text T) scanner[T] {
	return scanner[T]{automaton: a, text: text}
}

// next returns the owners of the literals that end where the next ones do; nil
// when there are none any more.
func (s *scanner[T]) following() []int32 {
	state, shift := s.state, s.shift
	for i := s.at; i < len(s.text); i++ {
		b := s.text[i]
		if b-'A' < 26 {
			b += 'a' - 'A'
		} else if b >= 0xc4 {
			var width int
			b, width = record.FoldByte(s.text, i)
			i += width - 1
		}
		state = s.automaton.next[state&^found|uint32(s.class[b])]
		if state&found != 0 {
			s.at, s.state = i+1, state
			return s.owners[state&^found>>shift]
		}
	}
	s.at = len(s.text)
	return nil
}

// in reports whether the text holds any of the literals.
func in[T string | []byte](a *automaton, text T) bool {
	if len(text) < a.min {
		return false
	}
	s := scan(a, text)
	return s.following() != nil
}
