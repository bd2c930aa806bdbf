// Package engine is detection: it loads rule files, compiles their
// expressions against the record types, counts matches in exact sliding
// windows on packet time, raises alerts and hands the actions of a rule to a
// firewall manager. It knows no kernel and no packet: records come in
// through a Worker, blocks go out through a manager.
//
// # A rule's way
//
// Load reads rule files strictly and reports every mistake of every file with
// its position. Expressions are parsed and type-checked by expr-lang against
// the record's Go struct, so a misspelt field is a load error. The checked
// tree is then lowered to Go closures over the record's memory: a rule that
// does not match allocates nothing. What cannot be lowered runs in the
// expression VM, is marked (Rule.Native) and named in the report.
//
// # Goroutines
//
// One Worker serves one goroutine. Workers share the immutable rule set and
// the threshold table, whose shards are locked for the length of one update.
// Alerts and actions leave through bounded queues that the packet path never
// waits for; what does not fit is counted. With Config.Lossless (replay) the
// worker delivers them itself, in order, and nothing is lost.
package engine
