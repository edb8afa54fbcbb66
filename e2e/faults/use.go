package faults

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"time"

	"github.com/coder/websocket"

	"github.com/binder-project/binder-deploy-kubernetes/e2e/harness"
)

// Sizes of what is uploaded and downloaded. Each is larger than the buffers on the way.
const (
	uploadBytes   = 512 << 10
	downloadBytes = 1 << 20
)

// keepSlotUsed launches an instance and uses it until ctx is done. If it ends, another follows.
// That of the first slot has a timeout that no outage is as long as.
func (l *Load) keepSlotUsed(ctx context.Context, slot int) {
	timeout := usedTimeout
	if slot == 0 {
		timeout = steadyTimeout
	}
	for ctx.Err() == nil {
		id, ok := l.launch(ctx, template, Used, timeout)
		if !ok || !l.awaitDeployed(ctx, template, id) {
			l.ledger.Change(id, func(e *Entry) { e.Plan = Idle }) // nobody will use it
			pause(ctx, time.Second)
			continue
		}
		l.useUntilEnd(ctx, slot, id)
	}
}

// useUntilEnd uses an instance until it has ended or ctx is done.
func (l *Load) useUntilEnd(ctx context.Context, slot int, id string) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	echoing := make(chan struct{})
	go func() {
		defer close(echoing)
		for pause(ctx, useEvery) {
			l.echo(ctx, id)
		}
	}()
	defer func() { <-echoing }()
	defer cancel()
	for n := 1; pause(ctx, useEvery); n++ {
		if l.visit(ctx, id) == gone || l.ledger.Entry(id).Unwanted {
			l.ledger.Change(id, func(e *Entry) { e.Left = l.now() })
			return
		}
		l.mu.Lock()
		l.slots[slot] = l.now()
		l.mu.Unlock()
		switch n % 5 {
		case 1:
			l.upload(ctx, id)
		case 3:
			l.download(ctx, id)
		}
	}
	l.ledger.Change(id, func(e *Entry) { e.Left = l.now() })
}

// gone is how a visit fails if the instance has ended.
const gone = "410"

func address(id, path string) string {
	return harness.PublicHost + "/user/" + id + "/" + path
}

// visit reads a page of an instance, which must be of that one and no other.
func (l *Load) visit(ctx context.Context, id string) (failure string) {
	_, failure = l.use(ctx, Pages, id, http.MethodGet, "", nil, func(answer []byte) error {
		var got struct{ Env map[string]string }
		if err := json.Unmarshal(answer, &got); err != nil || got.Env["BINDER_ID"] != id {
			return fmt.Errorf("another application has answered: %.300q", answer)
		}
		return nil
	})
	return failure
}

// upload sends bytes, which the application sums up.
func (l *Load) upload(ctx context.Context, id string) {
	data := make([]byte, uploadBytes)
	l.mu.Lock()
	_, _ = l.bytes.Read(data) // never fails
	l.mu.Unlock()
	sum := sha256.Sum256(data)
	l.use(ctx, Uploads, id, http.MethodPost, "upload", data, func(answer []byte) error {
		var got struct{ SHA256 string }
		if err := json.Unmarshal(answer, &got); err != nil || got.SHA256 != hex.EncodeToString(sum[:]) {
			return fmt.Errorf("the application got other bytes: %q", answer)
		}
		return nil
	})
}

// download reads zeros.
func (l *Load) download(ctx context.Context, id string) {
	l.use(ctx, Downloads, id, http.MethodGet, fmt.Sprint("download?bytes=", downloadBytes), nil, func(answer []byte) error {
		if len(answer) != downloadBytes || len(bytes.Trim(answer, "\x00")) > 0 {
			return fmt.Errorf("%d bytes arrived, or other ones than were sent", len(answer))
		}
		return nil
	})
}

