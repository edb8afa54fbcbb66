package config

import (
	"flag"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

var (
	// domainPattern matches names of hosts (RFC 1123, section 2.1).
	domainPattern = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*$`)
)

// maxDomain is the longest domain, in bytes: with the 32 digits of an id and a dot before
// it, a name has 253 (RFC 1035, section 2.3.4).
const maxDomain = 253 - 33

func (c *Config) hostFlags(f *flag.FlagSet) {
	f.Var((*list)(&c.PublicHosts), "public-host",
		"`host[:port]` of every instance's location, without a scheme, such as binder.example.org. Set it if an ingress "+
			"is in front of the proxy. Pages then launch only at this host. Repeat the flag, or separate several hosts by commas: "+
			"the first is the one in locations (default: the address of the Service that --proxy-service names, else the host of the API request)")
	f.StringVar(&c.InstanceDomain, "instance-domain", "",
		"`domain[:port]` below which each instance has a host of its own, <id>.<domain>, and so an origin of its own to browsers, "+
			"such as users.example.org. It needs a wildcard DNS record and certificate, and --public-host "+
			"(default: all instances are at the public host, and share its origin)")
}

func (c *Config) validateHosts(m *mistakes) {
	c.PublicHosts = slices.DeleteFunc(c.PublicHosts, func(host string) bool { return host == "" })
	for _, host := range c.PublicHosts {
		if !isHostPort(host) {
			m.add(fmt.Errorf("--public-host is %q: it must be host or host:port, such as binder.example.org, with no scheme and no path", host), "public-host")
		}
	}
	if c.InstanceDomain == "" {
		return
	}
	c.InstanceDomain = strings.ToLower(c.InstanceDomain)
	if !isDomain(c.InstanceDomain) {
		m.add(fmt.Errorf("--instance-domain is %q: it must be domain or domain:port, such as users.example.org, with no scheme, no star and no path, "+
			"and of at most %d characters", c.InstanceDomain, maxDomain), "instance-domain")
		return
	}
	if len(c.PublicHosts) == 0 {
		m.add(fmt.Errorf("--instance-domain is set, but --public-host is not: pages of instances lead there"), "instance-domain", "public-host")
	}
	domain := bareName(c.InstanceDomain)
	for _, host := range c.PublicHosts {
		if name := bareName(host); name == domain || strings.HasSuffix(name, "."+domain) {
			m.add(fmt.Errorf("--public-host (%s) must not be in --instance-domain (%s): instances can set cookies for all of it", host, c.InstanceDomain),
				"instance-domain", "public-host")
		}
	}
}

// isDomain reports whether a text is a domain that can have subdomains, with or without a port.
func isDomain(text string) bool {
	name := text
	if host, port, err := net.SplitHostPort(text); err == nil {
		number, err := strconv.ParseUint(port, 10, 16)
		if err != nil || number == 0 || port[0] == '0' {
			return false
		}
		name = host
	}
	_, err := netip.ParseAddr(name)
	return err != nil && len(name) <= maxDomain && domainPattern.MatchString(name)
}

// bareName returns the name in host[:port], in small letters.
func bareName(host string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	return strings.ToLower(strings.TrimSuffix(host, "."))
}
