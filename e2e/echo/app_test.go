package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

type answer struct {
	*http.Response
	body string
}

func get(t testing.TB, url string) answer {
	t.Helper()
	return send(t, http.MethodGet, url, nil)
}

func send(t testing.TB, method, url string, body io.Reader) answer {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, url, body)
	require.NoError(t, err)
	return do(t, request)
}

func do(t testing.TB, request *http.Request) answer {
	t.Helper()
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(request)
	require.NoError(t, err)
	defer response.Body.Close()
	page, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	return answer{response, string(page)}
}

// serve starts an application and returns its URL.
func serve(t testing.TB, environ ...string) string {
	t.Helper()
	server := httptest.NewServer(newApp(environ, make(chan int, 1)))
	t.Cleanup(server.Close)
	return server.URL
}

func TestDescribe(t *testing.T) {
	url := serve(t, "BINDER_ID=1", "BINDER_BASE_URL=/user/1/?a=b", "HOME=/", "XBINDER_ID=2")
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPatch, url+"/user/1/a%2Fb%20c//d?x=1&x=2&y", strings.NewReader("body"))
	require.NoError(t, err)
	request.Host = "notebooks.example"
	request.Header["X-Two"] = []string{"1", "2"}
	got := do(t, request)
	require.Equal(t, http.StatusOK, got.StatusCode)
	assert.Equal(t, "application/json", got.Header.Get("Content-Type"))

	var arrived requestInfo
	require.NoError(t, json.Unmarshal([]byte(got.body), &arrived))
	assert.NotEmpty(t, arrived.Remote)
	assert.Equal(t, []string{"1", "2"}, arrived.Headers["X-Two"])
	arrived.Remote, arrived.Headers = "", nil
	assert.Equal(t, requestInfo{
		Method: "PATCH", Path: "/user/1/a%2Fb%20c//d", Query: "x=1&x=2&y", Host: "notebooks.example",
		Env: map[string]string{"BINDER_ID": "1", "BINDER_BASE_URL": "/user/1/?a=b"},
	}, arrived)
}

func TestBadParameters(t *testing.T) {
	url := serve(t)
	for _, path := range []string{
		"/ws?ping=often", "/ws?ping=0s", "/ws?ping=-1s", "/ws?ping=2h",
		"/stream?chunks=0", "/stream?chunks=10001", "/stream?chunks=many", "/stream?every=1", "/stream?every=1ns",
		"/redirect?to=", "/redirect?to=${NOTHING}", "/exit?code=256", "/status?code=199", "/status?code=", "/exit?code=-1", "/exit?code=",
	} {
		got := get(t, url+"/user/1"+path)
		assert.Equal(t, http.StatusBadRequest, got.StatusCode, path)
		_, value, _ := strings.Cut(path, "?")
		assert.Contains(t, got.body, strings.Split(value, "=")[0]+"=", path)
	}
}

func TestRedirect(t *testing.T) {
	url := serve(t, "BINDER_BASE_URL=/user/1/") + "/redirect?to=http://a.example${BINDER_BASE_URL}b?c"
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	require.NoError(t, err)
	response, err := http.DefaultTransport.RoundTrip(request) // follows no redirect
	require.NoError(t, err)
	defer response.Body.Close()
	assert.Equal(t, http.StatusFound, response.StatusCode)
	assert.Equal(t, "http://a.example/user/1/b?c", response.Header.Get("Location"))
}

// TestStream checks that each line is sent at once, without waiting for the last.
func TestStream(t *testing.T) {
	url := serve(t)
	assert.Equal(t, "chunk 1 of 3\nchunk 2 of 3\nchunk 3 of 3\n", get(t, url+"/stream?chunks=3&every=10ms").body)

	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/stream?chunks=2&every=1h", nil)
	require.NoError(t, err)
	response, err := http.DefaultTransport.RoundTrip(request)
	require.NoError(t, err)
	defer response.Body.Close()
	line, err := bufio.NewReader(response.Body).ReadString('\n')
	require.NoError(t, err)
	assert.Equal(t, "chunk 1 of 2\n", line)
}

func TestUpload(t *testing.T) {
	url := serve(t)
	body := struct{ io.Reader }{bytes.NewReader(make([]byte, 3<<20))} // of unknown length
	summary := func(data []byte) string {
		return fmt.Sprintf(`{"bytes": %d, "sha256": "%x"}`, len(data), sha256.Sum256(data))
	}
	assert.JSONEq(t, summary(make([]byte, 3<<20)), send(t, http.MethodPost, url+"/upload", body).body)
	assert.JSONEq(t, summary(nil), get(t, url+"/upload").body)
	for _, size := range []int{0, 1, 100_000} {
		got := get(t, fmt.Sprintf("%s/download?bytes=%d", url, size))
		assert.Equal(t, strings.Repeat("\x00", size), got.body)
		assert.EqualValues(t, size, got.ContentLength)
	}
	assert.Equal(t, http.StatusBadRequest, get(t, url+"/download?bytes=-1").StatusCode)
}

func TestWebSocket(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	pings := make(chan struct{}, 100)
	connection, _, err := websocket.Dial(ctx, serve(t)+"/user/1/ws?ping=20ms", &websocket.DialOptions{
		HTTPHeader: http.Header{"Origin": {"http://elsewhere.example"}},
		OnPingReceived: func(context.Context, []byte) bool {
			select {
			case pings <- struct{}{}:
			default:
			}
			return true
		},
	})
	require.NoError(t, err)
	defer connection.CloseNow()
	connection.SetReadLimit(maxMessage)
	for _, size := range []int{0, 1, 65536, 4 << 20} {
		message := bytes.Repeat([]byte{0xa5}, size)
		require.NoError(t, connection.Write(ctx, websocket.MessageBinary, message))
		kind, echoed, err := connection.Read(ctx)
		require.NoError(t, err)
		assert.Equal(t, websocket.MessageBinary, kind)
		assert.True(t, bytes.Equal(message, echoed), "%d bytes", size)
	}
	closed := connection.CloseRead(ctx)
	for range 3 {
		select {
		case <-pings:
		case <-closed.Done():
			t.Fatal("no ping received: ", context.Cause(closed))
		}
	}
}
