//go:build e2e

package e2e

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"
)

// traffic is what a browser's pages ask for, and the WebSocket frames that they
// send and get, in the order of time.
type traffic struct {
	mu    sync.Mutex
	urls  map[network.RequestID]string
	noted []passage
}

// passage is one request, one frame, or one failure to load.
type passage struct {
	at   time.Time
	what string // and where
}

// watchTraffic notes all traffic from now on, and prints the last of it if the
// test fails.
func (b *browser) watchTraffic() *traffic {
	b.t.Helper()
	traffic := &traffic{urls: map[network.RequestID]string{}}
	require.NoError(b.t, chromedp.Listen(b.ctx, traffic.listen))
	call(b, network.Enable, network.EnableParams{})
	b.t.Cleanup(func() {
		if b.t.Failed() {
			traffic.print(b.t)
		}
	})
	return traffic
}

func (f *traffic) listen(event any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch event := event.(type) {
	case *network.EventRequestWillBeSent:
		f.urls[event.RequestID] = event.Request.URL
		f.note(event.RequestID, event.Request.Method)
	case *network.EventResponseReceived:
		if event.Response.Status >= 400 {
			f.note(event.RequestID, fmt.Sprint("status ", event.Response.Status))
		}
	case *network.EventLoadingFailed:
		f.note(event.RequestID, "failed: "+event.ErrorText)
	case *network.EventWebSocketCreated:
		f.urls[event.RequestID] = event.URL
		f.note(event.RequestID, "WebSocket")
	case *network.EventWebSocketFrameSent:
		f.note(event.RequestID, "frame to")
	case *network.EventWebSocketFrameReceived:
		f.note(event.RequestID, "frame from")
	case *network.EventWebSocketClosed:
		f.note(event.RequestID, "closed")
	}
}

func (f *traffic) note(id network.RequestID, what string) {
	f.noted = append(f.noted, passage{time.Now(), what + " " + f.urls[id]})
}

// count is how often something went since a time, of which all parts are said.
func (f *traffic) count(since time.Time, parts ...string) (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
next:
	for _, passage := range f.noted {
		if passage.at.Before(since) {
			continue
		}
		for _, part := range parts {
			if !strings.Contains(passage.what, part) {
				continue next
			}
		}
		n++
	}
	return n
}

func (f *traffic) print(t *testing.T) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, passage := range f.noted[max(0, len(f.noted)-100):] {
		t.Logf("%s %.300s", passage.at.Format("15:04:05.000"), passage.what)
	}
}
