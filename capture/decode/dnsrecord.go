package decode

import (
	"net/netip"

	"github.com/netcap-guard/netcap-guard/record"
)

// DNS record types whose data has fields of their own.
const (
	dnsA     = 1
	dnsNS    = 2
	dnsCNAME = 5
	dnsSOA   = 6
	dnsPTR   = 12
	dnsMX    = 15
	dnsTXT   = 16
	dnsAAAA  = 28
	dnsSRV   = 33
	dnsOPT   = 41
)

// message is a walk over one DNS message.
type message struct {
	d      *Decoder
	data   []byte
	pos    int
	budget int // entries that may still be decoded
	// bad is what was wrong with some name, where the walk could go on.
	bad *Error
	// text is how much may still be spelt out.
	text     int
	edns     bool
	ednsSize int32
}

// questions walks the question section; with keep it fills the list.
func (m *message) questions(count int, keep bool) *Error {
	for range count {
		if m.budget--; m.budget < 0 {
			return errDNSRecords
		}
		name, err := m.nextName(keep)
		var q *record.DNSQuestion
		if keep && (err == nil || len(name) > 0) { // a name cut short says something, too
			q = m.d.dns.questions.add()
			q.Name = m.d.strings.get(name)
		}
		if err != nil {
			return err
		}
		if len(m.data)-m.pos < 4 {
			return errDNSRecord
		}
		if q != nil {
			q.Type, q.Class = int32(u16(m.data[m.pos:])), int32(u16(m.data[m.pos+2:]))
		}
		m.pos += 4
	}
	return nil
}

// records walks a section of resource records; with keep it fills the list. It
// looks for EDNS (RFC 6891) in any case.
func (m *message) records(count int, into *list[record.DNSResourceRecord], keep bool) *Error {
	const fixed = 10 // type, class, TTL and the data's length
	for range count {
		if m.budget--; m.budget < 0 {
			return errDNSRecords
		}
		name, err := m.nextName(keep)
		if err != nil {
			return err
		}
		if len(m.data)-m.pos < fixed {
			return errDNSRecord
		}
		head := m.data[m.pos:]
		kind, class, length := u16(head), u16(head[2:]), int(u16(head[8:]))
		m.pos += fixed
		if kind == dnsOPT {
			m.edns, m.ednsSize = true, int32(class)
		}
		short := length > len(m.data)-m.pos
		if keep {
			r := into.add()
			r.Name = m.d.strings.get(name)
			r.Type, r.Class, r.TTL, r.DataLength = int32(kind), int32(class), u32(head[4:]), int32(length)
			if !short {
				r.Data = m.data[m.pos : m.pos+length]
				m.rdata(kind, length, r)
			}
		}
		if short {
			return errDNSRecord
		}
		m.pos += length
	}
	return nil
}

// rdata fills the field of the record's type; pos stands at its data, which is
// inside the message. Data that does not fit its type leaves the field empty.
func (m *message) rdata(kind uint16, length int, r *record.DNSResourceRecord) {
	switch kind {
	case dnsA:
		if length == 4 {
			r.IP = netip.AddrFrom4([4]byte(r.Data)).String()
		}
	case dnsAAAA:
		if length == 16 {
			r.IP = netip.AddrFrom16([16]byte(r.Data)).String()
		}
	case dnsNS:
		r.NS, _ = m.keptName(m.pos)
	case dnsCNAME:
		r.CNAME, _ = m.keptName(m.pos)
	case dnsPTR:
		r.PTR, _ = m.keptName(m.pos)
	case dnsTXT:
		r.TXTs = texts(r.Data)
	case dnsMX:
		if length >= 3 {
			r.MX = m.d.dns.mxs.add()
			r.MX.Preference = int32(u16(r.Data))
			name, _ := m.keptName(m.pos + 2)
			r.MX.Name = m.d.strings.get(name)
		}
	case dnsSRV:
		if length >= 7 {
			r.SRV = m.d.dns.srvs.add()
			r.SRV.Priority, r.SRV.Weight = int32(u16(r.Data)), int32(u16(r.Data[2:]))
			r.SRV.Port = int32(u16(r.Data[4:]))
			r.SRV.Name, _ = m.keptName(m.pos + 6)
		}
	case dnsSOA:
		m.soa(r)
	}
}

func (m *message) soa(r *record.DNSResourceRecord) {
	end := m.pos + len(r.Data)
	mname, at := m.keptName(m.pos)
	if at == 0 {
		return
	}
	rname, at := m.keptName(at)
	if at == 0 || end-at < 20 {
		return
	}
	numbers := m.data[at:]
	r.SOA = m.d.dns.soas.add()
	*r.SOA = record.DNSSOA{MName: mname, RName: rname, Serial: u32(numbers), Refresh: u32(numbers[4:]),
		Retry: u32(numbers[8:]), Expire: u32(numbers[12:]), Minimum: u32(numbers[16:])}
}

// texts takes the character strings of a TXT record apart.
func texts(data []byte) [][]byte {
	var all [][]byte
	for len(data) > 0 && int(data[0]) < len(data) {
		n := int(data[0])
		all = append(all, data[1:1+n])
		data = data[1+n:]
	}
	return all
}

// nextName reads the name at pos and moves behind it; with keep false it is
// not spelt out. With an error it returns what could be read.
func (m *message) nextName(keep bool) ([]byte, *Error) {
	buf, end := m.name(m.pos, m.d.dns.name[:0], keep)
	m.d.dns.name = buf
	if end == 0 {
		return buf, errDNSName
	}
	m.pos = end
	return buf, nil
}

// keptName reads a name inside a record's data into memory that lasts as long
// as the record, and returns where it ends: 0 if it cannot be told.
func (m *message) keptName(at int) ([]byte, int) {
	start := len(m.d.dns.arena)
	arena, end := m.name(at, m.d.dns.arena, true)
	m.d.dns.arena = arena
	return arena[start:len(arena):len(arena)], end
}

// name spells a name out behind buf, unless so much has been spelt out of the
// message already that it must be a bomb: a few bytes of pointers for each long
// name.
func (m *message) name(at int, buf []byte, keep bool) ([]byte, int) {
	start := len(buf)
	if keep && m.text <= 0 {
		keep, m.bad = false, errDNSBomb
	}
	buf, end, err := readName(m.data, at, buf, keep)
	m.text -= len(buf) - start
	if err != nil && m.bad == nil {
		m.bad = err
	}
	return buf, end
}
