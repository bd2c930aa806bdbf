package decode_test

import (
	"bytes"
	"encoding/csv"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"unicode/utf8"

	"github.com/netcap-guard/netcap-guard/capture"
	"github.com/netcap-guard/netcap-guard/capture/decode"
	"github.com/netcap-guard/netcap-guard/record"
)

// truth is what the captures' manifest says of one file.
type truth struct{ bareSYN, sshSYN, longDNS int }

// count reads a file to its end and counts what the records say of it.
func count(t testing.TB, path string) (truth, error) {
	src, err := capture.OpenFile(path)
	if err != nil {
		return truth{}, err
	}
	defer func() { _ = src.Close() }()
	var (
		n   truth
		set record.Set
		pkt capture.Packet
		dec = decode.New(everything())
	)
	dec.SetDecap(true)
	for {
		if err := src.Next(&pkt); errors.Is(err, io.EOF) {
			return n, nil
		} else if err != nil {
			return n, err
		}
		set.Time, set.Packet = pkt.Time, pkt.Number
		err := dec.Decode(uint32(pkt.Link), pkt.Data, pkt.Length, &set)
		var known *decode.Error
		if err != nil && !errors.As(err, &known) {
			t.Fatalf("%s: packet %d: %v", path, pkt.Number, err)
		}
		if set.Have.Has(record.TypeTCP) && set.TCP.SYN && !set.TCP.ACK {
			if set.TCP.PayloadSize == 0 {
				n.bareSYN++
			}
			if set.TCP.DstPort == 22 {
				n.sshSYN++
			}
		}
		if d := &set.DNS; set.Have.Has(record.TypeDNS) && !d.QR && len(d.Questions) > 0 && utf8.RuneCountInString(d.Questions[0].Name) > 100 {
			n.longDNS++
		}
	}
}

// manifest reads the truth beside the captures, by path below dir.
func manifest(t testing.TB, dir string) map[string]truth {
	t.Helper()
	f, err := os.Open(filepath.Join(dir, "manifest.tsv"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	r := csv.NewReader(f)
	r.Comma, r.LazyQuotes = '\t', true
	rows, err := r.ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	column := map[string]int{}
	for i, name := range rows[0] {
		column[name] = i
	}
	all := map[string]truth{}
	for _, row := range rows[1:] {
		var n truth
		for name, field := range map[string]*int{"n_bare_syn": &n.bareSYN, "n_ssh_syn": &n.sshSYN, "n_long_dns_queries": &n.longDNS} {
			if *field, err = strconv.Atoi(row[column[name]]); err != nil {
				*field = -1 // the manifest does not say
			}
		}
		all[filepath.Join(row[column["category"]], row[column["file"]])] = n
	}
	return all
}

// lenient are the captures of which the manifest counts less than is there, and
// why.
func lenient() map[string]struct {
	truth
	why string
} {
	return map[string]struct {
		truth
		why string
	}{
		"dns-tunnel/elisaUD-cloud-IncidentesCibe__dnscat2.pcap": {truth{longDNS: 23},
			"eight queries have a name of 264 bytes, which tshark refuses and a resolver may not: they are decoded and marked"},
	}
}

// TestCaptures reads every real capture there is: nothing panics or hangs, and
// the records agree with what another dissector counted.
func TestCaptures(t *testing.T) {
	dir := os.Getenv("NETCAP_GUARD_CAPTURES")
	if dir == "" {
		t.Skip("NETCAP_GUARD_CAPTURES is not set: no captures to read")
	}
	all := manifest(t, dir)
	if len(all) == 0 {
		t.Fatal("the manifest is empty")
	}
	for name, want := range all {
		got, err := count(t, filepath.Join(dir, name))
		if err != nil && !errors.Is(err, capture.ErrTruncated) && !errors.Is(err, capture.ErrFormat) && !errors.Is(err, capture.ErrLinkType) {
			t.Errorf("%s: %v", name, err)
		}
		if other, ok := lenient()[filepath.ToSlash(name)]; ok {
			t.Logf("%s: %+v, manifest %+v: %s", name, other.truth, want, other.why)
			want = other.truth
		}
		if got != want {
			t.Errorf("%s: %+v, manifest %+v (%v)", name, got, want, err)
		}
	}
	t.Logf("%d captures", len(all))
}

// TestCapturesCut reads the captures of the folders where most can go wrong cut
// off at places all over their first 2,000 bytes, and their packets cut
// likewise: no panic, no hang, and no error but the known ones.
func TestCapturesCut(t *testing.T) {
	dir := os.Getenv("NETCAP_GUARD_CAPTURES")
	if dir == "" {
		t.Skip("NETCAP_GUARD_CAPTURES is not set: no captures to read")
	}
	const reach, step = 2000, 23
	dec := decode.New(everything())
	dec.SetDecap(true)
	files, cuts := 0, 0
	for _, folder := range []string{"malformed", "ipv6", "encapsulated", "dns-tunnel", "sqli-http"} {
		paths, err := filepath.Glob(filepath.Join(dir, folder, "*"))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range paths {
			f, err := os.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			head, err := io.ReadAll(io.LimitReader(f, reach))
			if err = errors.Join(err, f.Close()); err != nil {
				t.Fatal(err)
			}
			files++
			for n := files % step; n <= len(head); n += step {
				cuts++
				readCut(t, path, head[:n], dec)
			}
		}
	}
	t.Logf("%d captures, cut at %d places, decode errors %v", files, cuts, dec.Errors())
	if files < 500 {
		t.Errorf("only %d captures", files)
	}
}

// readCut reads what is left of a capture; the last packet is decoded cut, too.
func readCut(t *testing.T, path string, data []byte, dec *decode.Decoder) {
	src, err := capture.OpenReader(bytes.NewReader(data), path)
	if err != nil {
		if !errors.Is(err, capture.ErrFormat) && !errors.Is(err, capture.ErrTruncated) && !errors.Is(err, capture.ErrLinkType) {
			t.Fatalf("%s, %d bytes: %v", path, len(data), err)
		}
		return
	}
	var (
		p   capture.Packet
		set record.Set
	)
	for {
		if err := src.Next(&p); err != nil {
			if !errors.Is(err, io.EOF) && !errors.Is(err, capture.ErrTruncated) && !errors.Is(err, capture.ErrLinkType) && !errors.Is(err, capture.ErrFormat) {
				t.Fatalf("%s, %d bytes: %v", path, len(data), err)
			}
			break
		}
		set.Time = p.Time
		for _, n := range []int{len(p.Data), len(data) % (len(p.Data) + 1)} {
			err := dec.Decode(uint32(p.Link), p.Data[:n:n], p.Length, &set)
			var known *decode.Error
			if err != nil && !errors.As(err, &known) {
				t.Fatalf("%s, %d bytes: packet %d: %v", path, len(data), p.Number, err)
			}
		}
	}
}
