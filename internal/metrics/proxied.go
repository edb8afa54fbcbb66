package metrics

import (
	"net/http"
	"strconv"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// InstrumentProxy counts the requests of one route on the proxy's address. It does not
// time them: the application decides how long one takes, and a WebSocket takes hours.
//
// A handler that breaks an answer off, by panicking with http.ErrAbortHandler, first
// says how the request is counted: it calls the method Broke(code int) of its
// ResponseWriter.
func (m *Metrics) InstrumentProxy(route string, next http.Handler) http.Handler {
	counts := &codeCounts{vec: m.requests.MustCurryWith(prometheus.Labels{"server": "proxy", "route": route})}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		m.inFlight.Inc()
		defer m.inFlight.Dec()
		answer := &proxied{ResponseWriter: w, counts: counts, method: methodLabel(r.Method), code: http.StatusOK}
		next.ServeHTTP(answer, r)
		counts.count(answer.method, answer.code)
	})
}

// proxied is the ResponseWriter of a request that is counted.
type proxied struct {
	http.ResponseWriter
	counts *codeCounts
	method string
	code   int // of the answer so far
}

// WriteHeader notes the code. The last one counts: interim answers come before it.
func (p *proxied) WriteHeader(code int) {
	p.code = code
	p.ResponseWriter.WriteHeader(code)
}

// Broke counts the request under a code.
func (p *proxied) Broke(code int) { p.counts.count(p.method, code) }

// Unwrap is for http.ResponseController.
func (p *proxied) Unwrap() http.ResponseWriter { return p.ResponseWriter }

// codeCounts are the counters of one route. They are kept, because finding one by its
// labels costs more than the rest of counting.
type codeCounts struct {
	vec *prometheus.CounterVec // with the labels method and code

	mu   sync.RWMutex
	kept map[methodAndCode]prometheus.Counter // as many as there are methods and codes
}

type methodAndCode struct {
	method string // as methodLabel returns it
	code   int
}

func (c *codeCounts) count(method string, code int) {
	if code < 100 || code > 599 {
		code = 0
	}
	key := methodAndCode{method, code}
	c.mu.RLock()
	counter, ok := c.kept[key]
	c.mu.RUnlock()
	if !ok {
		counter = c.keep(key)
	}
	counter.Inc()
}

func (c *codeCounts) keep(key methodAndCode) prometheus.Counter {
	label := "unknown"
	if key.code > 0 {
		label = strconv.Itoa(key.code)
	}
	counter := c.vec.WithLabelValues(key.method, label)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.kept == nil {
		c.kept = map[methodAndCode]prometheus.Counter{}
	}
	c.kept[key] = counter
	return counter
}

// methodLabel returns the value of the label for a method, as promhttp has it: clients can
// make up methods, and each would be a series of its own.
func methodLabel(method string) string {
	switch method {
	case http.MethodGet:
		return "get"
	case http.MethodHead:
		return "head"
	case http.MethodPost:
		return "post"
	case http.MethodPut:
		return "put"
	case http.MethodPatch:
		return "patch"
	case http.MethodDelete:
		return "delete"
	case http.MethodConnect:
		return "connect"
	case http.MethodOptions:
		return "options"
	case http.MethodTrace:
		return "trace"
	case "NOTIFY":
		return "notify"
	}
	return "unknown"
}
