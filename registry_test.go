package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/binder-project/binder-deploy-kubernetes/internal/metrics"

	"github.com/binder-project/binder-deploy-kubernetes/internal/podtemplate"

	"github.com/binder-project/binder-deploy-kubernetes/internal/registry"

	"github.com/binder-project/binder-deploy-kubernetes/internal/protocol"
)

const registryWait = 10 * time.Second // for what comes at once

// registryFixture is a Registry on a test server whose answers and clock a test
// sets.
type registryFixture struct {
	*registry.Registry
	server *httptest.Server
	logged bytes.Buffer // slog's handlers write one at a time

	mu     sync.Mutex
	at     time.Time
	answer http.HandlerFunc
	asked  []*http.Request
}

func newRegistryFixture(t testing.TB, answer http.HandlerFunc) *registryFixture {
	t.Helper()
	f := &registryFixture{at: time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC), answer: answer}
	f.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.mu.Lock()
		f.asked = append(f.asked, r)
		answer := f.answer
		f.mu.Unlock()
		answer(w, r)
	}))
	t.Cleanup(f.server.Close)
	log := slog.New(slog.NewTextHandler(&f.logged, nil))
	now := func() time.Time {
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.at
	}
	f.Registry = registry.New(f.server.URL, "the-key", "somewhere", userAgent(), metrics.New("test", metricValues()), log, now)
	t.Cleanup(f.Client.CloseIdleConnections)
	return f
}

func (f *registryFixture) answers(answer http.HandlerFunc) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answer = answer
}

func (f *registryFixture) pass(d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.at = f.at.Add(d)
}

func (f *registryFixture) questions() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.asked)
}

// wantImage asks for template p, which must have an image.
func (f *registryFixture) wantImage(t testing.TB, image string) {
	t.Helper()
	template, err := f.Template(t.Context(), "p")
	if err != nil {
		t.Fatal(err)
	}
	if got := template.Template.Spec.Containers[0].Image; got != image {
		t.Fatalf("got image %s, want %s", got, image)
	}
}

func (f *registryFixture) wantError(t testing.TB, want error) {
	t.Helper()
	if template, err := f.Template(t.Context(), "p"); !errors.Is(err, want) || template != nil {
		t.Fatalf("got %+v, %v, want error %q", template, err, want)
	}
}

func (f *registryFixture) wantQuestions(t testing.TB, want int) {
	t.Helper()
	if got := f.questions(); got != want {
		t.Fatalf("the registry was asked %d times, want %d", got, want)
	}
}

// registryServes answers for every template with an image.
func registryServes(image string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, `{"name": %q, "image-source": %q}`, strings.TrimPrefix(r.URL.Path, "/templates/"), image)
	}
}

func registryCode(code int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "oops", code) }
}

func registryBody(body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(body)) }
}

// registryCut promises more than it sends.
func registryCut(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Length", "1000")
	_, _ = w.Write([]byte(`{"name": "p", `))
	_ = http.NewResponseController(w).Flush()
	panic(http.ErrAbortHandler)
}

func TestRegistryIsAskedAsTheProtocolSays(t *testing.T) {
	f := newRegistryFixture(t, nil)
	f.answers(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, `{"name": "My_project.v-1", "image-source": "r/p:v1", "port": 80}`)
	})
	r := registry.New(f.server.URL+"/base/", "the-key", "somewhere", userAgent(), metrics.New("test", metricValues()), slog.New(slog.DiscardHandler), time.Now)
	defer r.Client.CloseIdleConnections()
	template, err := r.Template(t.Context(), "My_project.v-1")
	if err != nil {
		t.Fatal(err)
	}
	if template.Name != "My_project.v-1" || template.Namespace != "somewhere" {
		t.Errorf("got template %s/%s", template.Namespace, template.Name)
	}
	f.wantQuestions(t, 1)
	asked := f.asked[0]
	if asked.Method != "GET" || asked.RequestURI != "/base/templates/My_project.v-1" || asked.Header.Get("Authorization") != "the-key" {
		t.Errorf("got %s %s with Authorization %q", asked.Method, asked.RequestURI, asked.Header.Get("Authorization"))
	}
}

func TestRegistryIsShownNoKeyWhereThereIsNone(t *testing.T) {
	f := newRegistryFixture(t, registryServes("r/p:v1"))
	f.Key = ""
	f.wantImage(t, "r/p:v1")
	if got, sent := f.asked[0].Header["Authorization"]; sent {
		t.Errorf("got Authorization %q, want none", got)
	}
}

