package config

import (
	"flag"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

func (c *Config) limitFlags(f *flag.FlagSet) {
	f.Var(newNumber(&c.LaunchRate, 20), "launch-rate",
		"`number` of instances that a client can launch in an hour; 0 means no limit. A client is an IPv4 address, or the /64 of "+
			"an IPv6 address. Launches with the API key do not count")
	f.Var(newNumber(&c.MaxInstancesPerClient, 10), "max-instances-per-client",
		"`number` of living instances that a client can have; 0 means no limit. Launches with the API key do not count")
	f.Var(newNumber(&c.MaxInstances, 0), "max-instances",
		"`number` of living instances that there can be in all; 0 means no limit but the quota")
	f.Var(newSwitch(&c.Queue, true), "queue",
		"let launches wait for a place that are beyond --max-instances or their template's limit, in order of age; else refuse "+
			"them, with 429")
	f.Var(newNumber(&c.MaxQueued, 1000), "max-queued",
		"`number` of launches that can wait for a place, of a template and in all; others get 429")
	f.Var(newSwitch(&c.PauseLaunches, false), "pause-launches",
		"refuse all launches, with 429. Instances that run go on")
	f.Var(newNumber(&c.MaxConnections, 0), "max-connections",
		"`number` of connections of visitors that the proxy holds; 0 means as many as half of the memory has room for")
	f.Var(newNumber(&c.MaxConnectionsPerClient, 0), "max-connections-per-client",
		"`number` of connections that a client can have; 0 means a sixteenth of --max-connections, but at least 64. "+
			"Through a trusted proxy, requests under way count")
	f.Var(newNumber(&c.MaxConnectionsPerInstance, 0), "max-connections-per-instance",
		"`number` of requests and WebSockets that can be under way at an instance; 0 means a sixteenth of --max-connections, "+
			"but at least 64")
	f.Var(newDuration(&c.ProxyIdleTimeout, 5*time.Minute), "proxy-idle-timeout",
		"how long a visitor or an application can neither send nor take a byte of a request or an answer, before the proxy "+
			"ends it. WebSockets can be idle for longer")
	f.Var((*networkList)(&c.TrustedProxies), "trusted-proxies",
		"`network` of proxies in front of this service, in CIDR notation, such as 10.0.0.0/8. Their X-Forwarded-For says who "+
			"the client is. Repeat the flag, or separate several networks by commas (default: none)")
}

func newNumber(target *int, value int) *parsedFlag[int] {
	*target = value
	return &parsedFlag[int]{target, strconv.Atoi, "a whole number"}
}

func (c *Config) validateLimits(m *mistakes) {
	const noLimit, fromMemory = "no limit", "what the memory allows"
	for _, limit := range []struct {
		flag  string
		value int
		zero  string
	}{
		{"launch-rate", c.LaunchRate, noLimit},
		{"max-instances-per-client", c.MaxInstancesPerClient, noLimit},
		{"max-instances", c.MaxInstances, noLimit},
		{"max-queued", c.MaxQueued, "that none can wait"},
		{"max-connections", c.MaxConnections, fromMemory},
		{"max-connections-per-client", c.MaxConnectionsPerClient, fromMemory},
		{"max-connections-per-instance", c.MaxConnectionsPerInstance, fromMemory},
	} {
		if limit.value < 0 {
			m.add(fmt.Errorf("--%s is %d: it must not be negative; 0 means %s", limit.flag, limit.value, limit.zero), limit.flag)
		}
	}
}

// QueueLength is how many launches can wait for a place: MaxQueued, or 0 without a queue.
func (c *Config) QueueLength() int {
	if !c.Queue {
		return 0
	}
	return c.MaxQueued
}

// networkList is a flag that can be repeated, or hold several networks at once.
type networkList []netip.Prefix

// String returns the networks; the flag package also calls it on a zero flag.
func (l *networkList) String() string {
	var texts []string
	for _, network := range *l {
		texts = append(texts, network.String())
	}
	return strings.Join(texts, ",")
}

// Set adds networks.
func (l *networkList) Set(value string) error {
	for text := range strings.SplitSeq(value, ",") {
		network, err := parseNetwork(strings.TrimSpace(text))
		if err != nil {
			return err
		}
		*l = append(*l, network)
	}
	return nil
}

// parseNetwork parses a network in CIDR notation (RFC 4632, section 3.1), or a single
// address. A network of all addresses is an error: then clients could make up theirs.
func parseNetwork(text string) (netip.Prefix, error) {
	network, err := netip.ParsePrefix(text)
	if address, addressErr := netip.ParseAddr(text); addressErr == nil && address.Zone() == "" {
		network, err = netip.PrefixFrom(address, address.BitLen()), nil
	}
	switch {
	case err != nil:
		return netip.Prefix{}, fmt.Errorf("%q must be a network such as 10.0.0.0/8, or an address", text)
	case network.Bits() == 0:
		return netip.Prefix{}, fmt.Errorf("%q is all addresses: it must be only those of proxies", text)
	case network.Addr().Is4In6():
		return netip.Prefix{}, fmt.Errorf("%q must be written as IPv4, such as 10.0.0.0/8", text)
	}
	return network.Masked(), nil
}
