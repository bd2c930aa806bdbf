package demo

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"time"

	"github.com/netcap-guard/netcap-guard/internal/netlab"
)

// The demo's two rules, as rules.yml names them.
const (
	scanRule = "Block Port Scanner"
	sshRule  = "Block SSH Brute Force"
)

// attack is one attack and what must follow it.
type attack struct {
	rule     string
	from, to netip.Addr
	expires  time.Time // of its block
}

// play is the show from the first ping to the empty listing.
func (s *stage) play(ctx context.Context) error {
	victim, attacker, _ := hosts()
	scan := &attack{rule: scanRule, from: attacker.v4, to: victim.v4}
	burst := &attack{rule: sshRule}
	burst.from, burst.to = burstAddrs()

	s.out.step("before the attack, everybody is served")
	for _, a := range []*attack{scan, burst} {
		if err := s.served(ctx, "attacker", s.attacker, a.from, a.to, true); err != nil {
			return err
		}
	}
	if err := s.bystanderServed(ctx); err != nil {
		return err
	}
	began := time.Now()
	if err := s.underAttack(ctx, scan, s.scan); err != nil {
		return err
	}
	if err := s.underAttack(ctx, burst, s.burst); err != nil {
		return err
	}
	if err := s.listing(ctx, scan, burst); err != nil {
		return err
	}
	for _, a := range []*attack{scan, burst} {
		if err := s.served(ctx, "attacker", s.attacker, a.from, a.to, false); err != nil {
			return err
		}
	}
	if err := s.bystanderServed(ctx); err != nil {
		return err
	}
	s.out.step("the blocks end by themselves")
	for _, a := range []*attack{scan, burst} {
		if err := s.released(ctx, a); err != nil {
			return err
		}
	}
	s.blocked = time.Since(began)
	return s.leave(ctx)
}

// underAttack runs an attack and shows the alert and the action it led to.
func (s *stage) underAttack(ctx context.Context, a *attack, run func(context.Context, *attack) error) error {
	done := make(chan error, 1)
	go func() { done <- run(ctx, a) }()
	alert, alertErr := await(ctx, s.guard, 10*time.Second, "the alert "+strconv.Quote(a.rule), func(e event) bool {
		return e.Type == "alert" && e.Alert.Signature == a.rule && e.SrcIP == a.from
	})
	if alertErr == nil {
		s.out.alert("ALERT %q (%s): %d packets from %s within %d s",
			alert.Alert.Signature, alert.Alert.Severity, alert.Alert.Count, alert.SrcIP, alert.Alert.Window)
	}
	act, actErr := await(ctx, s.guard, 5*time.Second, "the action of "+strconv.Quote(a.rule), func(e event) bool {
		return e.Type == "action" && e.Action.Rule == a.rule && e.Action.IP == a.from.String()
	})
	a.expires = act.Action.Expires
	err := errors.Join(alertErr, actErr, <-done)
	if err == nil {
		s.expect(act.Action.Result == "created", "action %s on %s: %s", act.Action.Type, act.Action.IP, act.Action.Result)
	}
	return err
}

// scan is a real SYN scan of the thousand usual ports. Retries are off: once
// blocked there is nobody to answer.
func (s *stage) scan(ctx context.Context, a *attack) error {
	args := []string{"-sS", "-n", "-Pn", "-T5", "--max-retries", "0", "-S", a.from.String(), "-e", "eth0", a.to.String()}
	s.out.step("the attacker scans the victim's ports: nmap -sS " + a.to.String())
	_, err := s.attacker.Exec(ctx, "nmap", args...)
	return err
}

// burst opens connections to port 22 as a password guesser does, until the
// door is shut.
func (s *stage) burst(ctx context.Context, a *attack) error {
	// The pace leaves a busy machine two seconds to shut it.
	const tries, pace = 100, 20 * time.Millisecond
	s.out.step(fmt.Sprintf("the attacker tries SSH over and over at %s", a.to))
	tick := time.NewTicker(pace)
	defer tick.Stop()
	through := 0
	for through < tries && connect(ctx, s.attacker, a.from, a.to) == nil {
		through++
		<-tick.C
	}
	s.expect(through < tries, "the SSH server answered %d times, then no more", through)
	return ctx.Err()
}

// served checks that a host gets answers from the victim, or that it does not.
func (s *stage) served(ctx context.Context, who string, ns *netlab.NS, from, to netip.Addr, want bool) error {
	ok, err := pings(ctx, ns, from, to)
	if err != nil {
		return err
	}
	state := "is not answered"
	if ok {
		state = "is answered"
	}
	s.expect(ok == want, "%s's ping %s -> %s %s", who, from, to, state)
	return nil
}

func (s *stage) bystanderServed(ctx context.Context) error {
	victim, _, bystander := hosts()
	if err := s.served(ctx, "bystander", s.bystander, bystander.v4, victim.v4, true); err != nil {
		return err
	}
	if haveIPv6() {
		if err := s.served(ctx, "bystander", s.bystander, bystander.v6, victim.v6, true); err != nil {
			return err
		}
	}
	err := connect(ctx, s.bystander, bystander.v4, victim.v4)
	s.expect(err == nil, "bystander's connection to port 22 is answered%s", because(err))
	return ctx.Err()
}

func because(err error) string {
	if err == nil {
		return ""
	}
	return ": " + err.Error()
}

// listing shows the kernel's own words on the blocks.
func (s *stage) listing(ctx context.Context, attacks ...*attack) error {
	for _, a := range attacks {
		out, err := s.backend.list(ctx, s.victim, a.from)
		if err != nil {
			return err
		}
		s.out.step(out.command)
		for _, line := range out.lines {
			s.out.quote(line)
		}
		s.expect(out.complete(a), "the kernel lists %s with its end and the comment %q", a.from, "NETCAP: "+a.rule)
	}
	return nil
}

// released waits until the attacker is answered again, and checks that this
// is not before the block's end.
func (s *stage) released(ctx context.Context, a *attack) error {
	// An iptables rule's end is in whole seconds, and a ping is given one.
	const early, late = time.Second, 5 * time.Second
	for {
		ok, err := pings(ctx, s.attacker, a.from, a.to)
		if err != nil {
			return err
		}
		now := time.Now()
		off := now.Sub(a.expires).Round(100 * time.Millisecond)
		if ok || off > late {
			s.expect(ok && off > -early, "attacker's ping from %s is answered again %s after the block's end", a.from, off)
			return nil
		}
	}
}

// leave stops the guard and looks for what it left.
func (s *stage) leave(ctx context.Context) error {
	s.out.step("the guard ends (SIGTERM)")
	if err := s.guard.Stop(ctx); err != nil {
		return fmt.Errorf("the guard did not end in order: %w", err)
	}
	e, err := await(ctx, s.guard, time.Second, "its statistics", func(e event) bool { return e.Type == "stats" })
	if err != nil {
		return err
	}
	fw := e.Stats.Firewall
	s.expect(fw["blocks_created"] == 2 && fw["blocks_expired"] == 2 && fw["active_blocks"] == 0,
		"its statistics: %d packets, %d blocks created, %d expired, %d active", e.Stats.Packets,
		fw["blocks_created"], fw["blocks_expired"], fw["active_blocks"])
	left, err := s.backend.leftovers(ctx, s.victim)
	if err != nil {
		return err
	}
	s.expect(left == "", "the kernel lists nothing of it any more%s", left)
	return nil
}
