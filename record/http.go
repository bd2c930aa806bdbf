package record

// HTTP is one HTTP message: a request as soon as its headers are complete, or
// (IsResponse) an answer, whose SrcIP is the server. URL is the request target
// as sent, URLDecoded the same with its percent-encoding resolved. Headers are
// by their name as Go spells it: RequestHeader["User-Agent"]. Bodies are passed
// over, so RequestBody and ResponseBody stay empty, as do the fields that need
// them or more than one message: ContentTypeDetected, ResContentTypeDetected and
// the times DoneAfter, FirstByteAfter, DNSDoneAfter, TLSDoneAfter; and Ja4h.
type HTTP struct {
	Timestamp                int64
	Proto                    string
	Method                   string
	Host                     string
	UserAgent                string
	Referer                  string
	ReqCookies               []*HTTPCookie
	ReqContentLength         int32
	URL                      string
	URLDecoded               string
	ResContentLength         int32
	ContentType              string
	StatusCode               int32
	SrcIP                    string
	DstIP                    string
	SrcPort                  int32
	DstPort                  int32
	IsResponse               bool
	ReqContentEncoding       string
	ResContentEncoding       string
	ServerName               string
	ResCookies               []*HTTPCookie
	ResContentType           string
	DoneAfter                int64
	DNSDoneAfter             int64
	FirstByteAfter           int64
	TLSDoneAfter             int64
	ContentTypeDetected      string
	ResContentTypeDetected   string
	RequestHeader            map[string]string
	ResponseHeader           map[string]string
	Parameters               map[string]string
	RequestBody              []byte
	ResponseBody             []byte
	Flow                     string
	StrictTransportSecurity  string
	ContentSecurityPolicy    string
	XContentTypeOptions      string
	XFrameOptions            string
	XXSSProtection           string
	ReferrerPolicy           string
	AuthorizationType        string
	XForwardedFor            string
	XRealIP                  string
	AccessControlAllowOrigin string
	Server                   string
	XPoweredBy               string
	Ja4h                     string
	CommunityID              string
	HasServerTiming          bool
}

// HTTPCookie is one cookie of a request or an answer.
type HTTPCookie struct {
	Name     string
	Value    string
	Path     string
	Domain   string
	Expires  uint64
	MaxAge   int32
	Secure   bool
	HttpOnly bool
	SameSite int32
}
