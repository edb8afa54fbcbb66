package registry

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
	"github.com/binder-project/binder-deploy-kubernetes/internal/podtemplate"
)

// fixture is a Registry and the server that it asks. A test sets the answers and the
// clock.
type fixture struct {
	*Registry
	server *httptest.Server
	logged *kubetest.LogBuffer

	mu      sync.Mutex
	at      time.Time
	answer  http.HandlerFunc
	asked   []*http.Request
	results map[string]int
}

func newFixture(t testing.TB, answer http.HandlerFunc) *fixture {
	t.Helper()
	f := &fixture{at: kubetest.Noon, answer: answer, results: map[string]int{}}
	f.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.mu.Lock()
		f.asked = append(f.asked, r)
		answer := f.answer
		f.mu.Unlock()
		answer(w, r)
	}))
	t.Cleanup(f.server.Close)
	deps := Deps{BaseURL: f.server.URL + "/base/", Key: "the-key", UserAgent: "binder", Namespace: "somewhere", Metrics: f}
	deps.Log, f.logged = kubetest.RecordLog()
	deps.Now = func() time.Time {
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.at
	}
	f.Registry = New(deps)
	t.Cleanup(f.known.CloseIdleConnections)
	t.Cleanup(f.unknown.CloseIdleConnections)
	return f
}

func (f *fixture) RegistryAsked(result string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.results[result]++
}

// after lets time pass. From then on the server gives another answer.
func (f *fixture) after(d time.Duration, answer http.HandlerFunc) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.at, f.answer = f.at.Add(d+time.Millisecond), answer
}

// wantImage asks for template p, which must have an image.
func (f *fixture) wantImage(t testing.TB, image string) {
	t.Helper()
	template, err := f.Template(t.Context(), "p")
	if err != nil {
		t.Fatal(err)
	}
	if got := template.Template.Spec.Containers[0].Image; got != image {
		t.Fatalf("got image %s, want %s", got, image)
	}
}

func (f *fixture) wantError(t testing.TB, want error) {
	t.Helper()
	if template, err := f.Template(t.Context(), "p"); !errors.Is(err, want) || template != nil {
		t.Fatalf("got %+v, %v, want error %q", template, err, want)
	}
}

// wantAsked checks how many questions reached the server.
func (f *fixture) wantAsked(t testing.TB, want int) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	if got := len(f.asked); got != want {
		t.Fatalf("the registry was asked %d times, want %d", got, want)
	}
}

func (f *fixture) wantWarnings(t testing.TB, want int) {
	t.Helper()
	if got := strings.Count(f.logged.String(), "level=WARN"); got != want {
		t.Errorf("got %d warnings, want %d: %s", got, want, f.logged)
	}
}

// serves answers for every template with an image.
func serves(image string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, `{"name": %q, "image-source": %q}`, strings.TrimPrefix(r.URL.Path, "/base/templates/"), image)
	}
}

func code(code int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "oops", code) }
}

func body(body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(body)) }
}

func TestTemplateIsFreshForAWhile(t *testing.T) {
	f := newFixture(t, serves("p:v1"))
	f.wantImage(t, "p:v1")
	f.after(freshFor-2*time.Millisecond, serves("p:v2"))
	f.wantImage(t, "p:v1")
	f.wantAsked(t, 1)
	f.after(time.Millisecond, serves("p:v2"))
	f.wantImage(t, "p:v2")
	if f.wantAsked(t, 2); f.results["ok"] != 2 {
		t.Errorf("counted %v", f.results)
	}
}

