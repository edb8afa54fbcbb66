package conformance

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestRestartIsToldToWebSockets checks that real implementations of both sides take the
// close frame of a restart for what it is: the client sees 1012, and so does the
// application, by the client's answer.
func TestRestartIsToldToWebSockets(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	atApplication := make(chan error, 1)
	application := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true, CompressionMode: websocket.CompressionContextTakeover})
		if err != nil {
			atApplication <- err
			return
		}
		defer conn.CloseNow()
		for {
			kind, message, err := conn.Read(ctx)
			if err == nil {
				err = conn.Write(ctx, kind, message)
			}
			if err != nil {
				atApplication <- err
				return
			}
		}
	}))
	defer application.Close()
	target, handler := startProxy(t, application.Listener.Addr())
	conn, _, err := websocket.Dial(ctx, "ws://"+target.Proxy+target.Base+"/", &websocket.DialOptions{CompressionMode: websocket.CompressionContextTakeover})
	require.NoError(t, err)
	defer conn.CloseNow()
	require.NoError(t, conn.Write(ctx, websocket.MessageText, []byte("hello")))
	_, message, err := conn.Read(ctx)
	require.NoError(t, err)
	require.Equal(t, "hello", string(message))

	ended := make(chan struct{})
	go func() { handler.EndWebSockets(20 * time.Second); close(ended) }()
	_, _, err = conn.Read(ctx)
	assert.Equal(t, websocket.StatusServiceRestart, websocket.CloseStatus(err), "the client got %v", err)
	assert.Equal(t, websocket.StatusServiceRestart, websocket.CloseStatus(<-atApplication))
	<-ended
}
