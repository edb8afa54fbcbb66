package e2e

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// TestInstancesReachTheInternetOnly evaluates the policy itself, because the local
// cluster's network does not enforce it.
func TestInstancesReachTheInternetOnly(t *testing.T) {
	forEachRendered(t, func(t *testing.T, objects []runtime.Object) {
		for _, policy := range of[*networkingv1.NetworkPolicy](t, objects) {
			if policy.Name != "instances" {
				continue
			}
			require.Empty(t, policy.Spec.PodSelector.MatchLabels, "the policy must select every pod")
			for address, want := range map[string]bool{
				"93.184.215.14":   true,
				"2606:2800::1":    true,
				"10.96.0.1":       false, // a Service
				"10.88.0.7":       false, // another instance
				"172.20.3.4":      false,
				"192.168.1.1":     false,
				"100.64.0.1":      false,
				"169.254.169.254": false, // the cloud's metadata
				"168.63.129.16":   false, // Azure's host agent
				"240.10.0.1":      false,
				"127.0.0.1":       false,
				"fd00:ec2::254":   false,
				"fe80::1":         false,
				"64:ff9b::a00:1":  false,
			} {
				assert.Equal(t, want, allows(t, policy, netip.MustParseAddr(address)), address)
			}
		}
	})
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
