//go:build e2e

package e2e

import (
	"net"
	"strings"
	"testing"

	"github.com/binder-project/binder-deploy-kubernetes/e2e/conformance"
	"github.com/binder-project/binder-deploy-kubernetes/e2e/harness"
	"github.com/binder-project/binder-deploy-kubernetes/e2e/rawapp"
)

// rawInstance launches the raw application and returns its own address, too. The pods'
// network is reachable from this machine.
func rawInstance(t *testing.T, template string) (instance *harness.Instance, address string) {
	t.Helper()
	instance = suite.Launch(t, template, harness.LongTimeout).AwaitDeployed(t)
	return instance, net.JoinHostPort(instance.Pod(t).Status.PodIP, "8888")
}

// conformanceTarget is a replica of the service and a pod. A replica is asked and not
// the Service, so that nothing but the proxy is between the client and the pod.
func conformanceTarget(t *testing.T) conformance.Target {
	t.Helper()
	instance, address := rawInstance(t, "raw")
	base := "/user/" + instance.ID
	return conformance.Target{
		Direct: address, Proxy: strings.TrimPrefix(suite.Replicas(t)[0].Proxy, "http://"), Base: base,
		Control: rawapp.NewClient("http://" + address + base), APIKey: suite.API.Key(),
	}
}

// TestProxyConformance sends the same bytes to a pod directly and through the deployed
// service. It has no subtests, because there are hundreds of cases. It is not parallel to
// other tests, because it keeps the machine busy.
func TestProxyConformance(t *testing.T) {
	conformance.RunAll(t, "HTTP, on the cluster", conformanceTarget(t), 8, false, conformance.Cases())
}

// TestProxyWebSocketConformance sends streams of frames through the deployed service.
func TestProxyWebSocketConformance(t *testing.T) {
	conformance.RunAll(t, "WebSocket, on the cluster", conformanceTarget(t), 2, false, conformance.WebSocketCases())
}
