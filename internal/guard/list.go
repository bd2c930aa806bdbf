package guard

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/netcap-guard/netcap-guard/firewall"
)

const (
	// maxLine bounds a line of a list of addresses.
	maxLine = 64 << 10
	// maxReason bounds the reason of one line, in bytes; a kernel keeps less.
	maxReason = 256
)

// listed is one line of a list: a prefix, and what the line says of it. What
// it does not say is empty.
type listed struct {
	line                         int // 0: no line, an argument
	prefix                       netip.Prefix
	life, reason, target, action string
	rate                         string
	burst                        string
	// more columns say something than have a name.
	more int
}

// errLine marks what is wrong with one line alone.
type errLine struct {
	line int
	err  error
}

func (e *errLine) Error() string { return fmt.Sprintf("line %d: %v", e.line, e.err) }

// Unwrap returns the cause.
func (e *errLine) Unwrap() error { return e.err }

// listReader reads a list of addresses: one address or prefix a line, CSV (the
// first line may name the columns, else the first column counts), or JSON
// objects. Blank lines and what follows a # are passed over. Each line is read
// by what it looks like.
type listReader struct {
	in      *bufio.Reader
	line    int
	begun   bool           // a line that says something was seen
	columns map[string]int // of CSV; nil until a line of it was seen
	bare    bool           // CSV without a header
}

func newListReader(in io.Reader) *listReader {
	return &listReader{in: bufio.NewReaderSize(in, maxLine)}
}

// next returns the next entry. The error is io.EOF at the end, an *errLine
// where only this line is wrong, or that of the input.
func (l *listReader) next() (listed, error) {
	for {
		text, err := l.read()
		if err != nil {
			return listed{}, err
		}
		if text = strings.TrimSpace(text); text == "" || text[0] == '#' {
			continue
		}
		e, ok, err := l.parse(text)
		l.begun = true
		if err != nil {
			return listed{}, &errLine{l.line, err}
		}
		if ok {
			e.line = l.line
			return e, nil
		}
	}
}

// read returns the next line. One that is too long is skipped whole.
func (l *listReader) read() (string, error) {
	line, err := l.in.ReadSlice('\n')
	if len(line) > 0 {
		l.line++
	}
	switch {
	case errors.Is(err, bufio.ErrBufferFull):
		for errors.Is(err, bufio.ErrBufferFull) {
			_, err = l.in.ReadSlice('\n')
		}
		if err == nil || errors.Is(err, io.EOF) {
			err = &errLine{l.line, fmt.Errorf("longer than %d bytes", maxLine-1)}
		}
		return "", err
	case err != nil && (len(line) == 0 || !errors.Is(err, io.EOF)):
		return "", err
	}
	if l.line == 1 {
		line = bytes.TrimPrefix(line, []byte("\ufeff"))
	}
	return string(line), nil
}

// parse reads one line; false for a header.
func (l *listReader) parse(text string) (listed, bool, error) {
	if text[0] == '{' {
		e, err := parseObject(text)
		return e, true, err
	}
	plain, _, _ := strings.Cut(text, "#") // what is said of an address may hold commas
	if l.columns != nil || strings.ContainsRune(plain, ',') || !l.begun && columnOf(plain) == "prefix" {
		return l.parseCSV(text)
	}
	p, err := firewall.ParsePrefix(plain)
	return listed{prefix: p}, true, err
}

// columnNames are what a column of CSV may be called, by what it holds.
func columnNames() map[string][]string {
	return map[string][]string{
		"prefix": {"prefix", "ip", "address", "addr", "cidr", "network", "ip_address", "src_ip", "host", "value"},
		"life":   {"for", "duration", "life"}, "reason": {"reason", "comment", "scenario"},
		"target": {"target"}, "action": {"action"}, "rate": {"rate"}, "burst": {"burst"},
	}
}

// columnOf is what a column of this name holds; empty for an unknown one.
func columnOf(name string) string {
	name = strings.ToLower(strings.TrimSpace(name))
	for what, names := range columnNames() {
		for _, n := range names {
			if n == name {
				return what
			}
		}
	}
	return ""
}

// columnsOf are the columns of a header, by what they hold; false where no
// field is the name of the column that every list needs.
func columnsOf(fields []string) (map[string]int, bool) {
	columns := map[string]int{}
	for i, f := range fields {
		what := columnOf(f)
		if _, twice := columns[what]; what != "" && !twice {
			columns[what] = i
		}
	}
	_, named := columns["prefix"]
	return columns, named
}

