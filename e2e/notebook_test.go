//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/coder/websocket/wsjson"
	"github.com/stretchr/testify/require"

	"github.com/binder-project/binder-deploy-kubernetes/e2e/harness"
)

// visitTimeout bounds every request of a visitor.
const visitTimeout = time.Minute

// TestNotebook computes something in a real notebook, through the proxy.
func TestNotebook(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	notebook := suite.Launch(t, "jupyter", harness.LongTimeout).AwaitDeployed(t)

	code, page := visit(t, http.MethodGet, notebook.URL("/tree"), nil)
	require.Equal(t, http.StatusOK, code, page)
	require.Contains(t, page, "Jupyter")
	code, page = visit(t, http.MethodGet, notebook.URL("/api/status"), nil)
	require.Equal(t, http.StatusOK, code, page)

	code, page = visit(t, http.MethodPost, notebook.URL("/api/kernels"), []byte(`{}`))
	require.Equal(t, http.StatusCreated, code, page)
	var kernel struct{ ID string }
	require.NoError(t, json.Unmarshal([]byte(page), &kernel))

	channels, _, err := websocket.Dial(ctx, notebook.URL("/api/kernels/"+kernel.ID+"/channels"), nil)
	require.NoError(t, err)
	defer channels.CloseNow()
	channels.SetReadLimit(1 << 20)
	require.Equal(t, "42", execute(ctx, t, channels, "6*7"))
}

// kernelMessage is what is needed of Jupyter's messaging protocol.
type kernelMessage struct {
	Header       map[string]any `json:"header"`
	ParentHeader map[string]any `json:"parent_header"`
	Metadata     map[string]any `json:"metadata"`
	Content      map[string]any `json:"content"`
	Channel      string         `json:"channel"`
}

// execute runs code in a kernel and returns the text of its result.
func execute(ctx context.Context, t *testing.T, channels *websocket.Conn, code string) string {
	const request = "a-request"
	require.NoError(t, wsjson.Write(ctx, channels, kernelMessage{
		Header: map[string]any{
			"msg_id": request, "msg_type": "execute_request", "session": "a-session", "username": "", "version": "5.3",
		},
		ParentHeader: map[string]any{},
		Metadata:     map[string]any{},
		Content:      map[string]any{"code": code, "silent": false, "store_history": true, "user_expressions": map[string]any{}},
		Channel:      "shell",
	}))
	for {
		var message kernelMessage
		require.NoError(t, wsjson.Read(ctx, channels, &message), "no execute_result yet")
		if message.Header["msg_type"] != "execute_result" || message.ParentHeader["msg_id"] != request {
			continue
		}
		data, _ := message.Content["data"].(map[string]any)
		text, _ := data["text/plain"].(string)
		return text
	}
}

// visit makes a request as a browser on the page itself would, and reads the answer.
func visit(t *testing.T, method, url string, body []byte, header ...string) (code int, answer string) {
	t.Helper()
	response := fetch(t, method, url, bytes.NewReader(body), header...)
	data, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	return response.StatusCode, strings.TrimSpace(string(data))
}

// fetch makes a request and follows no redirect; the body is closed when the test ends.
func fetch(t *testing.T, method, url string, body io.Reader, header ...string) *http.Response {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), visitTimeout)
	t.Cleanup(cancel)
	request, err := http.NewRequestWithContext(ctx, method, url, body)
	require.NoError(t, err)
	for i := 0; i+1 < len(header); i += 2 {
		request.Header.Add(header[i], header[i+1])
	}
	// One connection per request, so that each may meet another replica.
	transport := &http.Transport{DisableKeepAlives: true}
	response, err := transport.RoundTrip(request)
	require.NoError(t, err)
	t.Cleanup(func() { _ = response.Body.Close() })
	return response
}
