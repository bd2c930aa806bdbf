package capture_test

import (
	"testing"

	"github.com/netcap-guard/netcap-guard/internal/nstest"
)

func TestMain(m *testing.M) { nstest.Main(m) }
