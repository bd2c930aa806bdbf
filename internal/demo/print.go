package demo

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/term"
)

// printer writes the show. It is safe for concurrent use: an attack and its
// alert speak at the same time. Errors of the writer are not the demo's: what
// it proves does not depend on who reads along.
type printer struct {
	mu    sync.Mutex // one line at a time
	w     io.Writer
	color bool
	began time.Time
}

const (
	bold  = "\x1b[1m"
	red   = "\x1b[31m"
	green = "\x1b[32m"
	faint = "\x1b[2m"
	reset = "\x1b[0m"
)

func newPrinter(w io.Writer) *printer {
	f, ok := w.(*os.File)
	color := ok && term.IsTerminal(int(f.Fd())) && os.Getenv("NO_COLOR") == ""
	return &printer{w: w, color: color, began: time.Now()}
}

func (p *printer) line(style, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if p.color && style != "" {
		text = style + text + reset
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	_, _ = fmt.Fprintf(p.w, "%5.1fs %s\n", time.Since(p.began).Seconds(), text)
}

func (p *printer) step(text string)                 { p.line(bold, "== %s", text) }
func (p *printer) say(format string, args ...any)   { p.line("", "   "+format, args...) }
func (p *printer) alert(format string, args ...any) { p.line(red, "   "+format, args...) }
func (p *printer) quote(text string)                { p.line(faint, "   | %s", text) }

func (p *printer) check(ok bool, text string) {
	if ok {
		p.line(green, "   ok   %s", text)
		return
	}
	p.line(red, "   FAIL %s", text)
}

func (p *printer) verdict(format string, args ...any) {
	p.line(green, "PASS "+format, args...)
}
