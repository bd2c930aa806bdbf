// Package netns holds the integration tests: attacker, bystander and victim in
// network namespaces of their own, real tools, real packets, the real binary,
// and every backend through one table. What is asserted is what a user can
// see: who is answered, what the kernel's own tools list, what the guard
// prints and with which code it ends.
package netns
