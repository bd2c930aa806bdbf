//go:build !linux

package nflog

// Reader reads one group; there is none on this system.
type Reader struct{}

// Open returns an error that wraps ErrUnsupported.
func Open(Config) (*Reader, error) { return nil, ErrUnsupported }

// Run returns an error that wraps ErrUnsupported.
func (*Reader) Run(func(*Packet)) error { return ErrUnsupported }

// Stats returns zeros.
func (*Reader) Stats() Stats { return Stats{} }

// Close does nothing.
func (*Reader) Close() error { return nil }
