package backend

import (
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// CommentPrefix begins every comment of ours in a kernel listing.
const CommentPrefix = "NETCAP: "

const (
	commentSep   = "; "
	commentStamp = "; @"
	// MaxRuleName is the longest rule name, in bytes, that survives in a
	// comment uncut (a longer one is a load error).
	MaxRuleName = 64
	// minComment is room for prefix, a full rule name and the stamp.
	minComment = len(CommentPrefix) + MaxRuleName + len(commentStamp) + 18
)

// Comment is what a kernel comment carries: what an element or a rule cannot
// say of itself.
type Comment struct {
	Rule, Reason string
	Created      time.Time // millisecond precision
}

// Encode writes the comment as
//
//	NETCAP: RULE; REASON; @CREATED[/RULELEN]
//
// in at most limit bytes (at least 93), CREATED in Unix milliseconds, RULELEN only where RULE
// itself holds "; ". Quotes and control characters are replaced, because nft
// prints them unescaped; a rule name is cut at MaxRuleName bytes; the reason
// is cut with … on a rune boundary.
func (c Comment) Encode(limit int) string { return string(c.Append(nil, limit)) }

// Append is Encode behind what dst holds already. It allocates nothing where
// dst has room and nothing has to be replaced or cut.
func (c Comment) Append(dst []byte, limit int) []byte {
	limit = max(limit, minComment)
	rule := cut(Clean(c.Rule), MaxRuleName)
	var digits [len(commentStamp) + 24]byte // two numbers and a slash: 20 + 1 + 2
	stamp := strconv.AppendInt(append(digits[:0], commentStamp...), c.Created.UnixMilli(), 10)
	if strings.Contains(rule, commentSep) || strings.HasSuffix(rule, commentSep[:1]) {
		stamp = strconv.AppendInt(append(stamp, '/'), int64(len(rule)), 10)
	}
	room := limit - len(CommentPrefix) - len(rule) - len(commentSep) - len(stamp)
	reason := cut(Clean(c.Reason), max(room, 0))
	dst = append(append(dst, CommentPrefix...), rule...)
	if reason != "" {
		dst = append(append(dst, commentSep...), reason...)
	}
	return append(dst, stamp...)
}

// DecodeComment reads what Encode wrote. It reports false for any text that
// Encode cannot have written.
func DecodeComment(s string) (Comment, bool) {
	body, ok := strings.CutPrefix(s, CommentPrefix)
	if !ok {
		return Comment{}, false
	}
	at := strings.LastIndex(body, commentStamp)
	if at < 0 {
		return Comment{}, false
	}
	stamp, ruleLen, hasLen := strings.Cut(body[at+len(commentStamp):], "/")
	ms, err := strconv.ParseInt(stamp, 10, 64)
	if err != nil || (ms < 0 && ms != time.Time{}.UnixMilli()) {
		return Comment{}, false
	}
	c := Comment{Created: time.UnixMilli(ms)}
	body = body[:at]
	if !hasLen {
		c.Rule, c.Reason, _ = strings.Cut(body, commentSep)
		return c, true
	}
	n, err := strconv.Atoi(ruleLen)
	if err != nil || n < 0 || n > len(body) {
		return Comment{}, false
	}
	c.Rule = body[:n]
	c.Reason, ok = strings.CutPrefix(body[n:], commentSep)
	return c, ok || body[n:] == ""
}

// Clean makes a text safe for a comment: quotes become ', backslashes /,
// control characters and invalid UTF-8 become ?.
func Clean(s string) string {
	if plain(s) {
		return s
	}
	return strings.Map(func(r rune) rune {
		switch {
		case r == '"':
			return '\''
		case r == '\\':
			return '/'
		case r == utf8.RuneError, unicode.IsControl(r):
			return '?'
		}
		return r
	}, strings.TrimSpace(s))
}

// plain reports whether s is ASCII that Clean would leave as it is: nearly
// every text is, and a hundred thousand of them go by in one change.
func plain(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			return false
		}
	}
	return s == "" || s[0] != ' ' && s[len(s)-1] != ' '
}

// cut shortens s to at most n bytes, on a rune boundary, with … at the end
// where something was lost and there is room for it.
func cut(s string, n int) string {
	const ellipsis = "…"
	if len(s) <= n {
		return s
	}
	if n < len(ellipsis) {
		return ""
	}
	end := n - len(ellipsis)
	for end > 0 && !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end] + ellipsis
}
