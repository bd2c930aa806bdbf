package decode

import (
	"strconv"
	"strings"

	"github.com/netcap-guard/netcap-guard/record"
)

const (
	dnsPort   = 53
	dnsHeader = 12
	// maxDNSRecords bounds the entries decoded of one message. A datagram of
	// 1,500 bytes has room for 135, one of 64 KB for more than any resolver
	// sends.
	maxDNSRecords = 1024
	// maxDNSText bounds the names spelt out of one message, the most of them
	// through compression pointers: several times what the largest message has
	// without those.
	maxDNSText = 256 << 10
)

// dnsScratch is what a decoder reuses from message to message.
type dnsScratch struct {
	questions   list[record.DNSQuestion]
	answers     list[record.DNSResourceRecord]
	authorities list[record.DNSResourceRecord]
	additionals list[record.DNSResourceRecord]
	soas        list[record.DNSSOA]
	srvs        list[record.DNSSRV]
	mxs         list[record.DNSMX]
	name        []byte // the name being read
	arena       []byte // names that records hold as bytes
}

func (s *dnsScratch) reset() {
	s.questions.reset()
	s.answers.reset()
	s.authorities.reset()
	s.additionals.reset()
	s.soas.reset()
	s.srvs.reset()
	s.mxs.reset()
	s.arena = s.arena[:0]
}

var rcodeNames = [...]string{"NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED",
	"YXDOMAIN", "YXRRSET", "NXRRSET", "NOTAUTH", "NOTZONE", "DSOTYPENI"}

// dnsMessage decodes a DNS message (RFC 1035) in data, of which there were
// size bytes. A message that is broken somewhere gives a record with what
// stands before that place.
func (d *Decoder) dnsMessage(data []byte, size int, set *record.Set) error {
	if len(data) < dnsHeader {
		return d.fail(errDNSShort)
	}
	r, flags := &set.DNS, u16(data[2:])
	set.Have |= 1 << record.TypeDNS
	r.Timestamp = set.Time
	r.SrcPort, r.DstPort = int32(set.SrcPort), int32(set.DstPort)
	r.ID = int32(u16(data))
	r.QR, r.AA, r.TC = flags>>15 != 0, flags>>10&1 != 0, flags>>9&1 != 0
	r.RD, r.RA = flags>>8&1 != 0, flags>>7&1 != 0
	r.OpCode, r.Z, r.ResponseCode = int32(flags>>11&15), int32(flags>>4&7), int32(flags&15)
	r.QDCount, r.ANCount = int32(u16(data[4:])), int32(u16(data[6:]))
	r.NSCount, r.ARCount = int32(u16(data[8:])), int32(u16(data[10:]))
	r.PacketSize = int32(size)
	r.IsNXDOMAIN = r.QR && r.ResponseCode == 3
	more := d.plan.dnsMore
	if more == 0 {
		return nil
	}
	d.addresses(more, set, &r.SrcIP, &r.DstIP)
	if more&moreCommunity != 0 {
		r.CommunityID = set.CommunityID()
	}
	if more&moreName != 0 {
		r.ResponseCodeName = rcodeName(r.ResponseCode)
	}
	return d.dnsSections(data, r)
}

func rcodeName(code int32) string {
	if int(code) < len(rcodeNames) {
		return rcodeNames[code]
	}
	return strconv.Itoa(int(code))
}

// dnsSections walks as many sections as are asked for.
func (d *Decoder) dnsSections(data []byte, r *record.DNS) error {
	more, s := d.plan.dnsMore, &d.dns
	s.reset()
	r.Questions, r.Answers, r.Authorities, r.Additionals = nil, nil, nil, nil
	r.QueryNameLength, r.SubdomainCount, r.QueryNameEntropy, r.QueryNameTLD = 0, 0, 0, ""
	r.HasEDNS, r.EDNSPayloadSize = false, 0
	m := message{d: d, data: data, pos: dnsHeader, budget: maxDNSRecords, text: maxDNSText}

	err := m.sections(more, r)
	r.Questions = s.questions.used()
	if more&moreQueryName != 0 && len(r.Questions) > 0 {
		queryName(r.Questions[0].Name, r)
	}
	r.Answers, r.Authorities, r.Additionals = s.answers.used(), s.authorities.used(), s.additionals.used()
	r.HasEDNS, r.EDNSPayloadSize = m.edns, m.ednsSize
	if err == nil {
		err = m.bad
	}
	r.IsMalformed = err != nil
	if err != nil {
		return d.fail(err)
	}
	return nil
}

// sections walks them in their order, as far as the last one that matters. To
// know that nothing is wrong with a message all of it is read.
func (m *message) sections(more more, r *record.DNS) *Error {
	const (
		additionals = moreAdditionals | moreEDNS | moreMalformed
		authorities = additionals | moreAuthorities
		answers     = authorities | moreAnswers
		questions   = answers | moreQuestions | moreQueryName
	)
	s, all := &m.d.dns, more&moreMalformed != 0
	if more&questions == 0 {
		return nil
	}
	err := m.questions(int(r.QDCount), all || more&(moreQuestions|moreQueryName) != 0)
	if err == nil && more&answers != 0 {
		err = m.records(int(r.ANCount), &s.answers, all || more&moreAnswers != 0)
	}
	if err == nil && more&authorities != 0 {
		err = m.records(int(r.NSCount), &s.authorities, all || more&moreAuthorities != 0)
	}
	if err == nil && more&additionals != 0 {
		err = m.records(int(r.ARCount), &s.additionals, all || more&moreAdditionals != 0)
	}
	return err
}

// queryName derives what rules ask about the first question's name: its
// length, its entropy in bits a byte, its last label, and how many labels
// stand before the last two (the usual place of the registered domain).
func queryName(name string, r *record.DNS) {
	r.QueryNameLength = int32(len(name))
	r.QueryNameEntropy = entropy(name)
	r.SubdomainCount = int32(max(strings.Count(name, ".")-1, 0))
	r.QueryNameTLD = name[strings.LastIndexByte(name, '.')+1:]
}
