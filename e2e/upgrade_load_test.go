//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/binder-project/binder-deploy-kubernetes/e2e/measure"
)

// How often a load does each thing.
const (
	requestEvery = 100 * time.Millisecond
	launchEvery  = 3 * time.Second
)

// load is what clients and visitors do all the time.
type load struct {
	stop    func() // ends what runs, and waits for it
	running sync.WaitGroup

	mu       sync.Mutex
	done     map[string]int // what has gone well, by what it was
	failed   []string
	launched []string // ids
}

// startLoad begins to ask for an instance, to visit it, to launch others, and to hold a
// WebSocket open. The Services choose a replica for each new connection; kept ones last until
// their replica ends.
func (s *upgradable) startLoad(t *testing.T, used launchedInstance) *load {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	l := &load{done: map[string]int{}}
	l.stop = func() {
		cancel()
		l.running.Wait()
	}
	t.Cleanup(l.stop)
	status, page := s.api.Base()+"/applications/"+used.Template+"/"+used.ID, s.proxy+"/user/"+used.ID+"/tree"
	for kind, keepAlive := range map[string]bool{"new connections": false, "kept connections": true} {
		transport := &http.Transport{DisableKeepAlives: !keepAlive}
		t.Cleanup(transport.CloseIdleConnections)
		client := &http.Client{Timeout: visitTimeout, Transport: transport}
		for what, url := range map[string]string{"API": status, "proxy": page} {
			l.repeat(ctx, what+", "+kind, requestEvery, func() error {
				_, err := request(t.Context(), client, http.MethodGet, url, "")
				return err
			})
		}
	}
	client := &http.Client{Timeout: visitTimeout, Transport: &http.Transport{DisableKeepAlives: true}}
	l.repeat(ctx, "launches", launchEvery, func() error {
		answer, err := request(t.Context(), client, http.MethodPost, s.api.Base()+"/applications/", `{"template-name": "echo", "cull-timeout": 5000}`)
		var launched struct{ ID string }
		if err == nil {
			err = json.Unmarshal(answer, &launched)
		}
		if err == nil {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.launched = append(l.launched, launched.ID)
		}
		return err
	})
	l.running.Go(func() { l.holdWebSocket(ctx, strings.Replace(s.proxy, "http:", "ws:", 1)+"/user/"+used.ID+"/ws") })
	return l
}

// request sends a request, and a launch waits until it is deployed. Every answer but 200 is
// an error.
func request(ctx context.Context, client *http.Client, method, url, body string) ([]byte, error) {
	sent, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	sent.Header.Set("Content-Type", "application/json")
	if method == http.MethodPost {
		sent.Header.Set("Prefer", "wait=30")
	}
	response, err := client.Do(sent)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("it returned %d: %.300s", response.StatusCode, answer)
	}
	return answer, err
}

// repeat does something at an interval until ctx is done. What it has begun then, it ends.
func (l *load) repeat(ctx context.Context, what string, every time.Duration, do func() error) {
	l.running.Go(func() {
		ticker := time.NewTicker(every)
		defer ticker.Stop()
		for {
			l.note(what, do())
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
			}
		}
	})
}

func (l *load) note(what string, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		l.failed = append(l.failed, fmt.Sprintf("%s %s: %v", time.Now().Format("15:04:05.000"), what, err))
		return
	}
	l.done[what]++
}

// holdWebSocket keeps a WebSocket open, as a page does: if the service says that it
// restarts, it opens it again at once.
func (l *load) holdWebSocket(ctx context.Context, url string) {
	for {
		connection, err := openWebSocket(context.WithoutCancel(ctx), url)
		if err != nil {
			l.note("opened WebSockets", err)
			return
		}
		_, _, err = connection.Read(ctx)
		_ = connection.CloseNow()
		if ctx.Err() != nil {
			return
		}
		if websocket.CloseStatus(err) == websocket.StatusServiceRestart {
			err = nil
		}
		l.note("closed WebSockets", err)
		if err != nil {
			return
		}
	}
}

// openWebSocket opens a WebSocket and exchanges a message.
func openWebSocket(ctx context.Context, url string) (*websocket.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, visitTimeout)
	defer cancel()
	connection, _, err := websocket.Dial(ctx, url, nil)
	if err != nil {
		return nil, fmt.Errorf("open a WebSocket: %w", err)
	}
	if err = connection.Write(ctx, websocket.MessageText, []byte("hello")); err == nil {
		_, _, err = connection.Read(ctx)
	}
	if err != nil {
		_ = connection.CloseNow()
		return nil, fmt.Errorf("exchange a message: %w", err)
	}
	return connection, nil
}

// end ends the load and checks that nothing has failed.
func (l *load) end(t *testing.T, section string) {
	t.Helper()
	l.stop()
	assert.Empty(t, l.failed, "%d of %v", len(l.failed), l.done)
	assert.Positive(t, l.done["closed WebSockets"], "no replica has ended a WebSocket")
	for _, what := range []string{"API, new connections", "API, kept connections", "proxy, new connections", "proxy, kept connections"} {
		assert.Greater(t, l.done[what], 50, what)
	}
	line := fmt.Sprintf("%s under load: %d failed", section, len(l.failed))
	for _, what := range slices.Sorted(maps.Keys(l.done)) {
		line += fmt.Sprintf("; %s: %d", what, l.done[what])
	}
	t.Log(line)
	require.NoError(t, measure.Write(line))
}
