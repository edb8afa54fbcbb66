//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/binder-project/binder-deploy-kubernetes/e2e/harness"
)

// Addresses that this test gives to the machine's loopback interface.
const (
	outside   = "192.31.196.80" // stands for the internet: public, of AS112, which only answers DNS (RFC 7535)
	linkLocal = "169.254.250.1" // stands for the cloud's metadata, which a test must not replace
)

const (
	nodeAddress = "10.244.0.1" // of the local cluster
	apiService  = "10.96.0.1:443"
)

// reachable is what a pod should be able to reach.
type reachable map[string]bool

// TestNetworkPoliciesHoldInstances tries to connect from inside an instance. A pod
// that no policy selects reaches every target of the test, so that a target which
// just does not listen fails the test.
func TestNetworkPoliciesHoldInstances(t *testing.T) {
	t.Parallel()
	first := suite.Launch(t, "echo", harness.LongTimeout).AwaitDeployed(t)
	second := suite.Launch(t, "echo", harness.LongTimeout).AwaitDeployed(t)
	outsider := runPod(t, harness.Namespace, "outsider", nil, echoContainer(), nil)
	dns := runPod(t, metav1.NamespaceSystem, "dns-of-the-tests", map[string]string{"k8s-app": "kube-dns"}, dnsContainer(), nil)
	replica := suite.Replicas(t)[0]
	for _, address := range []string{outside, linkLocal} {
		addAddress(t, address)
		for _, port := range []string{"80", "443", "25"} {
			listen(t, net.JoinHostPort(address, port))
		}
	}

	want := reachable{
		"udp://" + dns + ":53": true,
		"tcp://" + dns + ":53": true,
		"tcp://" + dns + ":54": false, // of the DNS server nothing but DNS

		"tcp://" + outside + ":80":  true,
		"tcp://" + outside + ":443": true,
		"tcp://" + outside + ":25":  false,

		"tcp://" + linkLocal + ":80":  false,
		"tcp://" + linkLocal + ":443": false,

		"tcp://" + apiService:              false,
		"tcp://" + nodeAddress + ":6443":   false,
		"tcp://" + nodeAddress + ":10250":  false, // the kubelet
		"tcp://" + harness.RegistryAddress: false,

		"tcp://" + second.Pod(t).Status.PodIP + ":8888": false,
		"tcp://" + outsider + ":8888":                   false,
		"tcp://" + hostOf(t, replica.API.Base()):        false,
		"tcp://" + hostOf(t, replica.Metrics):           false,
		"tcp://" + hostOf(t, replica.Proxy):             false,
	}
	for _, target := range serviceTargets(t) {
		want[target] = false
	}
	if address := machineAddress(t); address != "" {
		want["tcp://"+address+":6443"] = false
	}

	// The pod of the policy-free control cannot reach instances either: they admit
	// the proxy only.
	instances := "tcp://" + second.Pod(t).Status.PodIP + ":8888"
	for target, reached := range dialFrom(t, "http://"+outsider+":8888/dial", want) {
		assert.Equal(t, target != instances, reached == "", "from a pod without policies: %s: %s", target, reached)
	}
	for target, reached := range dialFrom(t, first.URL("/dial"), want) {
		assert.Equal(t, want[target], reached == "", "from an instance: %s: %s", target, reached)
	}
	// The metadata address itself, which need not exist on this machine.
	for target, reached := range dialFrom(t, first.URL("/dial"), reachable{"tcp://169.254.169.254:80": false}) {
		assert.NotEmpty(t, reached, target)
	}
}

// TestServiceRefusesInstances checks the service's own policy: it holds even if the
// instances' egress is open.
func TestServiceRefusesInstances(t *testing.T) {
	t.Parallel()
	instance := suite.Launch(t, "echo", harness.LongTimeout).AwaitDeployed(t)
	pod, replica := instance.Pod(t), suite.Replicas(t)[0]
	require.NotEmpty(t, pod.Labels)
	policies := suite.Kube.Client.NetworkingV1().NetworkPolicies(harness.InstancesNamespace)
	_, err := policies.Create(t.Context(), &networkingv1.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: "open-egress"},
		Spec: networkingv1.NetworkPolicySpec{
			PodSelector: metav1.LabelSelector{MatchLabels: pod.Labels},
			PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeEgress},
			Egress:      []networkingv1.NetworkPolicyEgressRule{{}},
		},
	}, metav1.CreateOptions{})
	require.NoError(t, err)
	t.Cleanup(func() {
		assert.NoError(t, policies.Delete(context.WithoutCancel(t.Context()), "open-egress", metav1.DeleteOptions{}))
	})
	server := "tcp://" + apiService // an address that only the new policy opens
	harness.Until(t, 20*time.Second, "the instance's egress is open", func(context.Context) error {
		if reason := dialFrom(t, instance.URL("/dial"), reachable{server: true})[server]; reason != "" {
			return fmt.Errorf("%s: %s", server, reason)
		}
		return nil
	})
	for target, reached := range dialFrom(t, instance.URL("/dial"), reachable{
		"tcp://" + hostOf(t, replica.API.Base()): false,
		"tcp://" + hostOf(t, replica.Metrics):    false,
	}) {
		assert.NotEmpty(t, reached, target)
	}
}

