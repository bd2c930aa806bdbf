package decode

const (
	// maxNameText bounds a name as it is spelt out. RFC 1035 allows 255 bytes
	// on the wire; longer names are sent all the same, by tunnels too.
	maxNameText = 1024
	// maxPointers bounds the compression pointers followed for one name.
	maxPointers = 127
)

// readName spells the name at pos of a DNS message out behind buf: labels
// joined by dots, no final dot, control bytes as \DDD (decimal, RFC 4343),
// every other byte as it is (dots and backslashes inside a label too, so that
// the length is the one that other tools show). It returns where the name ends
// in the message, 0 where that cannot be told, and whether the name is
// complete and legal; if not, buf has what could be read of it.
//
// A pointer must point before the place where the name (or the part behind the
// last pointer) began, so there are no loops.
func readName(msg []byte, pos int, buf []byte, keep bool) (text []byte, end int, ok bool) {
	start, begin := len(buf), pos
	for pointers := 0; ; {
		if pos >= len(msg) {
			return buf, end, false
		}
		length := int(msg[pos])
		switch {
		case length == 0:
			if end == 0 {
				end = pos + 1
			}
			return buf, end, true
		case length >= 0xc0:
			if pos+1 >= len(msg) {
				return buf, end, false
			}
			target := (length&0x3f)<<8 | int(msg[pos+1])
			if end == 0 {
				end = pos + 2
			}
			if !keep {
				return buf, end, true
			}
			if pointers++; target >= begin || pointers > maxPointers {
				return buf, end, false
			}
			pos, begin = target, target
		case length >= 0x40: // extended labels (RFC 6891, 5) were given up
			return buf, end, false
		default:
			if pos+1+length > len(msg) {
				return buf, end, false
			}
			if keep {
				if len(buf)-start > maxNameText {
					return cutName(msg, pos, buf, end)
				}
				buf = appendLabel(buf, start, msg[pos+1:pos+1+length])
			}
			pos += 1 + length
		}
	}
}

// cutName ends a name that is too long: where it ends may still be told.
func cutName(msg []byte, pos int, buf []byte, end int) ([]byte, int, bool) {
	if end == 0 {
		_, end, _ = readName(msg, pos, nil, false)
	}
	return buf, end, false
}

// appendLabel appends one label to the name that begins at start of buf.
func appendLabel(buf []byte, start int, label []byte) []byte {
	if len(buf) > start {
		buf = append(buf, '.')
	}
	for _, c := range label {
		if c < ' ' || c == 0x7f {
			buf = append(buf, '\\', '0'+c/100, '0'+c/10%10, '0'+c%10)
			continue
		}
		buf = append(buf, c)
	}
	return buf
}
