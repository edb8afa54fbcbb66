package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/binder-project/binder-deploy-kubernetes/internal/origin"
	"github.com/binder-project/binder-deploy-kubernetes/internal/protocol"
)

// noService is a cluster in which the proxy has no Service.
type noService struct{}

func (noService) ProxyService() (*corev1.Service, bool) { return nil, false }

// benchmarkedAPI is the API as it is served on its port.
func benchmarkedAPI(reader InstanceReader) http.Handler {
	api := newTestAPI(reader, nil)
	api.Locations = (&protocol.Locator{ProxyPort: "8000", Services: noService{}}).Locations
	return notAtInstances(origin.Layout{}, api.Routes())
}

// discard is a ResponseWriter that drops the answer.
type discard struct{ header http.Header }

func (d discard) Header() http.Header               { return d.header }
func (d discard) Write(p []byte) (int, error)       { return len(p), nil }
func (d discard) WriteString(s string) (int, error) { return len(s), nil }
func (d discard) WriteHeader(int)                   {}

func benchmarkRequest(b *testing.B, path string, header ...string) {
	handler := benchmarkedAPI(filledCache(b, 10_000))
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
	locate := (&protocol.Locator{ProxyPort: "8000", Services: noService{}}).Locations("127.0.0.1:8084")
	var list []protocol.StatusResponse
	for _, inst := range filledCache(b, 10_000).Instances("") {
		list = append(list, protocol.NewStatusResponse(inst, locate(inst.ID)))
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := json.Marshal(list); err != nil {
			b.Fatal(err)
		}
	}
}