func TestErrorsAreRememberedForAMoment(t *testing.T) {
	for name, row := range map[string]struct {
		answer http.HandlerFunc
		err    error
		result string
	}{
		"404":                 {http.NotFound, podtemplate.ErrUnknown, "unknown_template"},
		"null":                {body("null\n"), podtemplate.ErrUnknown, "unknown_template"},
		"failure":             {code(500), podtemplate.ErrUnavailable, "error"},
		"unsuitable template": {body(`{"name": "p", "image-source": "p", "port": 0}`), nil, "bad_template"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, row.answer)
			for range 3 {
				_, err := f.Template(t.Context(), "p")
				var bad *podtemplate.Error
				if isBad := errors.As(err, &bad) && bad.Template == "p" && strings.Contains(err.Error(), "port is 0"); isBad != (row.err == nil) {
					t.Errorf("got %v, want %v", err, row.err)
				}
				if row.err != nil && !errors.Is(err, row.err) {
					t.Errorf("got %v, want %v", err, row.err)
				}
				f.after(errorsFor/3-2*time.Millisecond, serves("p:v1"))
			}
			if f.wantAsked(t, 1); f.results[row.result] != 1 {
				t.Errorf("counted %v", f.results)
			}
			f.after(10*time.Millisecond, serves("p:v1"))
			f.wantImage(t, "p:v1")
		})
	}
}

func TestCopyIsUsedWhileTheRegistryFails(t *testing.T) {
	f := newFixture(t, serves("p:v1"))
	f.wantImage(t, "p:v1")
	attempts := int(copiesFor/freshFor) - 1
	for range attempts {
		f.after(freshFor, code(500))
		f.wantImage(t, "p:v1")
	}
	f.wantAsked(t, 1+attempts)
	f.wantWarnings(t, 1) // one for the outage
	if got := f.logged.String(); !strings.Contains(got, "500") || !strings.Contains(got, "template=p") {
		t.Errorf("the log does not say what fails: %s", got)
	}
	f.after(freshFor, code(500))
	f.wantError(t, podtemplate.ErrUnavailable) // the copy is too old now

	f.after(errorsFor, serves("p:v2"))
	f.wantImage(t, "p:v2")
	f.after(freshFor, cutBody)
	f.wantImage(t, "p:v2")
	f.wantWarnings(t, 2)
}

func TestCopyEndsBetweenTwoQuestions(t *testing.T) {
	f := newFixture(t, serves("p:v1"))
	f.wantImage(t, "p:v1")
	f.after(copiesFor-freshFor/2, code(500))
	f.wantImage(t, "p:v1")
	f.after(freshFor/2, code(500))
	f.wantError(t, podtemplate.ErrUnavailable)
}

func TestRegistryWithdrawsATemplate(t *testing.T) {
	for name, answer := range map[string]http.HandlerFunc{"unknown": http.NotFound, "unsuitable": body(`{"name": "p"}`)} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, serves("p:v1"))
			f.wantImage(t, "p:v1")
			f.after(freshFor, answer)
			if _, err := f.Template(t.Context(), "p"); err == nil || errors.Is(err, podtemplate.ErrUnavailable) {
				t.Fatalf("got %v, want the registry's word", err)
			}
			f.after(errorsFor, code(500))
			f.wantError(t, podtemplate.ErrUnavailable) // and not the copy
		})
	}
}

func TestMadeUpNamesDoNotPushOutCopies(t *testing.T) {
	f := newFixture(t, serves("p:v1"))
	f.wantImage(t, "p:v1")
	ask := func(name string) {
		t.Helper()
		if _, err := f.Template(t.Context(), name); !errors.Is(err, podtemplate.ErrUnknown) {
			t.Fatalf("%s: got %v", name, err)
		}
	}
	f.after(0, http.NotFound)
	for i := range 2 * maxMisses {
		ask(fmt.Sprint("made-up-", i))
	}
	f.wantImage(t, "p:v1") // its recent answer is not pushed out either
	asked := 1 + 2*maxMisses
	ask(fmt.Sprint("made-up-", 2*maxMisses-1)) // the last answer is remembered
	f.wantAsked(t, asked)
	if recent, misses := len(f.recent.Keys()), len(f.misses.Keys()); recent != 1 || misses > maxMisses {
		t.Errorf("%d and %d answers are remembered, want 1 and at most %d", recent, misses, maxMisses)
	}
	ask("made-up-0") // the first one had to go
	f.wantAsked(t, asked+1)
	if first, last := f.asked[0].RemoteAddr, f.asked[asked].RemoteAddr; first != last {
		t.Errorf("asked from %s and %s, want one connection", first, last)
	}
	f.after(freshFor, code(500))
	f.wantImage(t, "p:v1")
}

