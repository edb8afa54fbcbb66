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

// traffic records the requests and WebSocket frames of a browser's pages, in order
// of time.
type traffic struct {
	mu     sync.Mutex
	urls   map[network.RequestID]string
	events []trafficEvent
}

// trafficEvent is one request, one frame, or one failure.
type trafficEvent struct {
	at   time.Time
	what string // kind and URL
}

// watchTraffic starts to record traffic. If the test fails, it prints the last
// events.
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
		f.record(event.RequestID, event.Request.Method)
	case *network.EventResponseReceived:
		if event.Response.Status >= 400 {
			f.record(event.RequestID, fmt.Sprint("status ", event.Response.Status))
		}
	case *network.EventLoadingFailed:
		f.record(event.RequestID, "failed: "+event.ErrorText)
	case *network.EventWebSocketCreated:
		f.urls[event.RequestID] = event.URL
		f.record(event.RequestID, "WebSocket")
	case *network.EventWebSocketFrameSent:
		f.record(event.RequestID, "frame to")
	case *network.EventWebSocketFrameReceived:
		f.record(event.RequestID, "frame from")
	case *network.EventWebSocketClosed:
		f.record(event.RequestID, "closed")
	}
}

func (f *traffic) record(id network.RequestID, what string) {
	f.events = append(f.events, trafficEvent{time.Now(), what + " " + f.urls[id]})
}

// count returns the number of events since a time that contain all parts.
func (f *traffic) count(since time.Time, parts ...string) (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
next:
	for _, event := range f.events {
		if event.at.Before(since) {
			continue
		}
		for _, part := range parts {
			if !strings.Contains(event.what, part) {
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
	for _, event := range f.events[max(0, len(f.events)-100):] {
		t.Logf("%s %.300s", event.at.Format("15:04:05.000"), event.what)
	}
}