// parseCSV reads one line of CSV. The first one of the list may be the names of
// the columns; a later one that looks like it would have the rest of the list
// misread.
func (l *listReader) parseCSV(text string) (listed, bool, error) {
	r := csv.NewReader(strings.NewReader(text))
	r.TrimLeadingSpace = true
	fields, err := r.Read()
	if err != nil {
		var pe *csv.ParseError
		if errors.As(err, &pe) {
			err = pe.Err // its own line numbers are of this line alone
		}
		return listed{}, false, fmt.Errorf("CSV: %w", err)
	}
	if l.columns == nil {
		columns, named := columnsOf(fields)
		if named && !l.begun {
			l.columns = columns
			return listed{}, false, nil
		}
		l.columns, l.bare = map[string]int{"prefix": 0}, true
	}
	field := func(what string) string {
		if i, ok := l.columns[what]; ok && i < len(fields) {
			return strings.TrimSpace(fields[i])
		}
		return ""
	}
	e := listed{life: field("life"), reason: field("reason"), target: field("target"), action: field("action"),
		rate: field("rate"), burst: field("burst")}
	plain, _, commented := strings.Cut(field("prefix"), "#")
	if l.bare && !commented {
		for _, f := range fields[1:] {
			if strings.TrimSpace(f) != "" {
				e.more++
			}
		}
	}
	e.prefix, err = firewall.ParsePrefix(plain)
	return e, true, err
}

// object is a line of JSON: what `list -o json` prints is one, and so is what
// most other programs print of their blocks. Unknown keys are passed over.
type object struct {
	Prefix   string `json:"prefix"`
	IP       string `json:"ip"`
	For      any    `json:"for"`
	Duration any    `json:"duration"`
	// Remaining are seconds. Null in both of these is how list prints a block
	// without an end.
	Remaining json.RawMessage `json:"remaining"`
	Expires   json.RawMessage `json:"expires"`
	Reason    string          `json:"reason"`
	Target    string          `json:"target"`
	Action    string          `json:"action"`
	Rate      string          `json:"rate"`
	Burst     int64           `json:"burst"`
	Limit     string          `json:"limit"` // "10/second burst 5"
}

func parseObject(text string) (listed, error) {
	var o object
	dec := json.NewDecoder(strings.NewReader(text))
	dec.UseNumber()
	if err := dec.Decode(&o); err != nil {
		return listed{}, jsonError(err)
	}
	if dec.More() {
		return listed{}, errors.New("JSON: more than one object on the line")
	}
	e := listed{reason: o.Reason, target: o.Target, action: o.Action, rate: o.Rate}
	if o.Burst != 0 {
		e.burst = strconv.FormatInt(o.Burst, 10)
	}
	if rate, burst, ok := strings.Cut(o.Limit, " burst "); ok && e.rate == "" {
		e.rate, e.burst = rate, burst
	}
	switch {
	case o.Prefix != "" && o.IP != "":
		return e, errors.New("JSON: prefix and ip: one of the two")
	case o.Prefix == "":
		o.Prefix = o.IP
	}
	if o.Prefix == "" {
		return e, errors.New("JSON: neither prefix nor ip")
	}
	var err error
	if e.life, err = o.life(); err != nil {
		return e, err
	}
	e.prefix, err = firewall.ParsePrefix(o.Prefix)
	return e, err
}

// life is how long the object says its block is to last: text, or a number of
// minutes as in rules; what remains of a listed block.
func (o *object) life() (string, error) {
	v := o.For
	if v == nil {
		v = o.Duration
	}
	switch v := v.(type) {
	case nil:
		return o.remaining()
	case string:
		return v, nil
	case json.Number:
		if n, err := strconv.ParseUint(v.String(), 10, 31); err == nil {
			return strconv.FormatUint(n, 10) + "m", nil
		}
	}
	return "", fmt.Errorf("JSON: %v is no duration (use 30m, 2h, 7d, or a whole number of minutes)", v)
}

// remaining is how long a listed block has left; empty where the object does
// not say.
func (o *object) remaining() (string, error) {
	const null = "null"
	switch text := string(o.Remaining); {
	case text == null && string(o.Expires) == null:
		return "0", nil // for good
	case text == null || text == "":
		return "", nil
	default:
		seconds, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return "", fmt.Errorf("JSON: remaining %s is no number of seconds", text)
		}
		return time.Duration(max(seconds, 0.001) * float64(time.Second)).Round(time.Millisecond).String(), nil
	}
}

// jsonError says what is wrong with a line of JSON in the words of the line,
// not in those of this program.
func jsonError(err error) error {
	if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return fmt.Errorf("JSON: %s is a %s and must be a %s", wrong.Field, wrong.Value, kindName(wrong.Type))
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("JSON: the object does not end on its line")
	}
	return fmt.Errorf("JSON: %w", err)
}

// kindName is how JSON calls the values of a Go type.
func kindName(t reflect.Type) string {
	switch t.Kind() {
	case reflect.String:
		return "string"
	case reflect.Int64:
		return "whole number"
	default:
		return t.String()
	}
}