// TestRegistryFails: whatever a registry does, the answer is a registryError, and
// nothing comes of it.
func TestRegistryFails(t *testing.T) {
	elsewhere := newRegistryFixture(t, registryServes("evil"))
	redirect := func(to string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, to, http.StatusFound) }
	}
	slow := func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	slowBody := func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write([]byte(`{"name": `))
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}
	for _, row := range []struct {
		name   string
		answer http.HandlerFunc
		says   string // in the log
	}{
		{"error", registryCode(500), "500"},
		{"error with a template in it", func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusInternalServerError)
			registryServes("evil")(w, r)
		}, "500"},
		{"away behind a gateway", registryCode(503), "503"},
		{"key refused", registryCode(403), "403"},
		{"created", registryCode(201), "201"},
		{"no content", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }, "204"},
		{"redirect elsewhere", redirect(elsewhere.server.URL + "/templates/p"), elsewhere.server.URL},
		{"redirect to itself", redirect("/templates/p"), "302"},
		{"nothing", registryBody(""), "JSON"},
		{"HTML", registryBody("<html><body>Welcome"), "JSON"},
		{"list", registryBody(`[{"name": "p", "image-source": "evil"}]`), "JSON"},
		{"half an object", registryBody(`{"name": "p", "image-source": "ev`), "JSON"},
		{"error body", registryBody(`{"type": "registryError", "error": "broken"}`), "name"},
		{"wrong name", registryBody(`{"name": "q", "image-source": "evil"}`), `"q`},
		{"wrong type", registryBody(`{"name": "p", "image-source": 7}`), "image-source"},
		{"huge number", registryBody(`{"name": "p", "image-source": "evil", "port": 1e400}`), "port"},
		{"huge", registryBody(`{"name": "p", "image-source": "evil", "more": "` + strings.Repeat("x", 1<<20) + `"}`), "1 MiB"},
		{"endless", func(w http.ResponseWriter, _ *http.Request) {
			for {
				if _, err := w.Write(make([]byte, 64<<10)); err != nil {
					return
				}
			}
		}, "1 MiB"},
		{"huge header", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-More", strings.Repeat("x", 1<<20))
			registryServes("evil")(w, r)
		}, "header"},
		{"cut connection", registryCut, "unexpected EOF"},
		{"closed connection", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "EOF"},
		{"slow", slow, "deadline"},
		{"slow body", slowBody, "deadline"},
	} {
		t.Run(row.name, func(t *testing.T) {
			f := newRegistryFixture(t, row.answer)
			if strings.HasPrefix(row.name, "slow") {
				f.Timeout = 50 * time.Millisecond
			}
			_, err := f.Template(t.Context(), "p")
			wantRegistryError(t, f, err)
			if !strings.Contains(err.Error(), row.says) {
				t.Errorf("got error %q, want %q in it", err, row.says)
			}
			if strings.Contains(err.Error(), "the-key") {
				t.Errorf("got error %q with the key in it", err)
			}
		})
	}
	elsewhere.wantQuestions(t, 0)
}

func TestRegistryIsDown(t *testing.T) {
	f := newRegistryFixture(t, registryServes("r/p:v1"))
	f.server.Close()
	_, err := f.Template(t.Context(), "p")
	wantRegistryError(t, f, err)
}

func wantRegistryError(t *testing.T, f *registryFixture, err error) {
	t.Helper()
	if !errors.Is(err, podtemplate.ErrUnavailable) || errors.Is(err, podtemplate.ErrUnknown) {
		t.Fatalf("got error %v, want %q", err, podtemplate.ErrUnavailable)
	}
	answer := protocol.AnswerFor(err)
	if answer.Code != 503 || answer.Type != "registryError" || answer.RetryAfter <= 0 || strings.Contains(answer.Message, f.server.URL) {
		t.Errorf("got answer %+v", answer)
	}
	f.wantResults(t, "error", 1)
}

// wantResults compares how many questions had a result.
func (f *registryFixture) wantResults(t testing.TB, result string, want int) {
	t.Helper()
	response := httptest.NewRecorder()
	f.Metrics.Handler().ServeHTTP(response, httptest.NewRequest("GET", "/metrics", nil))
	line := fmt.Sprintf("\nbinder_registry_requests_total{result=%q} %d\n", result, want)
	if !strings.Contains(response.Body.String(), line) {
		t.Errorf("the metrics do not say %s", line)
	}
}

