package e2e

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
)

// TestInstancesReachTheInternetOnly evaluates the policy itself, for addresses that
// the local cluster does not have.
func TestInstancesReachTheInternetOnly(t *testing.T) {
	forEachRendered(t, func(t *testing.T, objects []runtime.Object) {
		for _, policy := range of[*networkingv1.NetworkPolicy](t, objects) {
			if policy.Name != "instances" {
				continue
			}
			require.Empty(t, policy.Spec.PodSelector.MatchLabels, "the policy must select every pod")
			for _, address := range []string{
				"93.184.215.14", "192.0.1.1", "2606:2800::1", "2001:4860::1", "3fff:ffff::1",
			} {
				assert.True(t, allows(t, policy, netip.MustParseAddr(address)), address)
			}
			for _, prefix := range notPublic() {
				for _, address := range []netip.Addr{prefix.Addr(), lastOf(prefix)} {
					assert.False(t, allows(t, policy, address), "%s of %s", address, prefix)
				}
			}
			for _, rule := range policy.Spec.Egress {
				assert.NotEmpty(t, rule.Ports, "a rule without ports allows all of them")
				for _, port := range rule.Ports {
					assert.Contains(t, []int32{53, 80, 443}, port.Port.IntVal)
					assert.Nil(t, port.EndPort)
				}
			}
		}
	})
}

// notPublic returns the ranges that instances must not reach. Most are those of
// IANA's special-purpose address registries (RFC 6890) that are not globally
// reachable.
func notPublic() []netip.Prefix {
	var prefixes []netip.Prefix
	for _, prefix := range []string{
		"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
		"192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24",
		"240.0.0.0/4", "255.255.255.255/32",
		"::/128", "::1/128", "::ffff:0:0/96", "64:ff9b:1::/48", "100::/64", "100:0:0:1::/64", "2001::/32", "2001:2::/48",
		"2001:10::/28", "2001:db8::/32", "2002::/16", "3fff::/20", "5f00::/16", "fc00::/7", "fe80::/10",

		"64:ff9b::/96",            // globally reachable, but translated to any IPv4 address
		"224.0.0.0/4", "ff00::/8", // multicast (RFC 1112, RFC 4291)
		"::/96", "fec0::/10", // deprecated (RFC 4291)
		"168.63.129.16/32", // Azure's host agent
	} {
		prefixes = append(prefixes, netip.MustParsePrefix(prefix))
	}
	return prefixes
}

// lastOf returns the last address of a prefix.
func lastOf(prefix netip.Prefix) netip.Addr {
	address := prefix.Addr().AsSlice()
	for bit := prefix.Bits(); bit < len(address)*8; bit++ {
		address[bit/8] |= 0x80 >> (bit % 8)
	}
	last, _ := netip.AddrFromSlice(address)
	return last
}

// allows reports whether the policy's address blocks allow egress to an address.
func allows(t *testing.T, policy *networkingv1.NetworkPolicy, address netip.Addr) bool {
	for _, rule := range policy.Spec.Egress {
		for _, peer := range rule.To {
			if peer.IPBlock == nil || !contains(t, peer.IPBlock.CIDR, address) {
				continue
			}
			excepted := false
			for _, except := range peer.IPBlock.Except {
				excepted = excepted || contains(t, except, address)
			}
			if !excepted {
				return true
			}
		}
	}
	return false
}

func contains(t *testing.T, cidr string, address netip.Addr) bool {
	prefix, err := netip.ParsePrefix(cidr)
	require.NoError(t, err)
	return prefix.Contains(address)
}

// TestTheServiceRefusesInstances checks that only the proxy's port is open to the
// instances' namespace.
func TestTheServiceRefusesInstances(t *testing.T) {
	forEachRendered(t, func(t *testing.T, objects []runtime.Object) {
		var open []string
		for _, policy := range of[*networkingv1.NetworkPolicy](t, objects) {
			if policy.Name == "instances" {
				continue
			}
			for _, rule := range policy.Spec.Ingress {
				require.NotEmpty(t, rule.Ports)
				if admits(t, rule, policy.Namespace+"-instances") {
					for _, port := range rule.Ports {
						open = append(open, port.Port.String())
					}
				}
			}
		}
		assert.Equal(t, []string{"proxy"}, open)
	})
}

// admits reports whether a rule admits pods of a namespace, by its name.
func admits(t *testing.T, rule networkingv1.NetworkPolicyIngressRule, namespace string) bool {
	if len(rule.From) == 0 {
		return true
	}
	for _, peer := range rule.From {
		selector, err := metav1.LabelSelectorAsSelector(peer.NamespaceSelector)
		require.NoError(t, err)
		if peer.IPBlock != nil || selector.Matches(labels.Set{corev1.LabelMetadataName: namespace}) {
			return true
		}
	}
	return false
}
