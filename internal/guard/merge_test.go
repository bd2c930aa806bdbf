package guard

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/netcap-guard/netcap-guard/capture"
)

// list is a Source over packets held in memory: their time is their data.
type list struct {
	times []int64
	err   error // at the end, instead of io.EOF
	n     uint64
}

func (l *list) Next(p *capture.Packet) error {
	if int(l.n) == len(l.times) {
		if l.err != nil {
			return l.err
		}
		return io.EOF
	}
	*p = capture.Packet{Time: l.times[l.n], Number: l.n + 1}
	l.n++
	return nil
}

func (l *list) Stats() capture.Stats { return capture.Stats{Received: l.n} }
func (l *list) Close() error         { return nil }

func TestMerge(t *testing.T) {
	cut := errors.New("cut")
	for _, tt := range []struct {
		name    string
		sources []capture.Source
		want    string // time/number of each packet
		errs    int
	}{
		{"one capture as it is", []capture.Source{&list{times: []int64{3, 1, 2}}}, "3/1 1/2 2/3", 0},
		{"two captures by time", []capture.Source{&list{times: []int64{10, 20, 30}}, &list{times: []int64{5, 20, 25}}}, "5/1 10/1 20/2 20/2 25/3 30/3", 0},
		{"the earlier day first", []capture.Source{&list{times: []int64{100, 101}}, &list{times: []int64{1, 2}}}, "1/1 2/2 100/1 101/2", 0},
		{"a cut capture does not end the others", []capture.Source{&list{times: []int64{1}, err: cut}, &list{times: []int64{2, 3}}}, "1/1 2/1 3/2", 1},
		{"one cut capture", []capture.Source{&list{times: []int64{1}, err: cut}}, "1/1", 1},
		{"an empty one among them", []capture.Source{&list{}, &list{times: []int64{7}}, &list{}}, "7/1", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := merge(tt.sources)
			var got []string
			var p capture.Packet
			for m.next(&p) == nil {
				got = append(got, fmt.Sprintf("%d/%d", p.Time, p.Number))
			}
			if s := strings.Join(got, " "); s != tt.want {
				t.Errorf("got %s, want %s", s, tt.want)
			}
			if len(m.errs) != tt.errs {
				t.Errorf("errors %v, want %d", m.errs, tt.errs)
			}
			if err := m.next(&p); !errors.Is(err, io.EOF) {
				t.Errorf("after the end: %v", err)
			}
		})
	}
}
