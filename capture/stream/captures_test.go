package stream_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/netcap-guard/netcap-guard/capture"
	"github.com/netcap-guard/netcap-guard/capture/decode"
	"github.com/netcap-guard/netcap-guard/capture/stream"
	"github.com/netcap-guard/netcap-guard/record"
)

// aggregator stands between several values of one field in tshark's output.
const aggregator = "\x01"

// fields are tshark's names of what is compared.
func fields() []string {
	return []string{
		"http.request.method", "http.request.uri", "http.host", "http.user_agent", "http.response.code",
		"tls.handshake.type", "tls.handshake.extensions_server_name", "tls.handshake.ja3", "tls.handshake.ja3s",
		"ssh.protocol", "ssh.kex.hassh", "ssh.kex.hasshserver", "dns.id", "dns.qry.name",
	}
}

// values counts each value of each field.
type values map[string]map[string]int

func (v values) add(field, value string) {
	if v[field] == nil {
		v[field] = map[string]int{}
	}
	v[field][value]++
}

// dissect asks tshark.
func dissect(t testing.TB, path string) (values, error) {
	t.Helper()
	args := []string{"-n", "-r", path, "-T", "fields", "-E", "occurrence=a", "-E", "aggregator=" + aggregator,
		"-Y", "!icmp && !icmpv6 && (tcp && !quic && (http.request || http.response || tls.handshake.type in {1,2} || ssh.protocol || ssh.kex.hassh || " +
			"ssh.kex.hasshserver) || (dns && !mdns && !llmnr && (udp.port == 53 || tcp.port == 53)))"}
	for _, f := range fields() {
		args = append(args, "-e", f)
	}
	cmd := exec.Command("tshark", args...)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	v := values{}
	for line := range strings.Lines(string(out)) {
		cells := strings.Split(strings.TrimRight(line, "\n"), "\t")
		for i, f := range fields() {
			if i >= len(cells) || cells[i] == "" {
				continue
			}
			list := strings.Split(cells[i], aggregator)
			if f == "http.host" { // of a request that has several the first, of an answer that has one none
				requests := len(strings.FieldsFunc(cells[0], func(c rune) bool { return string(c) == aggregator }))
				list = list[:min(len(list), requests)]
			}
			for _, value := range list {
				if f == "tls.handshake.type" && value != "1" && value != "2" {
					continue
				}
				v.add(f, value)
			}
		}
	}
	return v, err
}

// reader is a Sink that counts what the records say.
type reader struct {
	v values
}

func (r *reader) Record(set *record.Set) { r.note(set) }

func (r *reader) note(set *record.Set) {
	keep := func(field, value string) {
		if value != "" {
			r.v.add(field, strings.Clone(value))
		}
	}
	have := set.Have
	for typ := have.Next(); typ != record.NoType; typ = have.Next() {
		switch typ {
		case record.TypeHTTP:
			h := &set.HTTP
			if h.IsResponse {
				keep("http.response.code", strconv.Itoa(int(h.StatusCode)))
				continue
			}
			keep("http.request.method", h.Method)
			keep("http.request.uri", escape(h.URL))
			keep("http.host", escape(h.Host))
			keep("http.user_agent", escape(h.UserAgent))
		case record.TypeTLSClientHello:
			keep("tls.handshake.type", "1")
			keep("tls.handshake.extensions_server_name", escape(set.ClientHello.SNI))
			keep("tls.handshake.ja3", set.ClientHello.Ja3)
		case record.TypeTLSServerHello:
			keep("tls.handshake.type", "2")
			keep("tls.handshake.ja3s", set.ServerHello.Ja3s)
		case record.TypeSSH:
			s := &set.SSH
			switch {
			case !set.Late:
				keep("ssh.protocol", escape(s.Ident))
			case s.IsClient:
				keep("ssh.kex.hassh", s.HASSH)
			default:
				keep("ssh.kex.hasshserver", s.HASSH)
			}
		case record.TypeDNS:
			keep("dns.id", fmt.Sprintf("0x%04x", set.DNS.ID))
			for _, q := range set.DNS.Questions {
				keep("dns.qry.name", escape(q.Name))
			}
		}
	}
}

// escape spells a value as tshark prints it.
func escape(s string) string { return strings.ReplaceAll(s, "\t", `\t`) }

