package metrics

import (
	"maps"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Instrument counts and times the requests of one route. server and name become labels,
// so they must not come from the request.
func (m *Metrics) Instrument(server, name string, next http.Handler) http.Handler {
	labels := prometheus.Labels{"server": server, "route": name}
	route := &route{requests: m.requests.MustCurryWith(labels), durations: m.requestDuration.MustCurryWith(labels)}
	route.known.Store(&map[outcome]series{})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began, answer := time.Now(), &answer{w, http.StatusOK}
		next.ServeHTTP(answer, r)
		series := route.series(outcome{methodLabel(r.Method), answer.code})
		series.requests.Inc()
		series.durations.Observe(time.Since(began).Seconds())
	})
}

// route is the metrics of one route. It remembers its series: finding them by their
// labels takes longer than answering a short request. It remembers no more of them than
// there are, and their labels are bounded.
type route struct {
	requests  *prometheus.CounterVec
	durations prometheus.ObserverVec
	mu        sync.Mutex                         // is held while known is replaced
	known     atomic.Pointer[map[outcome]series] // is never changed
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
	if found, ok := (*r.known.Load())[o]; ok {
		return found
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	labels := prometheus.Labels{"method": o.method, "code": strconv.Itoa(o.code)}
	found := series{r.requests.With(labels), r.durations.With(labels)}
	known := maps.Clone(*r.known.Load())
	known[o] = found
	r.known.Store(&known)
	return found
}

// methodLabel returns the label of a method. Clients can make up methods, so all unusual
// ones are "unknown". These are the labels that promhttp gives to InstrumentProxy.
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

// answer is a ResponseWriter that remembers the status code.
type answer struct {
	http.ResponseWriter
	code int
}

// WriteHeader begins the answer.
func (a *answer) WriteHeader(code int) {
	a.code = code
	a.ResponseWriter.WriteHeader(code)
}

// Unwrap is for http.ResponseController.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }
