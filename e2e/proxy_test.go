//go:build e2e

package e2e

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/binder-project/binder-deploy-kubernetes/e2e/harness"
)

func TestProxyHeaders(t *testing.T) {
	t.Parallel()
	instance := suite.Launch(t, "echo", harness.LongTimeout).AwaitDeployed(t)
	url := instance.URL("/tree")

	t.Run("forwarded", func(t *testing.T) {
		request := seenRequest(t, url)
		assert.NotEmpty(t, request.Headers.Get("X-Forwarded-For"))
		assert.Equal(t, harness.PublicHost, request.Headers.Get("X-Forwarded-Host"))
		assert.Equal(t, "http", request.Headers.Get("X-Forwarded-Proto"))
		assert.Equal(t, harness.PublicHost, request.Host, "applications compare the origin with the browser's host")
	})
	t.Run("hop-by-hop", func(t *testing.T) {
		request := seenRequest(t, url, "Connection", "X-Hop, keep-alive", "X-Hop", "1", "Keep-Alive", "timeout=5",
			"Proxy-Authorization", "Basic Zm9v", "Proxy-Connection", "keep-alive", "Te", "gzip", "X-End", "1")
		for _, name := range []string{"X-Hop", "Keep-Alive", "Proxy-Authorization", "Proxy-Connection", "Connection", "Te"} {
			assert.Empty(t, request.Headers.Values(name), name)
		}
		assert.Equal(t, "1", request.Headers.Get("X-End"))
	})
	t.Run("API key", func(t *testing.T) {
		for _, form := range []string{"%", "token %", "Bearer %"} {
			request := seenRequest(t, url, "Authorization", strings.Replace(form, "%", suite.API.Key(), 1))
			assert.Empty(t, request.Headers.Values("Authorization"), form)
		}
	})
	t.Run("the application's own token", func(t *testing.T) {
		assert.Equal(t, "token abc", seenRequest(t, url, "Authorization", "token abc").Headers.Get("Authorization"))
	})
	t.Run("cookies", func(t *testing.T) {
		assert.Equal(t, "a=1; b=2", seenRequest(t, url, "Cookie", "a=1; b=2").Headers.Get("Cookie"))
	})
}

func TestProxyPaths(t *testing.T) {
	t.Parallel()
	instance := suite.Launch(t, "echo", harness.LongTimeout).AwaitDeployed(t)
	stripped := suite.Launch(t, "echo-strip", harness.LongTimeout).AwaitDeployed(t)

	request := seenRequest(t, instance.URL("/a%2Fb%20c/d?x=1&x=2&y"))
	assert.Equal(t, "/user/"+instance.ID+"/a%2Fb%20c/d", request.Path, "must be escaped as the browser sent it")
	assert.Equal(t, "x=1&x=2&y", request.Query)
	assert.Equal(t, "/tree", seenRequest(t, stripped.URL("/tree")).Path)

	response := fetch(t, http.MethodGet, instance.URL("?x=1"), http.NoBody)
	assert.Equal(t, http.StatusTemporaryRedirect, response.StatusCode)
	assert.Equal(t, "/user/"+instance.ID+"/?x=1", response.Header.Get("Location"), "relative links need the trailing slash")

	for _, method := range []string{http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions} {
		assert.Equal(t, method, seenRequestWith(t, method, instance.URL("/x")).Method)
	}
}

// TestProxyStreams checks that the proxy does not buffer responses.
func TestProxyStreams(t *testing.T) {
	t.Parallel()
	instance := suite.Launch(t, "echo", harness.LongTimeout).AwaitDeployed(t)
	response := fetch(t, http.MethodGet, instance.URL("/stream?chunks=4&every=1s"), http.NoBody)
	require.Equal(t, http.StatusOK, response.StatusCode)
	_, err := io.ReadFull(response.Body, make([]byte, 1))
	require.NoError(t, err)
	first := time.Now()
	_, err = io.Copy(io.Discard, response.Body)
	require.NoError(t, err)
	assert.Greater(t, time.Since(first), 1500*time.Millisecond, "time between the first byte and the last")
}

func TestProxyUpload(t *testing.T) {
	t.Parallel()
	const size = 300 << 20
	instance := suite.Launch(t, "echo", harness.LongTimeout).AwaitDeployed(t)
	response := fetch(t, http.MethodPost, instance.URL("/upload"), io.LimitReader(zeros{}, size))
	page, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	assert.Equal(t, http.StatusOK, response.StatusCode)
	assert.Contains(t, string(page), "314572800")
}

// zeros is an endless body.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

func TestProxyWebSocket(t *testing.T) {
	t.Parallel()
	instance := suite.Launch(t, "echo", harness.LongTimeout).AwaitDeployed(t)
	connection := dial(t, instance.URL("/ws"))
	for _, size := range []int{0, 1, 125, 126, 65535, 65536, 4 << 20} {
		echo(t, connection, bytes.Repeat([]byte{0xa5}, size))
	}
}

// TestProxyErrorPages checks the status codes for unknown, starting and ended
// instances.
func TestProxyErrorPages(t *testing.T) {
	t.Parallel()
	t.Run("unknown", func(t *testing.T) {
		t.Parallel()
		for _, path := range []string{"/user/" + unknownID + "/", "/user/" + unknownID, "/user/1/", "/user/", "/nothing"} {
			code, page := visit(t, http.MethodGet, "http://"+harness.PublicHost+path, nil)
			assert.Equal(t, http.StatusNotFound, code, "%s: %s", path, page)
		}
	})
	t.Run("not ready", func(t *testing.T) {
		t.Parallel()
		instance := suite.Launch(t, "echo-late", harness.LongTimeout)
		response := fetch(t, http.MethodGet, instance.URL("/"), http.NoBody)
		assert.Equal(t, http.StatusServiceUnavailable, response.StatusCode)
		assert.NotEmpty(t, response.Header.Get("Retry-After"))
		assert.Equal(t, "no-store", response.Header.Get("Cache-Control"))
	})
	t.Run("gone", func(t *testing.T) {
		t.Parallel()
		instance := suite.Launch(t, "echo", harness.LongTimeout).AwaitDeployed(t)
		suite.API.Do(t, http.MethodDelete, "/applications/echo/"+instance.ID, "", "Authorization", suite.API.Key()).
			Decode(t, &harness.Status{})
		instance.AwaitStatus(t, removalMargin, "deleted")
		code, page := visit(t, http.MethodGet, instance.URL("/"), nil)
		assert.Equal(t, http.StatusGone, code, page)
	})
}

// TestProxyDoesNotExposeService checks that the proxy's port serves neither the API
// nor the metrics.
func TestProxyDoesNotExposeService(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"/metrics", "/healthz", "/applications/", "/user/" + unknownID + "/../../metrics"} {
		code, page := visit(t, http.MethodGet, "http://"+harness.PublicHost+path, nil, "Authorization", suite.API.Key())
		assert.Equal(t, http.StatusNotFound, code, "%s: %s", path, page)
	}
}
