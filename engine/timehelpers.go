package engine

import (
	"errors"
	"fmt"
	"reflect"
	"time"

	"github.com/expr-lang/expr/ast"
)

// timeHelpers compute with packet time: with the time argument left out, with
// the record's own time stamp. Times are Unix nanoseconds, as in the records;
// hours and days are those of the process's time zone (TZ).
func timeHelpers() []helper {
	return []helper{{
		name: "HourOfDay", usage: "HourOfDay([time]) int", doc: "the hour, 0 to 23",
		params: []param{takesInt}, clock: clockLast, result: new(func(...any) int),
		run: intOfTime(hourOfDay), lower: lowerIntOfTime(hourOfDay),
	}, {
		name: "Weekday", usage: "Weekday([time]) int", doc: "the day of the week, 0 = Sunday to 6 = Saturday",
		params: []param{takesInt}, clock: clockLast, result: new(func(...any) int),
		run: intOfTime(weekday), lower: lowerIntOfTime(weekday),
	}, {
		name: "IsBusinessHours", usage: "IsBusinessHours([time]) bool", doc: "Monday to Friday, 9:00 to 17:00",
		params: []param{takesInt}, clock: clockLast, result: new(func(...any) bool),
		run: func(_ *constants, args []any) (any, error) {
			ns, err := argInt(args[0])
			return isBusinessHours(ns), err
		},
		lower: func(l *lowerer, args []ast.Node) (value, error) {
			i, err := l.integer(args[0])
			return value{class: isBool, b: func(e *env) bool { return isBusinessHours(i(e)) }}, err
		},
	}, {
		name: "TimeInRange", usage: `TimeInRange([time,] "08:00", "18:00") bool`,
		doc:    "whether the time of day is from the first until before the second; 22:00 to 06:00 goes over midnight",
		params: []param{takesInt, takesClock, takesClock}, clock: clockFirst, result: new(func(...any) bool),
		run: runTimeInRange, lower: lowerTimeInRange,
	}, {
		name: "DurationSince", usage: "DurationSince(time) float",
		doc:    "the seconds from then to the packet",
		params: []param{takesInt, takesInt}, clock: clockLast, result: new(func(...any) float64),
		run: func(_ *constants, args []any) (any, error) {
			then, err := argInt(args[0])
			now, err2 := argInt(args[1])
			return seconds(now - then), errors.Join(err, err2)
		},
		lower: func(l *lowerer, args []ast.Node) (value, error) {
			then, err := l.integer(args[0])
			now, err2 := l.integer(args[1])
			return value{class: isFloat, f: func(e *env) float64 { return seconds(now(e) - then(e)) }}, errors.Join(err, err2)
		},
	}, {
		name: "FormatTime", usage: "FormatTime([time,] layout) string",
		doc:    `the time in Go's layout, a constant like "2006-01-02 15:04"`,
		params: []param{takesInt, takesConstant}, clock: clockFirst, result: new(func(...any) string),
		run: func(_ *constants, args []any) (any, error) {
			ns, err := argInt(args[0])
			layout, err2 := argText(args[1])
			return local(ns).Format(layout), errors.Join(err, err2)
		},
		lower: func(l *lowerer, args []ast.Node) (value, error) {
			i, err := l.integer(args[0])
			layout, _ := constantText(args[1])
			return value{class: isText, s: func(e *env) string { return local(i(e)).Format(layout) }}, err
		},
	}}
}

func local(ns int) time.Time { return time.Unix(0, int64(ns)) }

func hourOfDay(ns int) int { return local(ns).Hour() }
func weekday(ns int) int   { return int(local(ns).Weekday()) }

func isBusinessHours(ns int) bool {
	t := local(ns)
	d := t.Weekday()
	return d != time.Saturday && d != time.Sunday && t.Hour() >= 9 && t.Hour() < 17
}

func seconds(ns int) float64 { return float64(ns) / float64(time.Second) }

// parseClock reads "15:04" as minutes of the day.
func parseClock(s string) (int, error) {
	t, err := time.Parse("15:04", s)
	if err != nil {
		return 0, fmt.Errorf(`%q is no time of day like "08:00"`, s)
	}
	return t.Hour()*60 + t.Minute(), nil
}

func timeInRange(ns, from, to int) bool {
	t := local(ns)
	minute := t.Hour()*60 + t.Minute()
	if from <= to {
		return from <= minute && minute < to
	}
	return minute >= from || minute < to
}

func runTimeInRange(_ *constants, args []any) (any, error) {
	ns, err := argInt(args[0])
	first, err2 := argText(args[1])
	second, err3 := argText(args[2])
	from, err4 := parseClock(first)
	to, err5 := parseClock(second)
	return timeInRange(ns, from, to), errors.Join(err, err2, err3, err4, err5)
}

func lowerTimeInRange(l *lowerer, args []ast.Node) (value, error) {
	i, err := l.integer(args[0])
	first, _ := constantText(args[1])
	second, _ := constantText(args[2])
	from, err2 := parseClock(first)
	to, err3 := parseClock(second)
	return value{class: isBool, b: func(e *env) bool { return timeInRange(i(e), from, to) }}, errors.Join(err, err2, err3)
}

func intOfTime(f func(int) int) func(*constants, []any) (any, error) {
	return func(_ *constants, args []any) (any, error) {
		ns, err := argInt(args[0])
		return f(ns), err
	}
}

func lowerIntOfTime(f func(int) int) func(*lowerer, []ast.Node) (value, error) {
	return func(l *lowerer, args []ast.Node) (value, error) {
		i, err := l.integer(args[0])
		if err != nil {
			return value{}, err
		}
		return intValue(func(e *env) int { return f(i(e)) })
	}
}

// clockPatcher puts the record's time stamp where a time helper was called
// without a time.
type clockPatcher struct {
	helpers map[string]*helper
	field   string // of the record: Timestamp, or TimestampLast
}

// Visit implements ast.Visitor. It is called more than once on a tree, and a
// call that is complete stays as it is.
func (p *clockPatcher) Visit(n *ast.Node) {
	call, ok := (*n).(*ast.CallNode)
	if !ok {
		return
	}
	id, ok := call.Callee.(*ast.IdentifierNode)
	if !ok {
		return
	}
	h := p.helpers[id.Value]
	if h == nil || h.clock == 0 || len(call.Arguments) != len(h.params)-1 {
		return
	}
	now := &ast.IdentifierNode{Value: p.field}
	now.SetLocation(call.Location())
	now.SetType(reflect.TypeFor[int64]()) // a call that was checked is not checked again
	if h.clock == clockFirst {
		call.Arguments = append([]ast.Node{now}, call.Arguments...)
	} else {
		call.Arguments = append(call.Arguments, now)
	}
}
