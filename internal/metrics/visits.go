package metrics

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// The classes of status codes, as labels: the class of 2xx is at 2. Codes that are none of
// HTTP's are at 0.
func codeClasses() [6]string { return [6]string{"unknown", "1xx", "2xx", "3xx", "4xx", "5xx"} }

// classOf returns the index of a code in codeClasses.
func classOf(code int) int {
	if code < 100 || code > 599 {
		return 0
	}
	return code / 100
}

// visits are the metrics of what passes between visitors and applications.
type visits struct {
	firstByte    *prometheus.HistogramVec
	notices      *prometheus.CounterVec
	toVisitors   prometheus.Counter
	toInstances  prometheus.Counter
	webSockets   prometheus.Gauge
	socketEnds   *prometheus.CounterVec
	otherAnswers *answers
}

// answers are the series of one template's answers, each from the first answer of its class.
type answers struct {
	vec   prometheus.ObserverVec
	class [6]atomic.Pointer[prometheus.Observer]
}

func (a *answers) observe(class int, took time.Duration) {
	series := a.class[class].Load()
	if series == nil {
		found := a.vec.With(prometheus.Labels{"code": codeClasses()[class]})
		series = &found
		a.class[class].Store(series)
	}
	(*series).Observe(took.Seconds())
}

func (m *Metrics) makeVisits(values Values) {
	v := &m.visits
	v.firstByte = m.timesByTemplate("binder_proxy_first_byte_seconds",
		"Time from a visitor's request to the first byte of the application's answer, by template and class of the code; "+
			"1xx is an upgrade, as to a WebSocket.",
		[]float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30}, "code")
	v.notices = m.byTemplate("binder_proxy_notices_total",
		"Answers that the proxy gave in place of an application, by template and code. The template is empty if the request names no instance.",
		"code")
	bytes := m.results("binder_proxy_bytes_total",
		"Bytes of bodies and upgraded connections that the proxy passed on, by the receiver: visitor, instance.", "to", nil)
	v.toVisitors, v.toInstances = bytes.WithLabelValues("visitor"), bytes.WithLabelValues("instance")
	v.webSockets = m.gauge("binder_proxy_websockets", "WebSockets that are open.")
	v.socketEnds = m.results("binder_proxy_websocket_ends_total", "WebSockets that have ended, by who ended them.", "by", values.WebSocketEnds)
	v.otherAnswers = v.answersOf(otherTemplate)

	m.refused = m.results("binder_proxy_connections_refused_total",
		"Visitors' connections and requests that this replica refused, by the limit.", "limit", values.Refusals)
	m.connections = m.gauge("binder_proxy_connections", "Visitors' connections to the proxy that are open, idle ones too.")
	m.inFlight = m.gauge("binder_proxy_requests_in_flight", "Requests and WebSocket connections that the proxy is serving.")
}

func (v *visits) answersOf(template string) *answers {
	return &answers{vec: v.firstByte.MustCurryWith(prometheus.Labels{templateLabel: template})}
}

// Answered observes an application's answer, and how long it took to begin. It remembers the
// series of a template: finding them by their labels takes as long as other parts of an
// answer.
func (m *Metrics) Answered(template string, code int, firstByte time.Duration) {
	found, ok := m.templates.known.Load(template)
	if !ok {
		found = m.visits.otherAnswers
	}
	found.(*answers).observe(classOf(code), firstByte)
}

// Noticed counts an answer that the proxy gave in place of an application. template is empty
// if the request names no instance.
func (m *Metrics) Noticed(template string, code int) {
	if template != "" {
		template = m.TemplateLabel(template)
	}
	m.visits.notices.WithLabelValues(template, codeLabel(code)).Inc()
}

// SentToVisitor counts bytes that were passed on to a visitor.
func (m *Metrics) SentToVisitor(n int) { m.visits.toVisitors.Add(float64(n)) }

// SentToInstance counts bytes that were passed on to an application.
func (m *Metrics) SentToInstance(n int) { m.visits.toInstances.Add(float64(n)) }

// WebSocketOpened counts a WebSocket as open.
func (m *Metrics) WebSocketOpened() { m.visits.webSockets.Inc() }

// WebSocketEnded counts a WebSocket as ended, by who ended it.
func (m *Metrics) WebSocketEnded(by string) {
	m.visits.webSockets.Dec()
	m.visits.socketEnds.WithLabelValues(by).Inc()
}

// ConnectionsOpen records how many connections of visitors are open.
func (m *Metrics) ConnectionsOpen(n int) { m.connections.Set(float64(n)) }

// ConnectionRefused counts a connection or a request that was refused, by the limit.
func (m *Metrics) ConnectionRefused(limit string) { m.refused.WithLabelValues(limit).Inc() }
