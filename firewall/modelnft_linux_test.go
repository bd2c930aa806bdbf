package firewall

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/netcap-guard/netcap-guard/backend"
)

// nftWorld is the kernel's nf_tables, and somebody with the nft program.
type nftWorld struct{ kernelWorld }

func (*nftWorld) comment() int { return 127 }

// nftRoom is how many blocks a set holds.
const nftRoom = 3

// start makes a Manager that allows more than its sets have room for.
func (w *nftWorld) start(cfg *ManagerConfig) (*Manager, error) {
	w.cfg = cfg
	small := *cfg
	small.MaxActiveBlocks = nftRoom
	m, err := NewManager(&small)
	if err == nil {
		m.cfg.MaxActiveBlocks = cfg.MaxActiveBlocks
	}
	return m, err
}

func (*nftWorld) room(_ *rand.Rand, ref *reference) func(backend.Block) bool {
	return func(b backend.Block) bool { return neighbours(ref, b) < nftRoom }
}

func (*nftWorld) relax() {}

// neighbours is how many others are in the set in which the block lies.
func neighbours(ref *reference, b backend.Block) int {
	n := 0
	for k, o := range ref.blocks {
		if k != b.Key && setName(o.Block) == setName(b) {
			n++
		}
	}
	return n
}

func (*nftWorld) logPrefixes() []string { return []string{"SSH: ", "SYN flood: ", ""} }

// settle waits for the monitor.
func (*nftWorld) settle(t *testing.T, _ *Manager, arrived func() bool) {
	for deadline := time.Now().Add(patience); !arrived(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Errorf("after %s the monitor has not told the Manager", patience)
			return
		}
	}
}

// setName is the set in which a block lies.
func setName(b backend.Block) string {
	word := map[backend.Action]string{backend.Drop: "drop", backend.Reject: "reject", backend.RejectReset: "reset",
		backend.RateLimit: "limit", backend.Log: "log"}[b.Action]
	side, family := "src", "4"
	if b.Target == backend.Destination {
		side = "dst"
	}
	if b.Prefix.Addr().Is6() {
		family = "6"
	}
	name := fmt.Sprintf("%s_%s%s_%d", word, side, family, b.Prefix.Bits())
	if b.Log {
		name += "_" + strings.NewReplacer(":", "_3a", " ", "_20").Replace(b.LogPrefix)
	}
	return name
}

// rank is where the rules of an action's sets stand in a chain.
func rank(a backend.Action) int {
	switch a {
	case backend.Log:
		return 0
	case backend.RateLimit:
		return 2
	}
	return 1
}

// damage is a command of nft.
func (w *nftWorld) damage(_ *testing.T, rng *rand.Rand, ref *reference) damage {
	sets := groups(ref)
	if len(sets) > 0 {
		stops := slices.DeleteFunc(slices.Clone(sets), func(set []backend.Key) bool { return !ref.blocks[set[0]].Action.Stops() })
		switch n := rng.IntN(10); {
		case n < 2 && len(stops) > 0:
			return w.add(rng, ref, stops)
		case n < 4:
			return w.take(ref, sets, some(rng, ref.keys()))
		case n < 5:
			return w.take(ref, sets, whole(rng, sets))
		case n < 7:
			return w.take(ref, sets, some(rng, sets[rng.IntN(len(sets))]))
		case n < 8: // a flush of one set is the removal of all it has
			set := whole(rng, sets)
			d := w.take(ref, sets, set)
			return w.command(d, "flush set inet NETCAP "+setName(ref.blocks[set[0]].Block))
		}
	}
	how := []string{
		"delete table inet NETCAP", "flush table inet NETCAP", "flush ruleset", "delete chain inet NETCAP output",
		"flush chain inet NETCAP source", "flush chain inet NETCAP prerouting", "insert rule inet NETCAP prerouting accept",
		"add rule inet NETCAP destination drop", "flush set inet NETCAP allow4", "add element inet NETCAP allow6 { 2001:4860::/32 }",
		"add table inet NETCAP { flags dormant; }",
	}
	if len(sets) > 0 {
		b := ref.blocks[sets[0][0]]
		side := map[backend.Target]string{backend.Source: "source", backend.Destination: "destination"}[b.Target]
		how = append(how, "flush chain inet NETCAP "+side+"\ndelete set inet NETCAP "+setName(b.Block))
	}
	return w.command(damage{resyncs: 1}, how[rng.IntN(len(how))])
}

func (w *nftWorld) command(d damage, text string) damage {
	d.name, d.do = text, func() { w.run(text, "nft", "-f", "-") }
	return d
}

