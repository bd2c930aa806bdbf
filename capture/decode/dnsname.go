package decode

const (
	// maxNameText bounds a name as it is spelt out. RFC 1035 allows 255 bytes
	// on the wire; longer names are sent all the same, by tunnels too.
	maxNameText = 1024
	// maxNameWire is what RFC 1035, 3.1 allows.
	maxNameWire = 255
	// maxPointers bounds the compression pointers followed for one name.
	maxPointers = 127
)

// readName spells the name at pos of a DNS message out behind buf: labels
// joined by dots, no final dot, control bytes as \DDD (decimal, RFC 4343),
// every other byte as it is (dots and backslashes inside a label too, so that
// the length is the one that other tools show). It returns where the name ends
// in the message, 0 where that cannot be told, and errDNSName where the name is
// not complete; buf then has what could be read of it. A name that is complete
// but longer than the 255 bytes that are allowed comes with errDNSLong.
//
// A pointer must point before the place where the name (or the part behind the
// last pointer) began, so there are no loops.
func readName(msg []byte, pos int, buf []byte, keep bool) (text []byte, end int, err *Error) {
	start, begin, wire := len(buf), pos, 1
	for pointers := 0; ; {
		if pos >= len(msg) {
			return buf, end, errDNSName
		}
		length := int(msg[pos])
		switch {
		case length == 0:
			if end == 0 {
				end = pos + 1
			}
			if wire > maxNameWire {
				err = errDNSLong
			}
			return buf, end, err
		case length >= 0xc0:
			if pos+1 >= len(msg) {
				return buf, end, errDNSName
			}
			target := (length&0x3f)<<8 | int(msg[pos+1])
			if end == 0 {
				end = pos + 2
			}
			if !keep {
				return buf, end, nil
			}
			if pointers++; target >= begin || pointers > maxPointers {
				return buf, end, errDNSName
			}
			pos, begin = target, target
		case length >= 0x40: // extended labels (RFC 6891, 5) were given up
			return buf, end, errDNSName
		default:
			if pos+1+length > len(msg) {
				return buf, end, errDNSName
			}
			wire += 1 + length
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
func cutName(msg []byte, pos int, buf []byte, end int) ([]byte, int, *Error) {
	if end == 0 {
		_, end, _ = readName(msg, pos, nil, false)
	}
	return buf, end, errDNSName
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
