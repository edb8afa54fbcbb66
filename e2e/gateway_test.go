//go:build e2e

package e2e

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/cert"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/binder-project/binder-deploy-kubernetes/e2e/harness"
)

// TestGateway serves a release by the Gateway API, with Traefik as the implementation. The
// release has the objects of the components gateway and instance-hosts, as
// TestChartIsTheManifests checks.
func TestGateway(t *testing.T) {
	t.Parallel()
	installGatewayAPI(t, "gatewayclasses", "gateways", "httproutes", "grpcroutes", "tlsroutes", "referencegrants", "backendtlspolicies")
	values := chartValues(t, "gateway", "instance-hosts")
	values["gateway"] = map[string]any{"enabled": true, "className": traefikClass}
	values["trustedProxies"] = []any{nodeAddress + "/32"} // where pods see Traefik
	values["env"] = map[string]any{"BINDER_LAUNCH_RATE": 1}
	helm := newHelm(t, harness.Namespace+"-gateway", values)
	startTraefik(t, helm.namespace)
	helm.install(t)
	helm.addTemplate(t, "echo")
	authorities := helm.addCertificates(t)
	awaitGateway(t, helm.namespace)

	visitor := throughTraefik(t, "127.0.0.2", authorities)
	visitor.ForceAttemptHTTP2 = true
	home := launchBy(t, visitor, "echo")
	t.Run("visitors are told apart", func(t *testing.T) {
		again := fetchBy(t, visitor, http.MethodPost, launchPage("echo"), http.NoBody, "X-Forwarded-For", "127.0.0.9")
		assert.Equal(t, http.StatusTooManyRequests, again.StatusCode)
		launchBy(t, throughTraefik(t, "127.0.0.3", authorities), "echo")
	})
	t.Run("a request arrives as it was sent", func(t *testing.T) {
		response := fetchBy(t, visitor, http.MethodGet, home.String()+"a%2Fb%20c?x=1", http.NoBody, "X-Forwarded-For", "127.0.0.9")
		assert.Equal(t, "HTTP/2.0", response.Proto)
		var arrived echoedRequest
		require.NoError(t, json.NewDecoder(response.Body).Decode(&arrived))
		assert.Equal(t, home.Host, arrived.Host)
		assert.Equal(t, home.Path+"a%2Fb%20c", arrived.Path)
		assert.Equal(t, "x=1", arrived.Query)
		assert.Equal(t, "https", arrived.Headers.Get("X-Forwarded-Proto"))
		// Traefik ignores a visitor's header.
		assert.Equal(t, "127.0.0.2, "+nodeAddress, arrived.Headers.Get("X-Forwarded-For"))
	})
	t.Run("other addresses lead to the instance's", func(t *testing.T) {
		for address, want := range map[string]struct {
			code     int
			location string
		}{
			"https://" + publicHost + home.Path + "tree?x=1": {http.StatusTemporaryRedirect, home.String() + "tree?x=1"},
			"http://" + home.Host + home.Path + "tree?x=1":   {http.StatusMovedPermanently, home.String() + "tree?x=1"},
			"http://" + publicHost + "/launch/echo":          {http.StatusMovedPermanently, launchPage("echo")},
		} {
			response := fetchBy(t, visitor, http.MethodGet, address, http.NoBody)
			assert.Equal(t, want.code, response.StatusCode, address)
			location, err := response.Location()
			require.NoError(t, err, address)
			assert.Equal(t, want.location, location.String())
		}
	})
	t.Run("a challenge for a certificate is not redirected", func(t *testing.T) {
		const path = "/.well-known/acme-challenge/token"
		helm.addRoute(t, path)
		harness.Until(t, time.Minute, "the route is served", func(context.Context) error {
			response := fetchBy(t, visitor, http.MethodGet, "http://"+publicHost+path, http.NoBody)
			if response.StatusCode != http.StatusNotFound { // the proxy's answer
				return fmt.Errorf("it returned %s", response.Status)
			}
			return nil
		})
	})
	t.Run("a large upload arrives", func(t *testing.T) {
		t.Parallel()
		const size = 64 << 20
		response := fetchBy(t, visitor, http.MethodPost, home.String()+"upload", io.LimitReader(zeros{}, size))
		page, err := io.ReadAll(response.Body)
		require.NoError(t, err)
		assert.Contains(t, string(page), fmt.Sprintf(`"bytes":%d,`, size))
	})
	t.Run("a WebSocket lasts", func(t *testing.T) {
		t.Parallel()
		browser := &http.Client{Transport: throughTraefik(t, "127.0.0.2", authorities)}
		socket := dialWith(t, home.String()+"ws", from(browser, "https://"+home.Host))
		echo(t, socket, []byte("first"))
		pause(t.Context(), traefikReadTimeout*4/3)
		echo(t, socket, make([]byte, 1<<20))
	})
	t.Run("a long answer arrives in pieces", func(t *testing.T) {
		t.Parallel()
		for _, visitor := range []*http.Transport{visitor, throughTraefik(t, "127.0.0.2", authorities)} {
			response := fetchBy(t, visitor, http.MethodGet, fmt.Sprintf("%sstream?chunks=3&every=%s", home, traefikReadTimeout*2/3), http.NoBody)
			_, err := io.ReadFull(response.Body, make([]byte, 1))
			require.NoError(t, err)
			first := time.Now()
			_, err = io.Copy(io.Discard, response.Body)
			require.NoError(t, err)
			assert.Greater(t, time.Since(first), traefikReadTimeout, "time between the first byte and the last")
		}
	})
}