// replay counts what our records say of a capture.
func replay(t testing.TB, path string) (values, stream.Stats, error) {
	t.Helper()
	src, err := capture.OpenFile(path)
	if err != nil {
		return nil, stream.Stats{}, err
	}
	defer func() { _ = src.Close() }()
	var (
		set   record.Set
		pkt   capture.Packet
		dec   = decode.New(everything())
		r     = &reader{v: values{}}
		table = stream.New(everything(), r, stream.Config{DNS: dec.DNS})
	)
	dec.SetDecap(true)
	for {
		if err := src.Next(&pkt); errors.Is(err, io.EOF) {
			return r.v, table.Stats(), nil
		} else if err != nil {
			return r.v, table.Stats(), err
		}
		set.Header = record.Header{Time: pkt.Time, Packet: pkt.Number}
		_ = dec.Decode(uint32(pkt.Link), pkt.Data, pkt.Length, &set)
		r.note(&set)
		table.Segment(&set, false)
	}
}

// common is how many values two counts share.
func common(a, b map[string]int) (n int) {
	for v, k := range a {
		n += min(k, b[v])
	}
	return n
}

func total(a map[string]int) (n int) {
	for _, k := range a {
		n += k
	}
	return n
}

// missing lists some values that a has more often than b.
func missing(a, b map[string]int) string {
	var list []string
	for _, v := range slices.Sorted(maps.Keys(a)) {
		if n := a[v] - b[v]; n > 0 && len(list) < 4 {
			list = append(list, fmt.Sprintf("%d x %.80q", n, v))
		}
	}
	return strings.Join(list, ", ")
}

// TestAgainstTshark compares fields of HTTP, TLS, SSH and DNS with
// those that tshark shows, as counts of their values in each capture.
// NETCAP_GUARD_CAPTURES_ONLY narrows it to names that contain it. It ends, and
// says so, a minute before the test's own deadline: tshark takes its time.
func TestAgainstTshark(t *testing.T) {
	dir := os.Getenv("NETCAP_GUARD_CAPTURES")
	if dir == "" {
		t.Skip("NETCAP_GUARD_CAPTURES is not set: no captures to read")
	}
	if _, err := exec.LookPath("tshark"); err != nil {
		t.Skip("tshark is not installed: nothing to compare with (make test-tshark installs it)")
	}
	type sum struct{ theirs, ours, same int }
	sums := map[string]*sum{}
	for _, f := range fields() {
		sums[f] = &sum{}
	}
	files, err := filepath.Glob(filepath.Join(dir, "*", "*"))
	if err != nil {
		t.Fatal(err)
	}
	compared := 0
	for _, path := range files {
		name, _ := filepath.Rel(dir, path)
		if !strings.Contains(name, os.Getenv("NETCAP_GUARD_CAPTURES_ONLY")) || strings.HasPrefix(name, "malformed") {
			continue
		}
		if end, ok := t.Deadline(); ok && time.Until(end) < time.Minute {
			t.Logf("no time for the captures from %s on (use -timeout 0)", name)
			break
		}
		begin := time.Now()
		ours, stats, err := replay(t, path)
		took := time.Since(begin)
		theirs, tsharkErr := dissect(t, path)
		if err != nil || tsharkErr != nil {
			t.Logf("%s: ours %v, tshark %v", name, err, tsharkErr)
		}
		if ours == nil {
			continue
		}
		compared++
		for _, f := range fields() {
			s, same := sums[f], common(ours[f], theirs[f])
			s.theirs, s.ours, s.same = s.theirs+total(theirs[f]), s.ours+total(ours[f]), s.same+same
			if same != total(theirs[f]) || same != total(ours[f]) {
				t.Logf("%s: %s: tshark %d, ours %d, same %d (%v, %+v)\n\tonly tshark: %s\n\tonly ours: %s", name, f, total(theirs[f]),
					total(ours[f]), same, took, stats, missing(theirs[f], ours[f]), missing(ours[f], theirs[f]))
			}
		}
	}
	t.Logf("%d captures compared", compared)
	for _, f := range fields() {
		s := sums[f]
		t.Logf("%-40s tshark %7d  ours %7d  same %7d", f, s.theirs, s.ours, s.same)
		if s.same*100 < s.theirs*97 {
			t.Errorf("%s: %d of %d values are the same, want 97 %%", f, s.same, s.theirs)
		}
	}
}
