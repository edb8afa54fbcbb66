package proxy

import "time"

// Metrics counts what a Proxy does. Its methods must be fast: some are called for every piece
// of a body.
type Metrics interface {
	// Answered observes an application's answer, and the time from the request until it began.
	Answered(template string, code int, firstByte time.Duration)
	// Noticed counts an answer that the proxy gave itself. template is "" if the request names no
	// instance.
	Noticed(template string, code int)
	SentToVisitor(n int)  // bytes of bodies, and of upgraded connections
	SentToInstance(n int) // likewise
	WebSocketOpened()
	WebSocketEnded(by string) // one of WebSocketEnds
}

// Who ends a WebSocket, as the value of a metric's label.
const (
	endedByVisitor  = "visitor"
	endedByInstance = "instance"
	endedByService  = "service" // it asked the visitor to open it again, at another replica
)

// WebSocketEnds lists who ends WebSockets, as Metrics.WebSocketEnded is told.
func WebSocketEnds() []string { return []string{endedByVisitor, endedByInstance, endedByService} }

type noMetrics struct{}

func (noMetrics) Answered(string, int, time.Duration) {}
func (noMetrics) Noticed(string, int)                 {}
func (noMetrics) SentToVisitor(int)                   {}
func (noMetrics) SentToInstance(int)                  {}
func (noMetrics) WebSocketOpened()                    {}
func (noMetrics) WebSocketEnded(string)               {}