// take deletes elements in one transaction.
func (w *nftWorld) take(ref *reference, sets [][]backend.Key, keys []backend.Key) damage {
	var text strings.Builder
	for _, k := range keys {
		fmt.Fprintf(&text, "delete element inet NETCAP %s { %s }\n", setName(ref.blocks[k].Block), k.Prefix.Addr())
	}
	// The monitor names sets in the order of the chains' rules.
	order := func(a, b backend.Key) int {
		x, y := ref.blocks[a], ref.blocks[b]
		return cmp.Or(cmp.Compare(a.Target, b.Target), cmp.Compare(rank(x.Action), rank(y.Action)),
			cmp.Compare(a.Prefix.Addr().BitLen(), b.Prefix.Addr().BitLen()), cmp.Compare(b.Prefix.Bits(), a.Prefix.Bits()),
			cmp.Compare(x.Action, y.Action), cmp.Compare(x.LogPrefix, y.LogPrefix))
	}
	var d damage
	d.lifted, d.resyncs = removed(sets, keys, false, order)
	return w.command(d, text.String())
}

// add adds an element to a set that is there, or gives one another end.
func (w *nftWorld) add(rng *rand.Rand, ref *reference, sets [][]backend.Key) damage {
	set := sets[rng.IntN(len(sets))]
	b := foreignBlock(rng, ref)
	like := ref.blocks[set[0]]
	b.Key, b.Action = set[rng.IntN(len(set))], like.Action
	for _, p := range universe() {
		k := backend.Key{Prefix: p, Target: b.Target}
		if ref.blocks[k] == nil && len(set) < nftRoom && p.Bits() == b.Prefix.Bits() && p.Addr().BitLen() == b.Prefix.Addr().BitLen() && !ref.exempt(p, false) {
			b.Key = k
		}
	}
	text, beside := "", false
	if old := ref.blocks[b.Key]; old != nil {
		if !old.Permanent() && !b.Permanent() {
			b.ExpiresAt = old.ExpiresAt.Add(time.Hour)
		}
		b.Action, beside = w.otherAction(rng, ref, old.Block)
		if !beside {
			text = fmt.Sprintf("delete element inet NETCAP %s { %s }\n", setName(old.Block), b.Prefix.Addr())
		}
	}
	life := ""
	if !b.Permanent() {
		life = fmt.Sprintf("timeout %ds", int(time.Until(b.ExpiresAt).Seconds()))
	}
	comment := backend.Comment{Rule: b.Rule, Reason: b.Reason, Created: b.CreatedAt}.Encode(w.comment())
	text += fmt.Sprintf("add element inet NETCAP %s { %s %s comment %q }", setName(b), b.Prefix.Addr(), life, comment)
	if beside { // the first stays
		return w.command(damage{}, text)
	}
	return w.command(damage{added: []backend.Block{b}}, text)
}

// otherAction is the action of a second set in which a block could lie, beside
// where it lies or instead.
func (*nftWorld) otherAction(rng *rand.Rand, ref *reference, b backend.Block) (a backend.Action, beside bool) {
	for _, o := range ref.keys() {
		like := ref.blocks[o].Block
		there := setName(like)
		like.Action = b.Action
		roomy := neighbours(ref, backend.Block{Key: b.Key, Action: ref.blocks[o].Action}) < nftRoom
		if roomy && ref.blocks[o].Action.Stops() && there != setName(b) && setName(like) == setName(b) {
			return ref.blocks[o].Action, rng.IntN(2) == 0
		}
	}
	return b.Action, false
}

// ruleset is what nft prints, as far as it matters here.
type ruleset struct {
	Nftables []struct {
		Set *struct {
			Name string
			Elem []json.RawMessage
		}
		Chain *struct{ Name, Hook string }
		Rule  *struct {
			Chain string
			Expr  json.RawMessage
		}
	}
}

