package metrics

import (
	"io"
	"maps"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

func (m *Metrics) makeRequests() {
	m.requests = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "binder_http_requests_total", Help: "Requests answered, by server (api, proxy), route, method and status code. An upgrade is counted when it begins.",
	}, []string{"server", "route", "method", "code"})
	m.requestDuration = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "binder_http_request_duration_seconds",
		Help:    "Time to answer API requests, including the time that clients asked to wait and the length of streams.",
		Buckets: prometheus.DefBuckets,
	}, []string{"server", "route", "method", "code"})
	m.Register(m.requests, m.requestDuration)
}

// Instrument counts and times the requests of one route. server and name become labels,
// so they must not come from the request.
func (m *Metrics) Instrument(server, name string, next http.Handler) http.Handler {
	labels := prometheus.Labels{"server": server, "route": name}
	route := newRoute(m.requests.MustCurryWith(labels), m.requestDuration.MustCurryWith(labels))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began, answer := time.Now(), &answer{ResponseWriter: w, code: http.StatusOK}
		next.ServeHTTP(answer, r)
		series := route.series(outcome{methodLabel(r.Method), answer.code})
		series.requests.Inc()
		series.durations.Observe(time.Since(began).Seconds())
	})
}

// InstrumentProxy counts the requests of one route on the proxy's address. It does not
// time them: the application decides how long one takes, and a WebSocket takes hours.
//
// A handler that breaks an answer off, by panicking with http.ErrAbortHandler, first
// says how the request is counted: it calls the method Broke(code int) of its
// ResponseWriter.
func (m *Metrics) InstrumentProxy(name string, next http.Handler) http.Handler {
	route := newRoute(m.requests.MustCurryWith(prometheus.Labels{"server": "proxy", "route": name}), nil)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		m.inFlight.Inc()
		defer m.inFlight.Dec()
		method := methodLabel(r.Method)
		answer := &proxied{answer: answer{ResponseWriter: w, code: http.StatusOK}, route: route, method: method}
		next.ServeHTTP(answer, r)
		answer.Broke(answer.code)
	})
}

// proxied is the ResponseWriter of a request whose answer can break off.
type proxied struct {
	answer
	route   *route
	method  string // as a label
	counted bool
}

// WriteHeader begins the answer. An upgrade is counted at once: its connection can stay open
// for hours.
func (p *proxied) WriteHeader(code int) {
	p.answer.WriteHeader(code)
	if code == http.StatusSwitchingProtocols {
		p.Broke(code)
	}
}

// Broke counts the request under a code, unless it is counted.
func (p *proxied) Broke(code int) {
	if !p.counted {
		p.counted = true
		p.route.series(outcome{p.method, code}).requests.Inc()
	}
}

// route is the metrics of one route. It remembers its series: finding them by their
// labels takes longer than answering a short request. It remembers no more of them than
// there are, and their labels are bounded.
type route struct {
	requests  *prometheus.CounterVec
	durations prometheus.ObserverVec             // nil if requests are not timed
	mu        sync.Mutex                         // is held while known is replaced
	known     atomic.Pointer[map[outcome]series] // is never changed
}

func newRoute(requests *prometheus.CounterVec, durations prometheus.ObserverVec) *route {
	r := &route{requests: requests, durations: durations}
	r.known.Store(&map[outcome]series{})
	return r
}

// outcome is what tells the requests of a route apart: their method, as a label, and
// their code.
type outcome struct {
	method string
	code   int
}

// series are the metrics of requests with the same outcome.
type series struct {
	requests  prometheus.Counter
	durations prometheus.Observer
}

func (r *route) series(o outcome) series {
	if o.code < 100 || o.code > 599 {
		o.code = 0
	}
	if found, ok := (*r.known.Load())[o]; ok {
		return found
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	labels := prometheus.Labels{"method": o.method, "code": codeLabel(o.code)}
	found := series{requests: r.requests.With(labels)}
	if r.durations != nil {
		found.durations = r.durations.With(labels)
	}
	known := maps.Clone(*r.known.Load())
	known[o] = found
	r.known.Store(&known)
	return found
}

// codeLabel returns the label of a code. Applications can make up codes, so those that are
// none of HTTP's are "unknown".
func codeLabel(code int) string {
	if code == 0 {
		return "unknown"
	}
	return strconv.Itoa(code)
}

// methodLabel returns the label of a method. Clients can make up methods, so all unusual
// ones are "unknown". These are the labels that promhttp gives.
func methodLabel(method string) string {
	switch method {
	case http.MethodGet: // most are; it needs no memory
		return "get"
	case http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete,
		http.MethodConnect, http.MethodOptions, http.MethodTrace, "NOTIFY",
		"get", "head", "post", "put", "patch", "delete", "connect", "options", "trace", "notify":
		return strings.ToLower(method)
	}
	return "unknown"
}

// answer is a ResponseWriter that remembers the last status code: interim answers come
// before it.
type answer struct {
	http.ResponseWriter
	code int
}

// WriteHeader begins the answer.
func (a *answer) WriteHeader(code int) {
	a.code = code
	a.ResponseWriter.WriteHeader(code)
}

// WriteString is io.StringWriter's. The server has it, too, and copies nothing.
func (a *answer) WriteString(s string) (int, error) { return io.WriteString(a.ResponseWriter, s) }

// Unwrap is for http.ResponseController.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }
