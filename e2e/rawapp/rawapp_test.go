package rawapp

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// start starts an application and returns its address and a client.
func start(t *testing.T) (address string, client *Client) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	go func() { _ = New().Serve(t.Context(), listener) }()
	return listener.Addr().String(), NewClient("http://" + listener.Addr().String() + "/user/1")
}

// dial opens a connection and writes text to it.
func dial(t *testing.T, address, text string) *net.TCPConn {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	require.NoError(t, conn.SetDeadline(time.Now().Add(10*time.Second)))
	_, err = io.WriteString(conn, text)
	require.NoError(t, err)
	return conn.(*net.TCPConn)
}

func expect(t *testing.T, conn net.Conn, text string) {
	t.Helper()
	got := make([]byte, len(text))
	_, err := io.ReadFull(conn, got)
	require.NoError(t, err, "%q", got)
	assert.Equal(t, text, string(got))
}

func TestAnswersWithExactlyTheBytes(t *testing.T) {
	address, client := start(t)
	const odd = "HTTP/1.1 000 Odd\nno colon\x00\xff\r\n\r\n"
	require.NoError(t, client.Put(t.Context(), "k", Read(), Send(odd)))
	for _, target := range []string{"/raw/k", "/raw/k?a", "/user/1/raw/k/a%2Fb//c?d=e", "http://x/raw/k/"} {
		for _, body := range []string{"", "Content-Length: 3\r\n\r\nabc", "Transfer-Encoding: chunked\r\n\r\n3;x\r\nabc\r\n0\r\nX-End: 1\r\n\r\n"} {
			if body == "" {
				body = "\r\n"
			}
			conn := dial(t, address, "PUT "+target+" HTTP/1.1\r\nx-odd:  y\r\n"+body)
			expect(t, conn, odd)
			_, err := io.WriteString(conn, "GET /raw/none HTTP/1.1\r\n\r\n")
			require.NoError(t, err)
			expect(t, conn, "HTTP/1.1 404")
		}
	}
}

func TestKeepsTheBytesOfRequests(t *testing.T) {
	address, client := start(t)
	require.NoError(t, client.Put(t.Context(), "k", Step{Op: OpEcho}))
	head := "pUt /raw/k/a|b?c HTTP/1.1\r\nx-odd:  y \r\nTransfer-Encoding: chunked\r\n\r\n"
	body := "3;x=y\r\nabc\r\n1\r\nd\r\n0\r\nX-End: 1\r\n\r\n"
	conn := dial(t, address, head+body)
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	require.NoError(t, err)
	echoed, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	assert.Equal(t, head+body, string(echoed))
	_ = conn.Close()

	require.Eventually(t, func() bool {
		seen, err := client.Seen(t.Context(), "k")
		return err == nil && len(seen) == 1 && seen[0].Done
	}, 10*time.Second, time.Millisecond)
	seen, err := client.Seen(t.Context(), "k")
	require.NoError(t, err)
	assert.Equal(t, Record{Head: []byte(head), Body: []byte(body), Size: 4, Whole: true, Done: true,
		SHA256: "88d4266fd4e6338d13b845fcf289579d209c897823b9217da3e161936f031589"}, seen[0])
	require.NoError(t, client.Delete(t.Context(), "k"))
	_, err = client.Seen(t.Context(), "k")
	assert.Error(t, err)
}

func TestGatesHoldParts(t *testing.T) {
	address, client := start(t)
	require.NoError(t, client.Put(t.Context(), "k", Send("one"), Wait("g"), Send("two"), Step{Op: OpPause, N: 1}, Step{Op: OpClose}))
	conn := dial(t, address, "GET /raw/k HTTP/1.1\r\n\r\n")
	expect(t, conn, "one")
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(50*time.Millisecond)))
	_, err := conn.Read(make([]byte, 1))
	require.ErrorContains(t, err, "timeout", "the second part came before its gate was open")
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(10*time.Second)))
	assert.Error(t, client.Open(t.Context(), "k", "other"))
	require.NoError(t, client.Open(t.Context(), "k", "g"))
	require.NoError(t, client.Open(t.Context(), "k", "g"), "twice")
	expect(t, conn, "two")
	_, err = conn.Read(make([]byte, 1))
	assert.ErrorIs(t, err, io.EOF)
}

