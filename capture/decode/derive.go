package decode

import (
	"math"
	"strconv"

	"github.com/netcap-guard/netcap-guard/record"
)

// entropy is Shannon's, in bits a byte: 0 for nothing or for one byte
// repeated, 8 for noise.
func entropy[T []byte | string](data T) float64 {
	if len(data) == 0 {
		return 0
	}
	var count [256]int
	for i := range len(data) {
		count[data[i]]++
	}
	sum, n := 0.0, float64(len(data))
	for _, c := range count {
		if c > 0 {
			p := float64(c) / n
			sum -= p * math.Log2(p)
		}
	}
	return sum
}

// fingerprint fills the fields that name an implementation by its options:
// OptionsFingerprint lists their kinds in order, 2-4-8-1-3; Ja4t (of a SYN)
// and Ja4ts (of a SYN with ACK) are window_kinds_mss_scale with 00 for what is
// absent. opts ends before an option that cannot be.
func (d *Decoder) fingerprint(opts []byte, r *record.TCP) {
	b := d.text[:0]
	for len(opts) > 0 {
		if len(b) > 0 {
			b = append(b, '-')
		}
		b = strconv.AppendUint(b, uint64(opts[0]), 10)
		length := 1
		if opts[0] != tcpEnd && opts[0] != tcpNop {
			// Behind an end-of-options come padding bytes, which the walk
			// over the options has not checked.
			if len(opts) < 2 || opts[1] < 2 || int(opts[1]) > len(opts) {
				break
			}
			length = int(opts[1])
		}
		opts = opts[length:]
	}
	kinds := len(b)
	r.OptionsFingerprint, r.Ja4t, r.Ja4ts = d.strings.get(b), "", ""
	if r.SYN && !r.RST && !r.FIN {
		b = strconv.AppendInt(b, int64(r.Window), 10)
		b = append(b, '_')
		if kinds == 0 {
			b = append(b, "00"...)
		}
		b = append(b, b[:kinds]...)
		b = appendOr00(append(b, '_'), r.MSS)
		b = appendOr00(append(b, '_'), r.WindowScale)
		print := d.strings.get(b[kinds:])
		if r.ACK {
			r.Ja4ts = print
		} else {
			r.Ja4t = print
		}
	}
	d.text = b
}

func appendOr00(b []byte, v int32) []byte {
	if v == 0 {
		return append(b, "00"...)
	}
	return strconv.AppendInt(b, int64(v), 10)
}
