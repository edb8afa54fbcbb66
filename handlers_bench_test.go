package main

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
	"github.com/binder-project/binder-deploy-kubernetes/internal/origin"
	"github.com/binder-project/binder-deploy-kubernetes/internal/protocol"
)

// manyInstances is a read model of deployed instances that costs nearly nothing, so that
// the benchmarks below are of the API alone.
type manyInstances struct {
	all  []instance.Instance
	byID map[string]instance.Instance
}

func newManyInstances(n int) *manyInstances {
	m := &manyInstances{byID: map[string]instance.Instance{}}
	for i := range n {
		inst := instance.Instance{
			ID: kubetest.ID(i), Template: "jupyter", Status: instance.StatusDeployed, Address: "10.0.0.1:8888",
			LastActivity: kubetest.Noon.Add(time.Duration(i) * time.Millisecond), Source: instance.SourceHTTP, CullAt: kubetest.Noon.Add(time.Hour),
		}
		m.all, m.byID[inst.ID] = append(m.all, inst), inst
	}
	return m
}

func (m *manyInstances) Instances(string) []instance.Instance { return m.all }

func (m *manyInstances) Instance(id string) (instance.Instance, bool) {
	inst, known := m.byID[id]
	return inst, known
}

func (m *manyInstances) Await(_ context.Context, id string, _ func(instance.Instance, bool) bool) (instance.Instance, bool) {
	return m.Instance(id)
}

func (m *manyInstances) ProxyService() (*corev1.Service, bool) { return nil, false }

// benchmarkedAPI is the API as it is served on its port.
func benchmarkedAPI(m *manyInstances) http.Handler {
	api := newTestAPI(m, nil)
	api.Locations = (&protocol.Locator{ProxyPort: "8000", Services: m}).Locations
	return notAtInstances(origin.Layout{}, api.Routes())
}

// discard is a ResponseWriter that drops the answer.
type discard struct{ header http.Header }

func (d discard) Header() http.Header         { return d.header }
func (d discard) Write(p []byte) (int, error) { return len(p), nil }
func (d discard) WriteHeader(int)             {}

func benchmarkRequest(b *testing.B, path string, header ...string) {
	handler := benchmarkedAPI(newManyInstances(10_000))
	r := httptest.NewRequest(http.MethodGet, path, nil)
	r.Host = "127.0.0.1:8084"
	r.Header.Set("Authorization", testAPIKey)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := discard{http.Header{}}
	b.ReportAllocs()
	for b.Loop() {
		clear(w.header)
		handler.ServeHTTP(w, r)
	}
}

func BenchmarkGetStatus(b *testing.B) { benchmarkRequest(b, firstPath) }

func BenchmarkGetList(b *testing.B) { benchmarkRequest(b, "/applications/") }

func BenchmarkGetListCompressed(b *testing.B) {
	benchmarkRequest(b, "/applications/", "Accept-Encoding", "gzip")
}

// BenchmarkMarshalList is what BenchmarkGetList is compared with.
func BenchmarkMarshalList(b *testing.B) {
	m := newManyInstances(10_000)
	locate := (&protocol.Locator{ProxyPort: "8000", Services: m}).Locations("127.0.0.1:8084")
	var list []protocol.StatusResponse
	for _, inst := range m.all {
		list = append(list, protocol.NewStatusResponse(inst, locate(inst.ID)))
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := json.Marshal(list); err != nil {
			b.Fatal(err)
		}
	}
}
