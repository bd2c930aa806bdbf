package record

import "slices"

// LateFields are the fields of a type that are not known yet when its record
// is first delivered: an SSH side's offer follows its identification line. A
// second record of the same side then has them all; its Header says Late. A
// rule that reads one of these fields looks at the second alone, any other at
// the first alone, so that each sees a side once, and as early as it can. The
// slice is the caller's.
func LateFields(t Type) []string {
	if t == TypeSSH {
		return []string{"HASSH", "Algorithms", "ServerHostKeyAlgorithms", "HasWeakKex", "HasWeakCipher", "HasWeakMAC"}
	}
	return nil
}

// Late reports whether a rule that reads these fields of a type has to wait
// for the late record.
func Late(t Type, fields ...string) bool {
	return slices.ContainsFunc(LateFields(t), func(f string) bool { return slices.Contains(fields, f) })
}
