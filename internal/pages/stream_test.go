package pages

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/runtime"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
	"github.com/binder-project/binder-deploy-kubernetes/internal/protocol"
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

// The stream of a page is in its language, and says if a message is not.
func TestStreamIsTranslated(t *testing.T) {
	pod := kubetest.Pod(kubetest.ID(1), kubetest.Noon, kubetest.StartingWith("InvalidImageName", ""))
	for _, row := range []struct {
		object       runtime.Object
		german, lang string
	}{
		{pod, "Der Name des Images ist nicht gültig: jupyter:1. Ein neuer Start hilft nicht: Sag es dem Autor der Vorlage.", ""},
		{kubetest.Tombstone(pod, instance.EndGone, "A later version said this."), "A later version said this.", "en"},
	} {
		world := kubetest.NewWorld(kubetest.ClockAt(kubetest.Noon), nil, row.object)
		p := New(Deps{Instances: world, Draining: t.Context(), Log: kubetest.NoLog()})
		for _, tag := range []string{"de", "en"} {
			body := serve(p.Progress(), "GET", ProgressPrefix+kubetest.ID(1), "", "Accept-Language", tag).Body.String()
			_, data, _ := strings.Cut(body, "data: ")
			var event protocol.ProgressEvent
			if err := json.Unmarshal([]byte(strings.TrimSpace(data)), &event); err != nil {
				t.Fatalf("%q: %v", body, err)
			}
			if tag == "de" && (event.Message != row.german || event.Lang != row.lang) || tag == "en" && event.Lang != "" {
				t.Errorf("in %s the message is %q, in %q", tag, event.Message, event.Lang)
			}
		}
	}
}
