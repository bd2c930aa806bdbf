package capture

// AnyInterface captures on all interfaces at once.
const AnyInterface = "any"

// LiveConfig says what OpenLive captures.
type LiveConfig struct {
	// Interface is its name, or AnyInterface.
	Interface string
	// Promiscuous asks for frames addressed to other hosts, too. It does not
	// go with AnyInterface and is then ignored.
	Promiscuous bool
	// SnapLen is how many bytes of a packet are kept; 0 means 262144.
	SnapLen int
	// BufferBytes is the size of the kernel's queue in front of Next; 0 means
	// 8 MiB.
	BufferBytes int
}

// Finisher is a Source without an end of its own, as a live one is.
type Finisher interface {
	Source
	// Finish sets the end to now: Next gives what was captured until then and
	// then io.EOF. It does not wait, and may be called from anywhere; Close
	// is still to follow.
	Finish() error
}

const (
	defaultSnapLen = 262144
	defaultBuffer  = 8 << 20
)

// filled returns the configuration with its defaults.
func (c LiveConfig) filled() LiveConfig {
	if c.SnapLen <= 0 || c.SnapLen > defaultSnapLen {
		c.SnapLen = defaultSnapLen
	}
	if c.BufferBytes <= 0 {
		c.BufferBytes = defaultBuffer
	}
	return c
}
