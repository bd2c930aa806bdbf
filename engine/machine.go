package engine

import (
	"fmt"

	"github.com/expr-lang/expr/vm"
)

// memoryBudget bounds what one evaluation in the VM may allocate, in values.
const memoryBudget = 100_000

// machine is one worker's expression VM, for what cannot be lowered.
type machine struct {
	vm vm.VM
}

func newMachine() machine { return machine{vm.VM{MemoryBudget: memoryBudget}} }

// run evaluates a program on a record, a pointer to its struct.
func (m *machine) run(p *vm.Program, rec any) (bool, error) {
	out, err := m.vm.Run(p, rec)
	if err != nil {
		return false, err
	}
	ok, isBool := out.(bool)
	if !isBool {
		return false, fmt.Errorf("the expression yields %T, no boolean", out)
	}
	return ok, nil
}
