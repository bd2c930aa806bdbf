package decode_test

import (
	"testing"

	"github.com/netcap-guard/netcap-guard/capture/decode"
	"github.com/netcap-guard/netcap-guard/record"
)

// TestWindowScale: what reassembly needs of a SYN's options.
func TestWindowScale(t *testing.T) {
	for name, tt := range map[string]struct {
		options string
		flags   byte
		want    uint8
	}{
		"as Linux sends it":       {"\x02\x04\x05\xb4\x04\x02\x08\x0a\x00\x00\x00\x01\x00\x00\x00\x00\x01\x03\x03\x07", 2, 8},
		"of a SYN-ACK":            {"\x03\x03\x00\x00", 0x12, 1},
		"more than there can be":  {"\x01\x03\x03\xff", 2, 15},
		"none":                    {"\x02\x04\x05\xb4", 2, 0},
		"behind the end":          {"\x00\x03\x03\x07", 2, 0},
		"cut":                     {"\x01\x01\x03\x03", 2, 0},
		"without a length":        {"\x01\x01\x01\x03", 2, 0},
		"on an ordinary segment":  {"\x01\x03\x03\x07", 0x10, 0},
		"of a length of its own":  {"\x03\x04\x07\x00", 2, 0},
		"behind one that is odd":  {"\x1c\x03\x00\x01\x03\x03\x09\x00", 2, 10},
		"behind one of no length": {"\x1c\x00\x03\x03", 2, 0},
	} {
		head := []byte{0x9c, 0x40, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, byte(5+len(tt.options)/4) << 4, tt.flags, 0xff, 0xff, 0, 0, 0, 0}
		tcp := append(head, tt.options...)
		frame := append([]byte("\x02\x00\x00\x00\x00\x09\x02\x00\x00\x00\x00\x01\x08\x00"+
			"\x45\x00\x00"), byte(20+len(tcp)), 0, 0, 0, 0, 64, 6, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2)
		frame = append(frame, tcp...)
		var want record.Want
		want.Add(record.TypeHTTP)
		var set record.Set
		if err := decode.New(want).Decode(1, frame, len(frame), &set); err != nil || !set.HasSegment || set.Segment.Scale != tt.want {
			t.Errorf("%s: %v, %+v, want %d", name, err, set.Segment, tt.want)
		}
	}
}
