package protocol

import (
	"net/http/httptest"
	"testing"
	"time"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
)

func BenchmarkWriteStatus(b *testing.B) {
	inst := instance.Instance{
		ID: kubetest.ID(1), Template: "jupyter", Status: instance.StatusDeployed,
		LastActivity: kubetest.Noon, Source: instance.SourceHTTP, CullAt: kubetest.Noon.Add(time.Hour),
	}
	w := httptest.NewRecorder()
	b.ReportAllocs()
	for b.Loop() {
		w.Body.Reset()
		status := NewStatusResponse(inst, "binder.example/user/"+inst.ID)
		WriteStatus(w, &status)
	}
}

func BenchmarkLocation(b *testing.B) {
	l := &Locator{ProxyPort: "8000", Services: services{}}
	b.ReportAllocs()
	for b.Loop() {
		l.Locations("binder.example:8084")("84b8f9e8d573e73016fa2c14bad86a4d")
	}
}
