//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/cookiejar"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/coder/websocket/wsjson"
	"github.com/stretchr/testify/require"

	"github.com/binder-project/binder-deploy-kubernetes/e2e/harness"
)

// visitTimeout bounds each request of a visitor.
const visitTimeout = time.Minute

// TestNotebook runs code in a real notebook through the proxy. It sends cookies and
// an origin as a browser does.
func TestNotebook(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	notebook := suite.Launch(t, "jupyter", harness.LongTimeout).AwaitDeployed(t)

	jar, err := cookiejar.New(nil)
	require.NoError(t, err)
	browser := &http.Client{Jar: jar, Timeout: visitTimeout}
	require.Contains(t, open(t, browser, http.MethodGet, notebook.URL("/tree"), http.StatusOK), "Jupyter")
	open(t, browser, http.MethodGet, notebook.URL("/api/status"), http.StatusOK)

	channels, url := startKernel(ctx, t, browser, notebook)
	require.Equal(t, "42", execute(ctx, t, channels, "6*7"))

	_, refused, err := websocket.Dial(ctx, url, from(browser, "http://elsewhere.example"))
	require.Error(t, err, "a page of another origin must not connect to a kernel")
	require.Equal(t, http.StatusForbidden, refused.StatusCode)
}

// startKernel starts a kernel and connects to it. The browser must have opened a
// page of the notebook. It also returns the URL of the connection.
func startKernel(ctx context.Context, t *testing.T, browser *http.Client, notebook *harness.Instance) (channels *websocket.Conn, url string) {
	t.Helper()
	var kernel struct{ ID string }
	answer := open(t, browser, http.MethodPost, notebook.URL("/api/kernels"), http.StatusCreated)
	require.NoError(t, json.Unmarshal([]byte(answer), &kernel))
	url = notebook.URL("/api/kernels/" + kernel.ID + "/channels")
	channels, _, err := websocket.Dial(ctx, url, from(browser, "http://"+harness.PublicHost))
	require.NoError(t, err)
	t.Cleanup(func() { _ = channels.CloseNow() })
	channels.SetReadLimit(1 << 20)
	return channels, url
}

// open sends a request with the XSRF token, as a page does.
func open(t *testing.T, browser *http.Client, method, address string, want int) string {
	t.Helper()
	return send(t, browser, method, address, "{}", want)
}

func send(t *testing.T, browser *http.Client, method, address, body string, want int) string {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, address, strings.NewReader(body))
	require.NoError(t, err)
	for _, cookie := range browser.Jar.Cookies(request.URL) {
		if cookie.Name == "_xsrf" {
			request.Header.Set("X-XSRFToken", cookie.Value)
		}
	}
	response, err := browser.Do(request)
	require.NoError(t, err)
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	require.Equal(t, want, response.StatusCode, string(answer))
	return string(answer)
}

// from returns dial options with the browser's cookies and the given origin.
func from(browser *http.Client, origin string) *websocket.DialOptions {
	return &websocket.DialOptions{HTTPClient: browser, HTTPHeader: http.Header{"Origin": {origin}}}
}

// kernelMessage has the needed fields of a message of Jupyter's messaging protocol.
type kernelMessage struct {
	Header       map[string]any `json:"header"`
	ParentHeader map[string]any `json:"parent_header"`
	Metadata     map[string]any `json:"metadata"`
	Content      map[string]any `json:"content"`
	Channel      string         `json:"channel"`
}

// requestID is the id of the only code that a test sends to a kernel.
const requestID = "a-request"

// submit sends code to a kernel.
func submit(ctx context.Context, t *testing.T, channels *websocket.Conn, code string) {
	t.Helper()
	askKernel(ctx, t, channels, "shell", "execute_request", requestID,
		map[string]any{"code": code, "silent": false, "store_history": true, "user_expressions": map[string]any{}})
}

// askKernel sends a request to a kernel.
func askKernel(ctx context.Context, t *testing.T, channels *websocket.Conn, channel, kind, id string, content map[string]any) {
	t.Helper()
	require.NoError(t, wsjson.Write(ctx, channels, kernelMessage{
		Header:       map[string]any{"msg_id": id, "msg_type": kind, "session": "a-session", "username": "", "version": "5.3"},
		ParentHeader: map[string]any{},
		Metadata:     map[string]any{},
		Content:      content,
		Channel:      channel,
	}))
}

// awaitAnswer waits for a message of a kernel that answers the request with the given id.
func awaitAnswer(ctx context.Context, t *testing.T, channels *websocket.Conn, id string, is func(kernelMessage) bool) kernelMessage {
	t.Helper()
	for {
		var message kernelMessage
		require.NoError(t, wsjson.Read(ctx, channels, &message), "the answer to %s has not come", id)
		if message.ParentHeader["msg_id"] == id && is(message) {
			return message
		}
	}
}

// execute runs code in a kernel and returns the result as text.
func execute(ctx context.Context, t *testing.T, channels *websocket.Conn, code string) string {
	t.Helper()
	submit(ctx, t, channels, code)
	result := awaitAnswer(ctx, t, channels, requestID, func(m kernelMessage) bool { return m.Header["msg_type"] == "execute_result" })
	data, _ := result.Content["data"].(map[string]any)
	text, _ := data["text/plain"].(string)
	return text
}

// visit sends a request and returns the status code and the trimmed body.
func visit(t *testing.T, method, url string, body []byte, header ...string) (code int, answer string) {
	t.Helper()
	response := fetch(t, method, url, bytes.NewReader(body), header...)
	data, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	return response.StatusCode, strings.TrimSpace(string(data))
}

// fetch sends a request and does not follow redirects. The body is closed when the
// test ends.
func fetch(t *testing.T, method, url string, body io.Reader, header ...string) *http.Response {
	t.Helper()
	// One connection per request, so that each can reach any replica.
	return fetchBy(t, &http.Transport{DisableKeepAlives: true}, method, url, body, header...)
}

// fetchBy is fetch by a transport of one's own.
func fetchBy(t *testing.T, transport *http.Transport, method, url string, body io.Reader, header ...string) *http.Response {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), visitTimeout)
	t.Cleanup(cancel)
	request, err := http.NewRequestWithContext(ctx, method, url, body)
	require.NoError(t, err)
	for i := 0; i+1 < len(header); i += 2 {
		request.Header.Add(header[i], header[i+1])
	}
	response, err := transport.RoundTrip(request)
	require.NoError(t, err)
	t.Cleanup(func() { _ = response.Body.Close() })
	return response
}