func TestRegistryTemplateThatIsWrong(t *testing.T) {
	f := newRegistryFixture(t, registryBody(`{"name": "p", "image-source": "p", "limits": {"memory": "512MB"}}`))
	_, err := f.Template(t.Context(), "p")
	var wrong *podtemplate.Error
	if !errors.As(err, &wrong) || wrong.Template != "p" || !strings.Contains(err.Error(), "512Mi") {
		t.Fatalf("got %v", err)
	}
	f.wantResults(t, "bad_template", 1)
	f.answers(registryServes("r/p:v1"))
	f.pass(registry.RegistryRetry)
	f.wantImage(t, "r/p:v1") // mended
	f.wantResults(t, "ok", 1)
}

func TestRegistryDoesNotKnow(t *testing.T) {
	for name, answer := range map[string]http.HandlerFunc{"404": http.NotFound, "null": registryBody("null\n")} {
		t.Run(name, func(t *testing.T) {
			f := newRegistryFixture(t, answer)
			for range 3 { // remembered for a moment
				f.wantError(t, podtemplate.ErrUnknown)
			}
			f.pass(registry.RegistryRetry - time.Millisecond)
			f.wantError(t, podtemplate.ErrUnknown)
			f.wantQuestions(t, 1)
			f.wantResults(t, "unknown_template", 1)
			f.answers(registryServes("r/p:v1"))
			f.pass(time.Millisecond)
			f.wantImage(t, "r/p:v1")
		})
	}
}

func TestRegistryIsNotAskedForWhatIsNoName(t *testing.T) {
	f := newRegistryFixture(t, registryServes("evil"))
	for _, name := range []string{
		"", ".", "..", "../p", "a/b", "/", "p/", "p?x", "p#x", "p%2e", "p p", "p\n", "\x00", "ü", "-p", "_p", ".p", strings.Repeat("x", 254),
	} {
		if _, err := f.Template(t.Context(), name); !errors.Is(err, podtemplate.ErrUnknown) {
			t.Errorf("%q: got %v", name, err)
		}
	}
	f.wantQuestions(t, 0)
	for _, name := range []string{"p", "P_1.2-x..y", "9", strings.Repeat("x", 253)} {
		if _, err := f.Template(t.Context(), name); err != nil {
			t.Errorf("%q: got %v", name, err)
		}
	}
}

func TestRegistryServicesAreWarnedOfOnce(t *testing.T) {
	f := newRegistryFixture(t, registryBody(`{"name": "p", "image-source": "p:v1", "services": [{"name": "spark"}]}`))
	for range 3 {
		f.wantImage(t, "p:v1")
		f.pass(registry.RegistryFresh)
	}
	f.wantQuestions(t, 3)
	if got := strings.Count(f.logged.String(), "services"); got != 1 {
		t.Errorf("got %d warnings, want 1: %s", got, &f.logged)
	}
}

// registrySource is a source that knows one template, or fails.
type registrySource struct {
	name string
	err  error
}

func (s registrySource) Template(_ context.Context, name string) (*corev1.PodTemplate, error) {
	switch {
	case s.err != nil:
		return nil, s.err
	case name != s.name:
		return nil, fmt.Errorf("%w: %q", podtemplate.ErrUnknown, name)
	}
	return &corev1.PodTemplate{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"from": s.name}}}, nil
}

func TestTemplateChain(t *testing.T) {
	broken := errors.New("broken")
	one, two, fails := registrySource{name: "one"}, registrySource{name: "two"}, registrySource{err: broken}
	for _, row := range []struct {
		name  string
		chain templateChain
		err   error
	}{
		{"one", templateChain{one, fails}, nil},
		{"two", templateChain{one, two}, nil},
		{"three", templateChain{one, two}, podtemplate.ErrUnknown},
		{"two", templateChain{one, fails, two}, broken},
		{"one", templateChain{}, podtemplate.ErrUnknown},
	} {
		template, err := row.chain.Template(t.Context(), row.name)
		if !errors.Is(err, row.err) || (err == nil) != (template != nil) || err == nil && template.Name != row.name {
			t.Errorf("%s of %v: got %v, %v, want error %v", row.name, row.chain, template, err, row.err)
		}
	}
}
