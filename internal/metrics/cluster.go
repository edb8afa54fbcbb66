package metrics

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// cluster are the metrics of requests to the API server. Their names are those that
// Kubernetes' own components use for client-go's requests; the labels say what was asked for
// in Kubernetes' words, instead of method and host.
type cluster struct {
	requests  *prometheus.CounterVec
	durations *prometheus.HistogramVec
}

// The labels of requests to the API server that got no answer, and of those that were canceled.
const (
	codeNone     = "<error>"
	codeCanceled = "<canceled>"
)

func (m *Metrics) makeCluster() {
	m.cluster = cluster{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "rest_client_requests_total",
			Help: "Requests to the API server, by verb, resource and code; " + codeNone + " if there was no answer, " + codeCanceled + " if it was canceled. Each watch is one, so they count how often watches begin.",
		}, []string{"verb", "resource", "code"}),
		durations: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "rest_client_request_duration_seconds",
			Help:    "Time from a request to the API server until its answer begins, by verb and resource.",
			Buckets: []float64{.0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
		}, []string{"verb", "resource"}),
	}
	m.Register(m.cluster.requests, m.cluster.durations)
}

// WatchAPIServer returns a transport to the API server whose requests are counted and timed.
// It is a transport and not one of client-go's adapters, because those belong to the whole
// process and do not know the resource.
func (m *Metrics) WatchAPIServer(next http.RoundTripper) http.RoundTripper {
	return apiServer{m.cluster, next}
}

type apiServer struct {
	cluster
	next http.RoundTripper
}

// RoundTrip makes a request.
func (a apiServer) RoundTrip(r *http.Request) (*http.Response, error) {
	began := time.Now()
	response, err := a.next.RoundTrip(r)
	verb, resource := asked(r)
	code := codeNone
	switch {
	case err == nil:
		code = strconv.Itoa(response.StatusCode)
	case errors.Is(r.Context().Err(), context.Canceled):
		code = codeCanceled
	}
	a.requests.WithLabelValues(verb, resource, code).Inc()
	a.durations.WithLabelValues(verb, resource).Observe(time.Since(began).Seconds())
	return response, err
}

// WrappedRoundTripper returns the transport within. client-go looks through transports for one
// that can close idle connections.
func (a apiServer) WrappedRoundTripper() http.RoundTripper { return a.next }

// asked returns the verb and the resource of a request to the API server, as in a Role: see
// "Determine the Request Verb" in Kubernetes' documentation of authorization. Subresources
// count as their resource. Other paths have the resource "".
func asked(r *http.Request) (verb, resource string) {
	path := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	if i := slices.Index(path, "api"); i >= 0 { // a base URL may have a path of its own
		path = path[min(i+2, len(path)):]
	} else if i := slices.Index(path, "apis"); i >= 0 {
		path = path[min(i+3, len(path)):]
	} else {
		path = nil
	}
	if len(path) > 2 && path[0] == "namespaces" {
		path = path[2:]
	}
	named := len(path) > 1
	if len(path) > 0 {
		resource = path[0]
	}
	switch r.Method {
	case http.MethodGet:
		switch {
		case r.URL.Query().Get("watch") == "true" || r.URL.Query().Get("watch") == "1":
			return "watch", resource
		case named:
			return "get", resource
		}
		return "list", resource
	case http.MethodPost:
		return "create", resource
	case http.MethodPut:
		return "update", resource
	}
	return methodLabel(r.Method), resource // patch, delete
}
