package record

import "slices"

// Unfilled are the fields of a served type that no decoder fills: a rule that
// reads one reads nothing. They are there because rules written for NETCAP name
// them. The slice is the caller's.
func Unfilled(t Type) []string {
	switch t {
	case TypeHTTP: // they need a body, or more than one message
		return []string{"ContentTypeDetected", "DNSDoneAfter", "DoneAfter", "FirstByteAfter", "Ja4h", "RequestBody",
			"ResContentTypeDetected", "ResponseBody", "TLSDoneAfter"}
	case TypeSSH:
		return []string{"Notes"}
	case TypeTLSClientHello:
		return []string{"DstMAC", "SrcMAC"}
	case TypeTLSServerHello:
		return []string{"DstMAC", "Ja4s", "SrcMAC"}
	}
	return nil
}

// IsUnfilled reports whether no decoder fills the named field of a type.
func IsUnfilled(t Type, field string) bool { return slices.Contains(Unfilled(t), field) }
