package hostaddr

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
)

// maxAncestors bounds the walk to the process that sshd started; sudo, a
// shell and a terminal multiplexer make a handful.
const maxAncestors = 32

// routeTable is one family's routing table in /proc and how a line of it is
// read. /proc/net follows the network namespace of the process.
type routeTable struct {
	file  string
	parse func(fields []string) (netip.Addr, bool)
}

func routeTables() []routeTable {
	return []routeTable{
		{"/proc/net/route", defaultRoute4},
		{"/proc/net/ipv6_route", defaultRoute6},
	}
}

func gateways() ([]Entry, error) {
	var out []Entry
	var errs []error
	for _, t := range routeTables() {
		data, err := os.ReadFile(t.file)
		if err != nil {
			errs = append(errs, fmt.Errorf("read routes: %w", err))
			continue
		}
		sc := bufio.NewScanner(bytes.NewReader(data))
		for sc.Scan() {
			if gw, ok := t.parse(strings.Fields(sc.Text())); ok {
				out = append(out, host(gw, "default gateway"))
			}
		}
	}
	return out, errors.Join(errs...)
}

// defaultRoute4 reads a line of /proc/net/route: interface, destination,
// gateway, flags, ..., mask as eighth field; addresses as hexadecimal numbers
// in host byte order.
func defaultRoute4(f []string) (netip.Addr, bool) {
	if len(f) < 8 || f[1] != "00000000" || f[7] != "00000000" {
		return netip.Addr{}, false
	}
	n, err := strconv.ParseUint(f[2], 16, 32)
	if err != nil || n == 0 {
		return netip.Addr{}, false
	}
	var b [4]byte
	binary.NativeEndian.PutUint32(b[:], uint32(n))
	return netip.AddrFrom4(b), true
}

// defaultRoute6 reads a line of /proc/net/ipv6_route: destination, its prefix
// length, source, its prefix length, next hop, ...; addresses as 32
// hexadecimal digits.
func defaultRoute6(f []string) (netip.Addr, bool) {
	if len(f) < 5 || strings.Trim(f[0], "0") != "" || f[1] != "00" {
		return netip.Addr{}, false
	}
	b, err := hex.DecodeString(f[4])
	if err != nil || len(b) != 16 {
		return netip.Addr{}, false
	}
	a := netip.AddrFrom16([16]byte(b))
	return a, !a.IsUnspecified()
}

// sshPeers looks for SSH_CONNECTION in this process's environment and in its
// ancestors', because sudo drops the variable.
func sshPeers() ([]Entry, error) {
	out := parseSSHConnection(os.Getenv("SSH_CONNECTION"))
	pid := os.Getppid()
	for range maxAncestors {
		if pid <= 1 {
			break
		}
		env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
		if err == nil {
			for v := range bytes.SplitSeq(env, []byte{0}) {
				if value, ok := bytes.CutPrefix(v, []byte("SSH_CONNECTION=")); ok {
					out = append(out, parseSSHConnection(string(value))...)
				}
			}
		}
		pid = parentOf(pid)
	}
	return out, nil
}

// parentOf returns the parent of a process, 0 when it cannot be told. The
// program's name in /proc/PID/stat may hold spaces and parentheses, so the
// fields are counted from the last parenthesis.
func parentOf(pid int) int {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	f := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(f) < 2 {
		return 0
	}
	ppid, err := strconv.Atoi(f[1])
	if err != nil {
		return 0
	}
	return ppid
}
