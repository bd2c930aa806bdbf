package message_test

import (
	"strings"
	"testing"

	"github.com/netcap-guard/netcap-guard/record"
)

// TestSSHOffer: what is said of an offer beside its hash.
func TestSSHOffer(t *testing.T) {
	for name, tt := range map[string]struct {
		lists string // kex, host keys, ciphers up and down, MACs up and down
		weak  string
	}{
		"sound":                 {"curve25519-sha256,diffie-hellman-group14-sha256 ssh-ed25519,rsa-sha2-512 aes256-ctr aes256-ctr hmac-sha2-256 hmac-sha1", ""},
		"a short group":         {"curve25519-sha256,diffie-hellman-group1-sha1 k c c m m", "kex"},
		"the same in GSS-API":   {"gss-group1-sha1-toWM5Slw5Ew8Mqkay+al2g== k c c m m", "kex"},
		"RC4 up":                {"x k aes128-ctr,arcfour c m m", "cipher"},
		"3DES down":             {"x k c 3des-cbc m m", "cipher"},
		"MD5 down, none up":     {"x k none c m hmac-md5-96", "cipher mac"},
		"names that only begin": {"diffie-hellman-group1-sha1x k 3des-cbcx c hmac-sha1 hmac-sha1", ""},
	} {
		lists := strings.Fields(tt.lists)
		kex := "\x04\x14" + strings.Repeat("c", 16)
		for _, l := range append(lists, "none", "none") {
			kex += string([]byte{0, 0, 0, byte(len(l))}) + l
		}
		packet := append([]byte{0, 0, byte(len(kex) >> 8), byte(len(kex))}, kex...)
		var r record.SSH
		if !parser().SSH([]byte("SSH-2.0-OpenSSH_9.9p1 Debian-3"), packet, true, header(), &r) {
			t.Fatal("cannot be read")
		}
		var weak []string
		for i, is := range []bool{r.HasWeakKex, r.HasWeakCipher, r.HasWeakMAC} {
			if is {
				weak = append(weak, []string{"kex", "cipher", "mac"}[i])
			}
		}
		if got := strings.Join(weak, " "); got != tt.weak || r.ServerHostKeyAlgorithms != lists[1] || r.SoftwareVersion != "OpenSSH_9.9p1" {
			t.Errorf("%s: weak %q, want %q; %+v", name, got, tt.weak, r)
		}
		if r.CommunityID != header().CommunityID() {
			t.Errorf("%s: %q", name, r.CommunityID)
		}
	}
}