func TestCopiesAreBounded(t *testing.T) {
	f := newFixture(t, serves("p:v1"))
	name := func(i int) string { return fmt.Sprint("template-", i) }
	for i := range maxCopies + 1 {
		if _, err := f.Template(t.Context(), name(i)); err != nil {
			t.Fatal(err)
		}
	}
	f.after(freshFor, code(500))
	if _, err := f.Template(t.Context(), name(1)); err != nil {
		t.Errorf("a newer copy is gone: %v", err)
	}
	if _, err := f.Template(t.Context(), name(0)); err == nil {
		t.Error("the oldest copy is still there")
	}
}

func TestServicesAreWarnedOfOnce(t *testing.T) {
	f := newFixture(t, body(`{"name": "p", "image-source": "p:v1", "services": [{"name": "spark"}]}`))
	for range 3 {
		f.wantImage(t, "p:v1")
		f.after(freshFor, f.answer)
	}
	f.wantAsked(t, 3)
	f.wantWarnings(t, 1)
}

// transport answers questions without a network, so that synctest sees which goroutines wait.
type transport func(*http.Request) (*http.Response, error)

func (t transport) RoundTrip(r *http.Request) (*http.Response, error) { return t(r) }

// offline returns a Registry whose questions a function answers.
func offline(serve http.HandlerFunc) *Registry {
	r := New(Deps{BaseURL: "http://registry", Metrics: &fixture{results: map[string]int{}}, Log: kubetest.NoLog(), Now: time.Now})
	answer := transport(func(r *http.Request) (*http.Response, error) {
		r.URL.Path = "/base" + r.URL.Path
		recorder := httptest.NewRecorder()
		serve(recorder, r)
		return recorder.Result(), r.Context().Err()
	})
	r.known.Transport, r.unknown.Transport = answer, answer
	return r
}

// underWay returns how many questions are under way, and how many are counted as being
// about unknown names.
func (r *Registry) underWay() (all, unknown int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.asking), r.askedUnknown
}

func TestManyClientsShareOneQuestion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		questions := 0
		r := offline(func(w http.ResponseWriter, request *http.Request) {
			questions++
			time.Sleep(time.Second)
			serves("p:v1")(w, request)
		})
		ctx, leave := context.WithCancel(t.Context())
		var clients sync.WaitGroup
		clients.Go(func() { _, _ = r.Template(ctx, "p") })
		synctest.Wait()
		clients.Go(func() {
			if _, err := r.Template(t.Context(), "p"); err != nil {
				t.Errorf("got %v", err)
			}
		})
		synctest.Wait()
		leave() // the client that asked: the question goes on
		if _, err := r.Template(ctx, "p"); !errors.Is(err, context.Canceled) {
			t.Errorf("a client that has gone got %v", err)
		}
		for range 50 {
			clients.Go(func() {
				if template, err := r.Template(t.Context(), "p"); err != nil || template.Name != "p" {
					t.Errorf("got %v, %v", template, err)
				}
			})
		}
		clients.Wait()
		if questions != 1 {
			t.Errorf("the registry was asked %d times", questions)
		}
	})
}

