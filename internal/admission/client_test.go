package admission

import (
	"net/netip"
	"regexp"
	"strings"
	"testing"
)

func networks(texts ...string) []netip.Prefix {
	var all []netip.Prefix
	for _, text := range texts {
		all = append(all, netip.MustParsePrefix(text))
	}
	return all
}

func TestAddress(t *testing.T) {
	clients := NewClients("secret", networks("10.0.0.0/8", "192.0.2.7/32", "fd00::/8"))
	const proxy = "10.1.2.3:4567"
	for _, row := range []struct {
		name      string
		remote    string
		forwarded []string
		want      string
	}{
		{"direct", "203.0.113.9:1234", nil, "203.0.113.9/32"},
		{"direct, IPv6", "[2001:db8:1:2:3::9]:1234", nil, "2001:db8:1:2::/64"},
		{"direct, IPv4 in IPv6", "[::ffff:203.0.113.9]:1234", nil, "203.0.113.9/32"},
		{"a zone", "[fe80::1%eth0]:1234", nil, "fe80::/64"},
		{"a stranger's header", "203.0.113.9:1234", []string{"198.51.100.1"}, "203.0.113.9/32"},
		{"a header that names a proxy", "203.0.113.9:1234", []string{"10.0.0.1"}, "203.0.113.9/32"},
		{"by a proxy", proxy, []string{"198.51.100.1"}, "198.51.100.1/32"},
		{"by a proxy, IPv6", proxy, []string{"2001:db8:1:2:3::9"}, "2001:db8:1:2::/64"},
		{"by a proxy, IPv4 in IPv6", "[::ffff:10.1.2.3]:1", []string{"::ffff:198.51.100.1"}, "198.51.100.1/32"},
		{"by a proxy with IPv6", "[fd00::7]:1", []string{"198.51.100.1"}, "198.51.100.1/32"},
		{"by a single trusted address", "192.0.2.7:1", []string{"198.51.100.1"}, "198.51.100.1/32"},
		{"by the address next to it", "192.0.2.8:1", []string{"198.51.100.1"}, "192.0.2.8/32"},
		{"forged before the real one", proxy, []string{"1.1.1.1, 198.51.100.1"}, "198.51.100.1/32"},
		{"forged in a line of its own", proxy, []string{"1.1.1.1", "198.51.100.1"}, "198.51.100.1/32"},
		{"by two proxies", proxy, []string{"1.1.1.1, 198.51.100.1, 10.9.9.9"}, "198.51.100.1/32"},
		{"by two proxies in two lines", proxy, []string{"198.51.100.1", "10.9.9.9"}, "198.51.100.1/32"},
		{"forged as a trusted proxy's", proxy, []string{"1.1.1.1, 10.9.9.9, 198.51.100.1"}, "198.51.100.1/32"},
		{"from within the trusted network", proxy, []string{"10.9.9.9"}, "10.9.9.9/32"},
		{"by a proxy that adds nothing", proxy, nil, "10.1.2.3/32"},
		{"an empty header", proxy, []string{""}, "10.1.2.3/32"},
		{"with a port", proxy, []string{"198.51.100.1:80"}, "198.51.100.1/32"},
		{"with a port, IPv6", proxy, []string{"[2001:db8:1:2::9]:80"}, "2001:db8:1:2::/64"},
		{"in brackets", proxy, []string{"[2001:db8:1:2::9]"}, "2001:db8:1:2::/64"},
		{"with white space", proxy, []string{" \t198.51.100.1 \t"}, "198.51.100.1/32"},
		{"malformed", proxy, []string{"1.1.1.1, unknown"}, "10.1.2.3/32"},
		{"malformed before a proxy", proxy, []string{"1.1.1.1, <script>, 10.9.9.9"}, "10.9.9.9/32"},
		{"an empty entry", proxy, []string{"1.1.1.1,,10.9.9.9"}, "10.9.9.9/32"},
		{"an octal address", proxy, []string{"198.051.100.1"}, "10.1.2.3/32"},
		{"a very long entry", proxy, []string{strings.Repeat("1", 1<<20)}, "10.1.2.3/32"},
		{"very many entries", proxy, []string{"198.51.100.1" + strings.Repeat(",10.9.9.9", 1<<16)}, "10.9.9.9/32"},
		{"very many lines", proxy, append([]string{"198.51.100.1"}, strings.Split(strings.Repeat("10.9.9.9,", 99)+"10.9.9.9", ",")...), "10.9.9.9/32"},
		{"no IP address", "pipe", []string{"198.51.100.1"}, "invalid Prefix"},
	} {
		if got := clients.Address(row.remote, row.forwarded).String(); got != row.want {
			t.Errorf("%s: got %s, want %s", row.name, got, row.want)
		}
	}
}

// The hash is the same at every replica, differs between clients, and nobody without the
// secret can compute it. Kubernetes takes it as a label's value.
func TestOf(t *testing.T) {
	of := func(secret, remote string) string { return NewClients(secret, nil).Of(remote, nil) }
	one := of("secret", "203.0.113.9:1")
	if !regexp.MustCompile(`^[0-9a-f]{32}$`).MatchString(one) {
		t.Errorf("got %q", one)
	}
	for _, row := range []struct {
		secret, remote string
		same           bool
	}{
		{"secret", "203.0.113.9:2", true},
		{"secret", "203.0.113.10:1", false},
		{"secret", "pipe", false},
		{"other", "203.0.113.9:1", false},
	} {
		if got := of(row.secret, row.remote); (got == one) != row.same {
			t.Errorf("%s with %s: the hash is the same: %t, want %t", row.remote, row.secret, got == one, row.same)
		}
	}
	if a, b := of("secret", "[2001:db8::1]:1"), of("secret", "[2001:db8::ffff:2]:1"); a != b {
		t.Error("two addresses of one /64 are two clients")
	}
}

func FuzzAddress(f *testing.F) {
	f.Add("10.1.2.3:4567", "198.51.100.1, 10.9.9.9")
	f.Add("[fd00::7]:1", "[::1]:80,,x")
	f.Add("pipe", ",")
	clients := NewClients("secret", networks("10.0.0.0/8", "fd00::/8"))
	f.Fuzz(func(t *testing.T, remote, forwarded string) {
		client := clients.Address(remote, []string{forwarded})
		if client.IsValid() && (client.Addr().Zone() != "" || client.Addr().Is4In6() || client.Bits() != map[bool]int{true: 32, false: 64}[client.Addr().Is4()]) {
			t.Errorf("%q, %q: got %s", remote, forwarded, client)
		}
	})
}
