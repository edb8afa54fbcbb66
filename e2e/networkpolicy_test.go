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
			for address, want := range map[string]bool{
				"93.184.215.14":   true,
				"192.0.1.1":       true,
				"2606:2800::1":    true,
				"2001:4860::1":    true,
				"3fff:ffff::1":    true,
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
				"192.0.0.192":     false, // Oracle's metadata
				"0.0.0.0":         false,
				"192.88.99.1":     false,
				"255.255.255.255": false,
				"64:ff9b::a00:1":  false, // 10.0.0.1 by NAT64
				"64:ff9b:1::1":    false, // the same, with a local prefix (RFC 8215)
				"2002:a00:1::1":   false, // 10.0.0.1 by 6to4
				"2001::1":         false, // Teredo
				"::ffff:10.0.0.1": false,
				"::1":             false,
				"fec0::1":         false,
				"ff02::1":         false,
			} {
				assert.Equal(t, want, allows(t, policy, netip.MustParseAddr(address)), address)
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
