package guard

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestGiveBack: once after the last of many large requests, and never for
// small ones.
func TestGiveBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		freed := 0
		g := &giveBack{free: func() { freed++ }}
		steps := []struct {
			name    string
			entries int
			wait    time.Duration
			want    int
		}{
			{"small", giveBackFrom - 1, time.Minute, 0},
			{"with the one before it large", 1, giveBackAfter / 2, 0},
			{"a part of a list", giveBackFrom, giveBackAfter / 2, 0},
			{"the last part", 1, giveBackAfter, 1},
			{"small again", giveBackFrom - 1, time.Minute, 1},
			{"another list", giveBackFrom, giveBackAfter, 2},
			{"at the end", giveBackFrom, 0, 2},
		}
		for _, s := range steps {
			g.after(s.entries)
			time.Sleep(s.wait)
			synctest.Wait()
			if freed != s.want {
				t.Errorf("%s: given back %d times, want %d", s.name, freed, s.want)
			}
		}
		g.end()
		time.Sleep(time.Minute)
		if freed != 2 {
			t.Errorf("given back after the end")
		}
	})
}
