package nft

// Shrink makes b cut every Change into transactions of n elements.
func Shrink(b *Backend, n int) { b.batch = n }

// OldKernel makes b work as on a kernel before 6.3, which cannot delete an
// element that may be missing. The messages are valid on every kernel.
func OldKernel(b *Backend) { b.destroys = false }

// Batch is how many elements b puts into one transaction.
func Batch(b *Backend) int { return b.batch }

// UnknownFlag makes b ask for a protection that no kernel knows.
func UnknownFlag(b *Backend) { b.protect |= 0x80 }

// SmallMonitor bounds what the kernel may queue for b's Watch to the least.
func SmallMonitor(b *Backend) { b.monitor.size = 1 }
