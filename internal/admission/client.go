package admission

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"net/netip"
	"slices"
	"strings"
)

const (
	// clientPrefix6 is how much of an IPv6 address tells clients apart: a subscriber
	// gets a /64 at least (RFC 6177, section 2), and can use every address of it.
	clientPrefix6 = 64
	// maxProxies is how many entries of X-Forwarded-For are looked at.
	maxProxies = 16
	// maxAddress is the longest entry: an IPv6 address with a port, and a zone.
	maxAddress = 64
)

// Clients tells clients apart by their addresses.
type Clients struct {
	secret  []byte
	trusted []netip.Prefix
}

// NewClients returns Clients. Every replica must have the same secret: without it nobody
// can find the address of a hash by trying all. trusted are the networks of the proxies
// whose X-Forwarded-For is believed.
func NewClients(secret string, trusted []netip.Prefix) *Clients {
	return &Clients{[]byte(secret), trusted}
}

// Of returns the hash of the client that sent a request, 32 hex digits, which is a valid
// label value. remote is the address of the peer, with its port, and forwarded the values
// of X-Forwarded-For in their order. Peers without an IP address count as one client.
func (c *Clients) Of(remote string, forwarded []string) string {
	mac := hmac.New(sha256.New, c.secret)
	mac.Write([]byte("client\x00"))
	if client := c.Address(remote, forwarded); client.IsValid() {
		mac.Write([]byte(client.String()))
	}
	return hex.EncodeToString(mac.Sum(nil)[:16])
}

// Address returns the network of the client that sent a request: its IPv4 address, or
// the /64 of its IPv6 address.
//
// Each proxy adds the address of its peer at the end of X-Forwarded-For, and anybody can
// send the header with anything before that. So the client is the last address that is
// not a trusted proxy's. An entry that is no address ends the search: what is before it
// is not believed. The result is invalid if the peer has no IP address.
func (c *Clients) Address(remote string, forwarded []string) netip.Prefix {
	client, ok := parseAddress(remote)
	if !ok {
		return netip.Prefix{}
	}
	entries := lastEntries(forwarded)
	for c.trusts(client) {
		entry, more := entries()
		next, ok := parseAddress(entry)
		if !more || !ok {
			break
		}
		client = next
	}
	bits := client.BitLen()
	if client.Is6() {
		bits = clientPrefix6
	}
	return netip.PrefixFrom(client, bits).Masked()
}

// Trusts reports whether a peer is a proxy whose X-Forwarded-For is believed. remote is its
// address, with its port.
func (c *Clients) Trusts(remote string) bool {
	address, ok := parseAddress(remote)
	return ok && c.trusts(address)
}

func (c *Clients) trusts(address netip.Addr) bool {
	return slices.ContainsFunc(c.trusted, func(network netip.Prefix) bool { return network.Contains(address) })
}

// lastEntries returns a function that returns the entries of a list header, the last
// one first, and at most maxProxies.
func lastEntries(values []string) func() (entry string, more bool) {
	left, rest, values := maxProxies, "", slices.Clone(values)
	open := false // whether rest has an entry that was not returned
	return func() (string, bool) {
		if !open && len(values) > 0 {
			rest, values, open = values[len(values)-1], values[:len(values)-1], true
		}
		if left--; !open || left < 0 {
			return "", false
		}
		comma := strings.LastIndexByte(rest, ',')
		entry := rest[comma+1:]
		rest, open = rest[:max(comma, 0)], comma >= 0
		return entry, true
	}
}

// parseAddress parses an IP address, with or without a port or brackets: some proxies add
// them.
func parseAddress(text string) (netip.Addr, bool) {
	if len(text) > maxAddress {
		return netip.Addr{}, false
	}
	text = strings.Trim(text, " \t")
	bare := text
	if inner, ok := strings.CutPrefix(text, "["); ok && strings.HasSuffix(inner, "]") {
		bare = strings.TrimSuffix(inner, "]")
	}
	address, err := netip.ParseAddr(bare)
	if err != nil {
		withPort, err := netip.ParseAddrPort(text)
		if err != nil {
			return netip.Addr{}, false
		}
		address = withPort.Addr()
	}
	return address.Unmap().WithZone(""), true
}
