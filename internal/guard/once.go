package guard

import (
	"context"
	"encoding/binary"
	"slices"
	"sync"

	"github.com/netcap-guard/netcap-guard/capture"
	"github.com/netcap-guard/netcap-guard/internal/links"
)

// followLinks keeps the workers' knowledge of which copies of a packet are
// repetitions, until ctx ends. Where the kernel does not tell how interfaces
// are stacked it returns an error: what counts twice makes thresholds half of
// what they are. known, which is closed when the first reading is in force,
// stays open then. Losing touch later is only warned of.
func (r *runner) followLinks(ctx context.Context, known chan<- struct{}) error {
	var captured *links.Captured
	err := links.Follow(ctx, r.log, known, func(all []links.Link) {
		if captured == nil {
			captured = r.captured(all)
		} else {
			captured.Follow(all)
		}
		r.shared.links.Store(links.Build(all, *captured))
	})
	if err != nil && captured != nil {
		r.log.Warn("what comes of interfaces is not seen any more: packets on new ones may count twice", "error", err)
		return nil
	}
	return err
}

func (r *runner) captured(all []links.Link) *links.Captured {
	c := &links.Captured{All: slices.Contains(r.cfg.Interfaces, capture.AnyInterface)}
	for _, name := range r.cfg.Interfaces {
		c.Names = append(c.Names, name)
		c.Indexes = append(c.Indexes, links.Index(all, name))
	}
	if !c.All {
		r.closeRepeated(func(name string) any {
			if index := links.Index(all, name); index != 0 {
				return index // a name and an alternative name are one
			}
			return name
		})
	} else {
		r.closeRepeated(func(string) any { return capture.AnyInterface })
	}
	return c
}

// closeRepeated closes, of the captures whose interfaces have the same
// identity, all but one: that of all interfaces where it is among them.
func (r *runner) closeRepeated(identity func(name string) any) {
	keep := map[any]int{}
	for i, name := range r.cfg.Interfaces {
		if _, ok := keep[identity(name)]; !ok || name == capture.AnyInterface {
			keep[identity(name)] = i
		}
	}
	for i, name := range r.cfg.Interfaces {
		if keep[identity(name)] == i {
			continue
		}
		each := len(r.sources) / len(r.cfg.Interfaces)
		for _, s := range r.sources[i*each : (i+1)*each] {
			if err := s.Close(); err != nil {
				r.log.Warn("closing a capture", "error", err)
			}
		}
	}
}

// startLinks follows links and returns when the first reading is in force, or
// has failed, or ctx has ended.
func (r *runner) startLinks(ctx context.Context, group *sync.WaitGroup) error {
	known, failed := make(chan struct{}), make(chan error, 1)
	group.Go(func() { failed <- r.followLinks(ctx, known) })
	select {
	case <-known:
		return nil
	case err := <-failed:
		return err
	}
}

// tagOf is the outermost VLAN tag of a live packet.
func tagOf(p *capture.Packet) links.Tag {
	at := 12 // behind the addresses of an Ethernet frame
	if p.Link == capture.LinkLinuxSLL {
		at = 14 // the last field of the cooked header
	}
	if len(p.Data) < at+4 {
		return links.Tag{}
	}
	switch protocol := binary.BigEndian.Uint16(p.Data[at:]); protocol {
	case 0x8100, 0x88a8:
		return links.Tag{Protocol: protocol, ID: binary.BigEndian.Uint16(p.Data[at+2:]) & 0x0fff}
	}
	return links.Tag{}
}