// A question ends when the last client that waits for it has gone. That is not remembered
// as an answer.
func TestQuestionEndsWhenNobodyWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var questions, ended int
		r := offline(func(_ http.ResponseWriter, request *http.Request) {
			questions++
			<-request.Context().Done()
			ended++
		})
		var clients sync.WaitGroup
		leaves := make([]context.CancelFunc, 3)
		for i := range leaves {
			var ctx context.Context
			ctx, leaves[i] = context.WithCancel(t.Context())
			clients.Go(func() { _, _ = r.Template(ctx, "p") })
			synctest.Wait()
		}
		for i, leave := range leaves {
			if ended > 0 {
				t.Errorf("the question ended while %d clients waited", len(leaves)-i)
			}
			leave()
			synctest.Wait()
		}
		if all, unknown := r.underWay(); ended != 1 || all != 0 || unknown != 0 {
			t.Errorf("%d questions ended, and %d are under way, %d of them counted", ended, all, unknown)
		}
		clients.Go(func() { _, _ = r.Template(t.Context(), "p") })
		synctest.Wait()
		if questions != 2 {
			t.Errorf("the registry was asked %d times, want once more after the question that nobody waited for", questions)
		}
		clients.Wait()
	})
}

// Questions about names that nobody knows are few. Names that are known have a way of
// their own: no number of made-up names keeps the registry from being asked about them.
func TestMadeUpNamesDoNotHoldUpKnownOnes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		image := "p:v1"
		r := offline(func(w http.ResponseWriter, request *http.Request) {
			if strings.HasSuffix(request.URL.Path, "/p") {
				serves(image)(w, request)
				return
			}
			<-request.Context().Done()
		})
		ask := func(name string) error {
			_, err := r.Template(t.Context(), name)
			return err
		}
		if err := ask("p"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(freshFor + time.Second)
		image = "p:v2"
		began := time.Now()
		var clients sync.WaitGroup
		for i := range maxUnknown {
			clients.Go(func() {
				if err := ask(fmt.Sprint("slow-", i)); !errors.Is(err, podtemplate.ErrUnavailable) {
					t.Errorf("got %v", err)
				}
			})
		}
		synctest.Wait()
		if err := ask("another"); !errors.Is(err, podtemplate.ErrUnavailable) {
			t.Errorf("one question too many: got %v", err)
		}
		template, err := r.Template(t.Context(), "p")
		if err != nil || template.Template.Spec.Containers[0].Image != image {
			t.Errorf("a known template: got %v, %v, want the registry's word of now", template, err)
		}
		clients.Wait()
		if took := time.Since(began); took != questionTimeout {
			t.Errorf("the questions ended after %s", took)
		}
		time.Sleep(errorsFor + time.Second)
		clients.Go(func() { _ = ask("slow-0") })
		synctest.Wait()
		if _, unknown := r.underWay(); unknown != 1 {
			t.Errorf("%d questions are counted, want 1", unknown)
		}
		clients.Wait()
	})
}

// Made-up names that fill all connections to a slow registry leave those of known names.
func TestKnownNamesHaveConnectionsOfTheirOwn(t *testing.T) {
	f := newFixture(t, serves("p:v1"))
	f.wantImage(t, "p:v1")
	release := make(chan struct{})
	f.after(freshFor, func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasSuffix(r.URL.Path, "/p") {
			<-release
		}
		serves("p:v2")(w, r)
	})
	var clients sync.WaitGroup
	defer clients.Wait()
	defer close(release)
	for i := range maxUnknown {
		clients.Go(func() { _, _ = f.Template(t.Context(), fmt.Sprint("slow-", i)) })
	}
	kubetest.Eventually(t, "made-up names hold all connections", func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return len(f.asked) == 1+maxConnections
	})
	f.wantImage(t, "p:v2")
}

// A bug in the middle of a question must not keep a name from being asked for again.
func TestPanicEndsOneQuestion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broken := true
		r := offline(func(w http.ResponseWriter, request *http.Request) {
			if broken {
				panic("a bug")
			}
			serves("p:v1")(w, request)
		})
		func() {
			defer func() {
				if recover() == nil {
					t.Error("the panic was swallowed")
				}
			}()
			_, _ = r.Template(t.Context(), "p")
		}()
		broken = false
		if _, err := r.Template(t.Context(), "p"); !errors.Is(err, podtemplate.ErrUnavailable) {
			t.Errorf("got %v", err)
		}
		time.Sleep(errorsFor + time.Second)
		if _, err := r.Template(t.Context(), "p"); err != nil {
			t.Errorf("got %v", err)
		}
	})
}
