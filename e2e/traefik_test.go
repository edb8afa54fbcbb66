//go:build e2e

package e2e

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/tools/clientcmd"
	gatewayclient "sigs.k8s.io/gateway-api/pkg/client/clientset/versioned/typed/apis/v1"

	"github.com/binder-project/binder-deploy-kubernetes/e2e/harness"
)

const (
	// traefikAddress is an address of this machine on which nothing else has the ports of
	// the Gateway.
	traefikAddress = "127.0.0.80"
	// traefikClass is the name of Traefik's GatewayClass.
	traefikClass = harness.Namespace + "-traefik"
	// traefikReadTimeout bounds the time in which Traefik reads a request. Its default is a
	// minute.
	traefikReadTimeout = 3 * time.Second
)

// startTraefik starts Traefik on this machine. It serves the Gateways of its class in a
// namespace.
func startTraefik(t *testing.T, namespace string) {
	t.Helper()
	path, err := filepath.Abs("../.build/bin/traefik")
	require.NoError(t, err)
	require.FileExists(t, path, "hack/traefik.sh builds it")
	class := []*unstructured.Unstructured{{Object: map[string]any{
		"apiVersion": "gateway.networking.k8s.io/v1", "kind": "GatewayClass", "metadata": map[string]any{"name": traefikClass},
		"spec": map[string]any{"controllerName": "traefik.io/gateway-controller"},
	}}}
	t.Cleanup(func() { suite.Kube.Remove(t, class) })
	require.NoError(t, suite.Kube.Apply(t.Context(), class))

	command := exec.CommandContext(t.Context(), path,
		"--global.checknewversion=false", "--global.sendanonymoususage=false",
		"--entrypoints.web.address="+traefikAddress+":80",
		"--entrypoints.websecure.address="+traefikAddress+":443",
		"--entrypoints.websecure.transport.respondingtimeouts.readtimeout="+traefikReadTimeout.String(),
		"--providers.kubernetesgateway.namespaces="+namespace,
		"--providers.kubernetesgateway.statusaddress.ip="+traefikAddress)
	command.Env = append(os.Environ(), "KUBECONFIG="+suite.Kube.Kubeconfig())
	startProgram(t, command)
}

// gatewayClient returns a client of the Gateway API with administrator rights.
func gatewayClient(t *testing.T) *gatewayclient.GatewayV1Client {
	t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", suite.Kube.Kubeconfig())
	require.NoError(t, err)
	client, err := gatewayclient.NewForConfig(config)
	require.NoError(t, err)
	return client
}

// awaitGateway waits until the Gateway of a namespace, its listeners and its routes are as
// their controller must report them.
func awaitGateway(t *testing.T, namespace string) {
	t.Helper()
	client := gatewayClient(t)
	harness.Until(t, time.Minute, "the Gateway is programmed", func(ctx context.Context) error {
		gateway, err := client.Gateways(namespace).Get(ctx, "binder-proxy", metav1.GetOptions{})
		if err != nil {
			return err
		}
		routes, err := client.HTTPRoutes(namespace).List(ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		status := gateway.Status
		problems := []error{
			lacks("the Gateway", gateway.Generation, status.Conditions, "Accepted", "Programmed"),
			differs("listeners", len(status.Listeners), len(gateway.Spec.Listeners)),
			differs("routes", len(routes.Items), 2),
		}
		for _, listener := range status.Listeners {
			problems = append(problems, lacks("listener "+string(listener.Name), gateway.Generation, listener.Conditions, "Accepted", "Programmed", "ResolvedRefs"),
				differs("routes of listener "+string(listener.Name), int(listener.AttachedRoutes), 1))
		}
		for _, route := range routes.Items {
			problems = append(problems, differs("parents of "+route.Name, len(route.Status.Parents), len(route.Spec.ParentRefs)))
			for _, parent := range route.Status.Parents {
				problems = append(problems, lacks(route.Name, route.Generation, parent.Conditions, "Accepted", "ResolvedRefs"))
			}
		}
		return errors.Join(problems...)
	})
}

// lacks returns an error unless conditions of the given types are true.
func lacks(what string, generation int64, conditions []metav1.Condition, types ...string) error {
	for _, name := range types {
		condition := meta.FindStatusCondition(conditions, name)
		if condition == nil || condition.Status != metav1.ConditionTrue || condition.ObservedGeneration != generation {
			return fmt.Errorf("%s is not %s: %+v", what, name, condition)
		}
	}
	return nil
}

func differs(what string, have, want int) error {
	if have == want {
		return nil
	}
	return fmt.Errorf("%s: %d, want %d", what, have, want)
}

// throughTraefik returns a transport from an address of this machine, which reaches all hosts
// through Traefik and trusts the given authorities.
func throughTraefik(t *testing.T, source string, authorities *x509.CertPool) *http.Transport {
	t.Helper()
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(source)}}
	transport := &http.Transport{
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			_, port, err := net.SplitHostPort(address)
			if err != nil {
				return nil, err
			}
			return dialer.DialContext(ctx, network, net.JoinHostPort(traefikAddress, port))
		},
		TLSClientConfig: &tls.Config{RootCAs: authorities},
	}
	t.Cleanup(transport.CloseIdleConnections)
	return transport
}