// use sends a request to an instance, and checks the answer's body, which must be whole.
func (l *Load) use(ctx context.Context, kind Kind, id, method, path string, body []byte, check func([]byte) error) (answer []byte, failure string) {
	sent := l.now()
	request, err := http.NewRequestWithContext(ctx, method, "http://"+address(id, path), bytes.NewReader(body))
	if err != nil {
		l.ledger.Complain("make a request: %v", err)
		return nil, "no request"
	}
	response, err := l.visits.Do(request)
	code := 0
	if err == nil {
		code = response.StatusCode
		answer, err = io.ReadAll(response.Body)
		_ = response.Body.Close()
	}
	failure = failureOf(code, err)
	if failure == "" && check != nil {
		if err := check(answer); err != nil { // a wrong answer is worse than none
			l.ledger.Complain("%s of %s: %v", kind, id, err)
		}
	}
	if failure != gone || l.shouldLive(id) {
		l.noteOf(ctx, id, kind, failure)
	}
	if failure == "" {
		l.ledger.UsedAt(id, sent)
	}
	return answer, failure
}

// shouldLive reports whether an instance must still be there, as far as the load knows.
func (l *Load) shouldLive(id string) (lives bool) {
	l.ledger.Change(id, func(e *Entry) {
		until, _ := e.protected()
		lives = l.now().Before(until)
	})
	return lives
}

// echo opens a WebSocket and exchanges messages until it ends, and notes how it ended.
func (l *Load) echo(ctx context.Context, id string) {
	dialing, cancel := context.WithTimeout(ctx, patience)
	connection, _, err := websocket.Dial(dialing, "ws://"+address(id, "ws"), nil)
	cancel()
	if err != nil {
		if l.shouldLive(id) {
			l.noteOf(ctx, id, WebSockets, "not opened: "+failureOf(0, err))
		}
		return
	}
	defer connection.CloseNow()
	opened := l.now()
	for n := 0; ; n++ {
		sent := l.now()
		if err = exchange(ctx, connection, fmt.Sprint("message ", n)); err != nil {
			break
		}
		l.note(ctx, WebSockets, "")
		l.ledger.UsedAt(id, sent)
		if !pause(ctx, useEvery) {
			return
		}
	}
	if ctx.Err() != nil || l.ledger.Entry(id).Edited {
		return
	}
	if errors.Is(err, errOtherEcho) { // worse than none
		l.ledger.Complain("a WebSocket of %s: %v", id, err)
		return
	}
	l.mu.Lock()
	if websocket.CloseStatus(err) >= 0 {
		l.sockets.closed++
	} else {
		how := "cut"
		if errors.Is(err, context.DeadlineExceeded) {
			how = "silent for " + patience.String()
		}
		l.sockets.cut = append(l.sockets.cut, fmt.Sprintf("that of %s, %s old, at %s, %s: %v", harness.PodName(id),
			l.now().Sub(opened).Round(time.Millisecond), l.now().Format(time.TimeOnly+".000"), how, err))
	}
	l.mu.Unlock()
}

var errOtherEcho = errors.New("another message came back")

// exchange sends a message, which must come back.
func exchange(ctx context.Context, connection *websocket.Conn, message string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := connection.Write(ctx, websocket.MessageText, []byte(message)); err != nil {
		// What the other side has sent before says why.
		if _, _, readErr := connection.Read(ctx); websocket.CloseStatus(readErr) >= 0 {
			return readErr
		}
		return err
	}
	_, answer, err := connection.Read(ctx)
	if err == nil && string(answer) != message {
		return fmt.Errorf("%w: %q came back as %q", errOtherEcho, message, answer)
	}
	return err
}

// shortError says in a few words why a request failed, the same ones for the same cause.
func shortError(err error) string {
	var timeout net.Error
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection refused"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "connection reset"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "connection closed"
	case errors.As(err, &timeout) && timeout.Timeout():
		return noAnswer
	case strings.Contains(err.Error(), "expected handshake response status code"):
		return err.Error()[strings.LastIndexByte(err.Error(), ' ')+1:]
	}
	return err.Error()
}