func TestEndsInEachWay(t *testing.T) {
	address, client := start(t)
	for _, row := range []struct {
		op   Op
		want error
	}{{OpClose, io.EOF}, {OpLinger, io.EOF}, {OpReset, syscall.ECONNRESET}} {
		require.NoError(t, client.Put(t.Context(), "k", Wait("g"), Step{Op: row.op}))
		conn := dial(t, address, "GET /raw/k HTTP/1.1\r\n\r\n")
		require.NoError(t, client.Open(t.Context(), "k", "g"))
		_, err := conn.Read(make([]byte, 1))
		assert.True(t, errors.Is(err, row.want), "%s: %v", row.op, err)
	}
	require.NoError(t, client.Put(t.Context(), "k", Step{Op: OpHold}))
	conn := dial(t, address, "GET /raw/k HTTP/1.1\r\n\r\nmore")
	require.NoError(t, conn.CloseWrite())
	_, err := conn.Read(make([]byte, 1))
	require.ErrorIs(t, err, io.EOF)
	seen, err := client.Seen(t.Context(), "k")
	require.NoError(t, err)
	assert.Equal(t, "more", string(seen[0].Body))
}

func TestEchoesWebSockets(t *testing.T) {
	address, client := start(t)
	for kind := range int64(3) {
		require.NoError(t, client.Put(t.Context(), "k", Step{Op: OpWebSocket, N: kind}))
		conn, response, err := websocket.Dial(t.Context(), "http://"+address+"/raw/k", &websocket.DialOptions{CompressionMode: websocket.CompressionContextTakeover})
		require.NoError(t, err)
		assert.Equal(t, kind > 0, response.Header.Get("Sec-WebSocket-Extensions") != "")
		require.NoError(t, conn.Write(t.Context(), websocket.MessageText, []byte("hello")))
		_, message, err := conn.Read(t.Context())
		require.NoError(t, err)
		assert.Equal(t, "hello", string(message))
		_ = conn.CloseNow()
	}
}

func TestScriptsAreBounded(t *testing.T) {
	address, client := start(t)
	for name, steps := range map[string][]Step{
		"unknown": {{Op: "fly"}}, "negative": {{Op: OpRead, N: -1}}, "long pause": {{Op: OpPause, N: 1 << 40}}, "much": {{Op: OpSend, Data: make([]byte, 1024), N: 1 << 30}},
		"overflow": {{Op: OpSend, Data: make([]byte, 16), N: 1 << 60}}, "no gate": {{Op: OpWait}}, "many": make([]Step, maxSteps+1), "long": {Send(strings.Repeat("x", maxScript))}, "kind": {{Op: OpWebSocket, N: 3}},
	} {
		assert.Error(t, client.Put(t.Context(), "k", steps...), name)
	}
	for i := range maxKeys + 10 {
		require.NoError(t, client.Put(t.Context(), fmt.Sprint("k", i), Read()))
	}
	_, err := client.Seen(t.Context(), "k0")
	assert.Error(t, err, "the oldest script is still there")
	require.NoError(t, client.Put(t.Context(), "k", Send("x"), Step{Op: OpClose}))
	for i := range maxRequests + 1 {
		want := "x"
		if i == maxRequests {
			want = "HTTP/1.1 429"
		}
		expect(t, dial(t, address, "GET /raw/k HTTP/1.1\r\n\r\n"), want)
	}
	conn := dial(t, address, "GET /raw/k HTTP/1.1\r\n")
	go func() { _, _ = io.Copy(conn, strings.NewReader(strings.Repeat("x: y\r\n", maxHead))) }()
	_, err = io.Copy(io.Discard, conn)
	assert.NotErrorIs(t, err, os.ErrDeadlineExceeded, "a head without end must end the connection")
}