// dialFrom asks the echo application at url which targets it can reach. The result
// has "" for a target that it reached, and otherwise the reason.
func dialFrom(t *testing.T, address string, targets reachable) map[string]string {
	t.Helper()
	query := url.Values{"to": slices.Sorted(maps.Keys(targets))}
	code, body := visit(t, http.MethodGet, address+"?"+query.Encode(), nil)
	require.Equal(t, http.StatusOK, code, body)
	var reached map[string]string
	require.NoError(t, json.Unmarshal([]byte(body), &reached))
	require.Len(t, reached, len(targets))
	return reached
}

// serviceTargets returns the addresses of the service's Services: the cluster's and
// the node's.
func serviceTargets(t *testing.T) []string {
	services, err := suite.Kube.Client.CoreV1().Services(harness.Namespace).List(t.Context(), metav1.ListOptions{})
	require.NoError(t, err)
	var targets []string
	for _, service := range services.Items {
		for _, port := range service.Spec.Ports {
			targets = append(targets,
				fmt.Sprintf("tcp://%s:%d", service.Spec.ClusterIP, port.Port),
				fmt.Sprintf("tcp://%s:%d", nodeAddress, port.NodePort))
		}
	}
	require.NotEmpty(t, targets)
	return targets
}

// machineAddress returns an address of the machine towards other networks, or "" if
// it has none. Nodes may have public addresses.
func machineAddress(t *testing.T) string {
	addresses, err := net.InterfaceAddrs()
	require.NoError(t, err)
	for _, address := range addresses {
		network, ok := address.(*net.IPNet)
		if ok && network.IP.To4() != nil && network.IP.IsGlobalUnicast() && !slices.Contains([]string{nodeAddress, outside}, network.IP.String()) {
			return network.IP.String()
		}
	}
	return ""
}

// addAddress gives the machine an address until the test ends.
func addAddress(t *testing.T, address string) {
	t.Helper()
	loopback, err := netlink.LinkByName("lo")
	require.NoError(t, err)
	parsed, err := netlink.ParseAddr(address + "/32")
	require.NoError(t, err)
	require.NoError(t, netlink.AddrReplace(loopback, parsed))
	t.Cleanup(func() { assert.NoError(t, netlink.AddrDel(loopback, parsed)) })
}

// listen accepts connections until the test ends.
func listen(t *testing.T, address string) {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", address)
	require.NoError(t, err)
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			connection, err := listener.Accept()
			if err != nil {
				return
			}
			connection.Close()
		}
	}()
}

// runPod runs a pod until the test ends and returns its address. changes may be nil.
func runPod(t *testing.T, namespace, name string, labels map[string]string, container corev1.Container, changes func(*corev1.PodSpec)) string {
	t.Helper()
	yes, no, user, grace := true, false, int64(1000), int64(0)
	container.ImagePullPolicy = corev1.PullIfNotPresent
	container.SecurityContext = &corev1.SecurityContext{
		AllowPrivilegeEscalation: &no,
		Capabilities:             &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
	}
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels},
		Spec: corev1.PodSpec{
			AutomountServiceAccountToken:  &no,
			TerminationGracePeriodSeconds: &grace,
			SecurityContext: &corev1.PodSecurityContext{
				RunAsNonRoot: &yes, RunAsUser: &user,
				SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
			},
			Containers: []corev1.Container{container},
		},
	}
	if changes != nil {
		changes(&pod.Spec)
	}
	pods := suite.Kube.Client.CoreV1().Pods(namespace)
	ctx := context.WithoutCancel(t.Context())
	remove := func() error {
		err := pods.Delete(ctx, name, metav1.DeleteOptions{GracePeriodSeconds: &grace})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return err
	}
	// An interrupted run may have left it outside of the tests' namespaces.
	require.NoError(t, remove())
	harness.Until(t, 30*time.Second, "create pod "+name, func(ctx context.Context) error {
		_, err := pods.Create(ctx, pod, metav1.CreateOptions{})
		return err
	})
	t.Cleanup(func() { assert.NoError(t, remove()) })
	var address string
	harness.Until(t, time.Minute, "pod "+name+" is ready", func(ctx context.Context) error {
		pod, err := pods.Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		address = pod.Status.PodIP
		for _, condition := range pod.Status.Conditions {
			if condition.Type == corev1.PodReady && condition.Status == corev1.ConditionTrue {
				return nil
			}
		}
		return fmt.Errorf("phase %s", pod.Status.Phase)
	})
	return address
}

// echoContainer returns a container of the echo application.
func echoContainer() corev1.Container {
	return corev1.Container{Name: "echo", Image: "localhost/binder-echo:dev", ReadinessProbe: tcpProbe(8888)}
}

// dnsContainer returns a container that answers each datagram on port 53 and accepts
// connections on ports 53 and 54.
func dnsContainer() corev1.Container {
	const program = `
import socket, threading
def accept(server):
    while True:
        server.accept()[0].close()
for port in (53, 54):
    threading.Thread(target=accept, args=[socket.create_server(("", port))]).start()
answers = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
answers.bind(("", 53))
while True:
    answers.sendto(*answers.recvfrom(512))
`
	return corev1.Container{
		Name: "dns", Image: "localhost/binder-jupyter:dev", Command: []string{"python3", "-c", program}, ReadinessProbe: tcpProbe(54),
	}
}

func tcpProbe(port int32) *corev1.Probe {
	return &corev1.Probe{
		ProbeHandler:  corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt32(port)}},
		PeriodSeconds: 1,
	}
}

// hostOf returns the host and the port of a URL.
func hostOf(t *testing.T, address string) string {
	t.Helper()
	parsed, err := url.Parse(address)
	require.NoError(t, err)
	return parsed.Host
}
