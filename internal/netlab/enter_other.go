//go:build !linux

package netlab

// usable says whether namespaces can be made by this process at all.
func usable() error { return ErrUnsupported }

// Do would run f inside the namespace; there are none on this system.
func (*NS) Do(func() error) error { return ErrUnsupported }

// kill is never reached: without namespaces there is nothing inside one.
func kill(string) {}