// filter reads the table as the nft program shows it: which sets the chains
// look into, and what is in them.
func (w *nftWorld) filter(t *testing.T) func(backend.Target, netip.Addr) bool {
	var all ruleset
	if err := json.Unmarshal([]byte(w.run("", "nft", "-j", "list", "table", "inet", "NETCAP")), &all); err != nil {
		t.Fatal(err)
	}
	rules := all.rules(t)
	var allowed []netip.Addr // pairs
	stopped := map[backend.Target]map[netip.Prefix]bool{backend.Source: {}, backend.Destination: {}}
	for _, o := range all.Nftables {
		if o.Set == nil {
			continue
		}
		if strings.HasPrefix(o.Set.Name, "allow") {
			for _, e := range o.Set.Elem {
				first, last := elementSpan(t, e)
				allowed = append(allowed, first, last)
			}
			continue
		}
		if strings.HasPrefix(o.Set.Name, "limit_") || strings.HasPrefix(o.Set.Name, "log_") {
			continue
		}
		bits, err := strconv.Atoi(o.Set.Name[strings.LastIndex(o.Set.Name, "_")+1:])
		if err != nil {
			t.Fatal(err)
		}
		target, field := backend.Source, `"field":"saddr"`
		if strings.Contains(o.Set.Name, "_dst") {
			target, field = backend.Destination, `"field":"daddr"`
		}
		var wants []string
		for _, e := range o.Set.Elem {
			a, _ := elementSpan(t, e)
			stopped[target][netip.PrefixFrom(a, bits)] = true
			if bits < a.BitLen() {
				ones, _ := netip.AddrFromSlice(slices.Repeat([]byte{0xff}, a.BitLen()/8))
				wants = append(wants, `"`+netip.PrefixFrom(ones, bits).Masked().Addr().String()+`"`)
			}
		}
		rules.look(t, target.String(), o.Set.Name, "@allow"+family(o.Set.Name), field, wants...)
	}
	return func(target backend.Target, a netip.Addr) bool {
		for i := 0; i < len(allowed); i += 2 {
			if a.BitLen() == allowed[i].BitLen() && between(allowed[i:i+2], a) {
				return false
			}
		}
		return slices.ContainsFunc(universe(), func(p netip.Prefix) bool { return p.Contains(a) && stopped[target][p] })
	}
}

// nftRules are the rules of each chain, as compact JSON.
type nftRules map[string][]string

// rules reads the chains and checks that the hooks lead to the sides.
func (all *ruleset) rules(t *testing.T) nftRules {
	t.Helper()
	rules, hooks := nftRules{}, map[string]bool{}
	for _, o := range all.Nftables {
		if o.Rule != nil {
			var text bytes.Buffer
			if err := json.Compact(&text, o.Rule.Expr); err != nil {
				t.Fatal(err)
			}
			rules[o.Rule.Chain] = append(rules[o.Rule.Chain], text.String())
		}
		if o.Chain != nil {
			hooks[o.Chain.Hook] = true
		}
	}
	for _, hook := range []string{"prerouting", "output"} {
		if !hooks[hook] || !strings.Contains(strings.Join(rules[hook], ""), `{"jump":{"target":"source"}}][{"jump":{"target":"destination"}}`) {
			t.Errorf("hook %s does not lead to the sides", hook)
		}
	}
	return rules
}

// look reports a chain that does not look into a set at the field with what is
// wanted, or does so for addresses of the allow set, too.
func (r nftRules) look(t *testing.T, chain, set, allow, field string, wants ...string) {
	t.Helper()
	returned := false // to whom the chain has let go by then
	for _, rule := range r[chain] {
		lacks := func(want string) bool { return !strings.Contains(rule, want) }
		allows := !lacks(field) && !lacks(`"`+allow+`"`)
		if allows && !lacks(`"return"`) {
			returned = true
		}
		if !lacks(`"@`+set+`"`) && !lacks(field) && !slices.ContainsFunc(wants, lacks) && (returned || allows && !lacks(`"op":"!="`)) {
			return
		}
	}
	t.Errorf("chain %s does not look into set %s with %q and out of %s:\n%s", chain, set, wants, allow, strings.Join(r[chain], "\n"))
}

// family is the 4 or 6 in a set's name.
func family(set string) string {
	if strings.Contains(set, "_src6_") || strings.Contains(set, "_dst6_") {
		return "6"
	}
	return "4"
}

// elementSpan is the first and the last address of an element.
func elementSpan(t *testing.T, raw json.RawMessage) (first, last netip.Addr) {
	t.Helper()
	var text string
	var e struct {
		Elem   struct{ Val json.RawMessage }
		Prefix struct {
			Addr string
			Len  int
		}
		Range []string
	}
	if json.Unmarshal(raw, &text) == nil {
		return netip.MustParseAddr(text), netip.MustParseAddr(text)
	}
	if err := json.Unmarshal(raw, &e); err != nil {
		t.Fatalf("%v: %s", err, raw)
	}
	switch {
	case e.Elem.Val != nil:
		return elementSpan(t, e.Elem.Val)
	case len(e.Range) == 2:
		return netip.MustParseAddr(e.Range[0]), netip.MustParseAddr(e.Range[1])
	}
	return span(netip.PrefixFrom(netip.MustParseAddr(e.Prefix.Addr), e.Prefix.Len))
}
