package pages

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
)

// The log of a start begins at once, so that no proxy on the way waits, and ends with an event. One
// whose replica stops has none, so that the browser asks another.
func TestLogStream(t *testing.T) {
	address := "/progress/" + kubetest.ID(1) + "/log"
	const head, end = ":\n\n", "event: end\ndata: \n\n"
	stream := func(draining context.Context, follow func(ctx context.Context, id string, send func(string) error) error) (*httptest.ResponseRecorder, string) {
		p := New(Deps{Instances: known(living()), Log: kubetest.NoLog(), Draining: draining, StartLog: follow})
		w := serve(p.Progress(), http.MethodGet, address, "")
		return w, w.Body.String()
	}
	began := make(chan struct{})
	_, got := stream(t.Context(), func(_ context.Context, id string, send func(string) error) error {
		if id != kubetest.ID(1) {
			t.Errorf("followed %q", id)
		}
		return send("a\n<b>\n\nc")
	})
	if want := "event: log\ndata: a\ndata: <b>\ndata: \ndata: c\n\n" + end; got != head+want {
		t.Errorf("got %q, want %q", got, want)
	}
	draining, drain := context.WithCancel(t.Context())
	_, got = stream(draining, func(ctx context.Context, _ string, _ func(string) error) error {
		close(began)
		drain()
		<-ctx.Done()
		return nil
	})
	<-began
	if got != head {
		t.Errorf("when the replica stops, it got %q", got)
	}
	if w, _ := stream(t.Context(), nil); w.Code != http.StatusNotFound {
		t.Errorf("without logs, it got %d", w.Code)
	}
}
