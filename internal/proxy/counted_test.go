package proxy

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
)

// countedEvents keeps what was counted, but how long it took.
type countedEvents struct {
	mu                    sync.Mutex
	events                []string
	toVisitor, toInstance int
}

func (c *countedEvents) add(event string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.events = append(c.events, event)
}

func (c *countedEvents) Answered(template string, code int, firstByte time.Duration) {
	if firstByte <= 0 {
		template += ", before the request"
	}
	c.add(fmt.Sprintf("answered %d of %s", code, template))
}

func (c *countedEvents) Noticed(template string, code int) {
	c.add(fmt.Sprintf("noticed %d of %q", code, template))
}

func (c *countedEvents) SentToVisitor(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.toVisitor += n
}

func (c *countedEvents) SentToInstance(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.toInstance += n
}

func (c *countedEvents) WebSocketOpened()         { c.add("opened") }
func (c *countedEvents) WebSocketEnded(by string) { c.add("ended by " + by) }

// want waits until these events were counted, in this order, and no others.
func (c *countedEvents) want(t testing.TB, events ...string) {
	t.Helper()
	var got []string
	kubetest.Eventually(t, fmt.Sprintf("%q are counted", events), func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		got = slices.Clone(c.events)
		return len(got) >= len(events)
	})
	if !slices.Equal(got, events) {
		t.Errorf("counted are %q, want %q", got, events)
	}
}

func TestCountsAnswers(t *testing.T) {
	counted := &countedEvents{}
	app := application(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.WriteHeader(http.StatusTeapot)
		_, _ = io.WriteString(w, "short and stout")
	}, func(inst *instance.Instance) { inst.Template = "tea" })
	ended := app
	ended.ID, ended.Status, ended.Template = kubetest.ID(2), instance.StatusDeleted, "gone"
	silent := app
	silent.ID, silent.Address = kubetest.ID(3), "127.0.0.1:1"
	p := startProxyWith(t, func(deps *Deps) { deps.Metrics = counted }, app, ended, silent)
	p.do(t, http.MethodPost, base, strings.NewReader("water"))
	p.get(t, instance.BaseURL(ended.ID))
	p.get(t, instance.BaseURL(silent.ID))
	p.get(t, instance.BaseURL(kubetest.ID(4)))
	p.get(t, "/elsewhere")
	counted.want(t, "answered 418 of tea", `noticed 410 of "gone"`, `noticed 502 of "tea"`, `noticed 404 of ""`, `noticed 404 of ""`)
	if counted.toVisitor != len("short and stout") || counted.toInstance != len("water") {
		t.Errorf("%d and %d bytes are counted", counted.toVisitor, counted.toInstance)
	}
}

// A WebSocket is counted when it is opened, and by whoever ends it first.
func TestCountsWebSockets(t *testing.T) {
	for by, end := range map[string]func(p *testProxy, visitor io.Closer, application chan<- struct{}){
		endedByVisitor:  func(_ *testProxy, visitor io.Closer, _ chan<- struct{}) { visitor.Close() },
		endedByInstance: func(_ *testProxy, _ io.Closer, application chan<- struct{}) { close(application) },
		endedByService: func(p *testProxy, visitor io.Closer, _ chan<- struct{}) {
			p.handler.EndSomeWebSockets(1, func(string, time.Time) bool { return true })
			kubetest.Eventually(t, "it is asked", func() bool {
				for side := range openSides(p.handler) {
					return side.isAsked()
				}
				return false
			})
			visitor.Close()
		},
	} {
		t.Run(by, func(t *testing.T) {
			counted, stop := &countedEvents{}, make(chan struct{})
			p := startProxyWith(t, func(deps *Deps) { deps.Metrics = counted }, rawApplication(t, func(c wire) {
				c.readHead()
				_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
				_, _ = c.Write(wsFrame(opText, false, []byte("hello")))
				if by == endedByInstance {
					<-stop
					return
				}
				_, _ = io.Copy(io.Discard, c.reader)
			}))
			c := p.dial(t)
			c.upgrade(t)
			if _, err := io.ReadFull(c.reader, make([]byte, 7)); err != nil {
				t.Fatal(err)
			}
			counted.want(t, "answered 101 of jupyter", "opened")
			end(p, c, stop)
			counted.want(t, "answered 101 of jupyter", "opened", "ended by "+by)
			if counted.toVisitor < 7 {
				t.Errorf("%d bytes are counted", counted.toVisitor)
			}
		})
	}
}