// launchPage returns the address of a template's launch page.
func launchPage(template string) string { return "https://" + publicHost + "/launch/" + template }

// launchBy launches an instance as a visitor does, and returns its URL once it answers.
func launchBy(t *testing.T, visitor *http.Transport, template string) *url.URL {
	t.Helper()
	awaitOK(t, visitor, launchPage(template))
	response := fetchBy(t, visitor, http.MethodPost, launchPage(template), http.NoBody)
	require.Equal(t, http.StatusSeeOther, response.StatusCode)
	home, err := response.Location()
	require.NoError(t, err)
	require.Regexp(t, `^https://([0-9a-f]{32})\.users\.example\.org/user/[0-9a-f]{32}/$`, home.String())
	awaitOK(t, visitor, home.String())
	return home
}

// awaitOK waits until an address answers a GET with 200.
func awaitOK(t *testing.T, visitor *http.Transport, address string) {
	t.Helper()
	harness.Until(t, harness.StartTimeout, address, func(ctx context.Context) error {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, http.NoBody)
		if err != nil {
			return err
		}
		response, err := visitor.RoundTrip(request)
		if err != nil {
			return err
		}
		defer response.Body.Close()
		if response.StatusCode != http.StatusOK {
			return fmt.Errorf("it returned %s", response.Status)
		}
		return nil
	})
}

// addCertificates gives the hosts of a release their certificates, and returns the
// authorities that have signed them.
func (h helmRelease) addCertificates(t *testing.T) *x509.CertPool {
	t.Helper()
	authorities := x509.NewCertPool()
	for name, host := range map[string]string{"binder-tls": publicHost, "binder-instances-tls": instanceHosts} {
		certificate, key, err := cert.GenerateSelfSignedCertKey(host, nil, nil)
		require.NoError(t, err)
		authorities.AppendCertsFromPEM(certificate)
		_, err = suite.Kube.Client.CoreV1().Secrets(h.namespace).Create(t.Context(), &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Name: name},
			Type:       corev1.SecretTypeTLS,
			Data:       map[string][]byte{corev1.TLSCertKey: certificate, corev1.TLSPrivateKeyKey: key},
		}, metav1.CreateOptions{})
		require.NoError(t, err)
	}
	return authorities
}

// addRoute leads a path of the public host to the proxy, over TLS and without it, as
// cert-manager's route leads to its server for challenges.
func (h helmRelease) addRoute(t *testing.T, path string) {
	t.Helper()
	proxy := gatewayv1.BackendObjectReference{Name: "binder-proxy", Port: new(gatewayv1.PortNumber(80))}
	_, err := gatewayClient(t).HTTPRoutes(h.namespace).Create(t.Context(), &gatewayv1.HTTPRoute{
		ObjectMeta: metav1.ObjectMeta{Name: "challenge"},
		Spec: gatewayv1.HTTPRouteSpec{
			CommonRouteSpec: gatewayv1.CommonRouteSpec{ParentRefs: []gatewayv1.ParentReference{{Name: "binder-proxy"}}},
			Hostnames:       []gatewayv1.Hostname{publicHost},
			Rules: []gatewayv1.HTTPRouteRule{{
				Matches:     []gatewayv1.HTTPRouteMatch{{Path: &gatewayv1.HTTPPathMatch{Type: new(gatewayv1.PathMatchExact), Value: &path}}},
				BackendRefs: []gatewayv1.HTTPBackendRef{{BackendRef: gatewayv1.BackendRef{BackendObjectReference: proxy}}},
			}},
		},
	}, metav1.CreateOptions{})
	require.NoError(t, err)
}
