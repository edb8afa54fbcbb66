package main

import (
	"bufio"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"

	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
)

// receive takes one value from a channel, and fails the test when none comes.
func receive[T any](t testing.TB, from <-chan T) T {
	t.Helper()
	select {
	case value := <-from:
		return value
	case <-time.After(kubetest.Patience):
		t.Fatalf("nothing came within %s", kubetest.Patience)
		panic("unreachable")
	}
}

// upload is the body of a request, written by the test bit by bit.
type upload struct {
	*io.PipeReader
	w *io.PipeWriter
}

// newUpload makes one that ends with the test, so that no server waits for it.
// Make it after the server.
func newUpload(t testing.TB) upload {
	r, w := io.Pipe()
	t.Cleanup(func() { r.CloseWithError(io.ErrUnexpectedEOF) })
	return upload{r, w}
}

// write sends a line, and fails the test when nobody reads it.
func (u upload) write(t testing.TB, line string) {
	t.Helper()
	written := make(chan error, 1)
	go func() {
		_, err := io.WriteString(u.w, line+"\n")
		written <- err
	}()
	if err := receive(t, written); err != nil {
		t.Fatal(err)
	}
}

func TestProxyStreamsTheAnswer(t *testing.T) {
	next := make(chan string)
	for _, kind := range []string{"text/plain", "text/event-stream"} {
		inst := newBackend(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", kind)
			for line := range next {
				if line == "" {
					return
				}
				_, _ = io.WriteString(w, line)
				_ = http.NewResponseController(w).Flush()
			}
		})
		p := startProxy(t, inst)
		go func() { next <- "one\n" }()
		res, err := p.Client().Get(p.URL + "/user/" + inst.ID + "/log")
		if err != nil {
			t.Fatal(err)
		}
		lines := make(chan string)
		go func() {
			defer close(lines)
			for scanner := bufio.NewScanner(res.Body); scanner.Scan(); {
				lines <- scanner.Text()
			}
		}()
		// Each line arrives before the next is written, and counts as use.
		used := 0
		for _, line := range []string{"one", "two", "three"} {
			if got := receive(t, lines); got != line {
				t.Errorf("%s: got %q, want %q", kind, got, line)
			}
			if now := p.touches.of(inst.ID); now <= used {
				t.Errorf("%s: %q came and the instance was not touched", kind, line)
			} else {
				used = now
			}
			next <- map[string]string{"one": "two\n", "two": "three\n"}[line]
		}
		if _, more := <-lines; more {
			t.Errorf("%s: more came than was sent", kind)
		}
		res.Body.Close()
	}
}

func TestProxyStreamsTheRequest(t *testing.T) {
	arrived := make(chan string)
	inst := newBackend(t, func(_ http.ResponseWriter, r *http.Request) {
		for scanner := bufio.NewScanner(r.Body); scanner.Scan(); {
			arrived <- scanner.Text()
		}
		close(arrived)
	})
	p := startProxy(t, inst)
	body := newUpload(t)
	done := make(chan error, 1)
	go func() {
		res, err := p.Client().Post(p.URL+"/user/"+inst.ID+"/upload", "text/plain", body)
		if err == nil {
			res.Body.Close()
		}
		done <- err
	}()
	used := 0
	for _, line := range []string{"one", "two", "three"} {
		body.write(t, line)
		if got := receive(t, arrived); got != line {
			t.Errorf("got %q, want %q", got, line)
		}
		if now := p.touches.of(inst.ID); now <= used {
			t.Errorf("%q went and the instance was not touched", line)
		} else {
			used = now
		}
	}
	body.w.Close()
	if err := receive(t, done); err != nil {
		t.Error(err)
	}
}

// An application may begin to answer while it still reads.
func TestProxyStreamsBothWaysAtOnce(t *testing.T) {
	inst := newBackend(t, func(w http.ResponseWriter, r *http.Request) {
		answer := http.NewResponseController(w)
		if err := answer.EnableFullDuplex(); err != nil {
			t.Error(err)
		}
		for scanner := bufio.NewScanner(r.Body); scanner.Scan(); {
			_, _ = io.WriteString(w, "got "+scanner.Text()+"\n")
			_ = answer.Flush()
		}
	})
	p := startProxy(t, inst)
	body := newUpload(t)
	answers := make(chan *http.Response, 1)
	go func() {
		if res, err := p.Client().Post(p.URL+"/user/"+inst.ID+"/talk", "text/plain", body); err == nil {
			answers <- res
		}
	}()
	body.write(t, "one")
	res := receive(t, answers)
	defer res.Body.Close()
	answer := bufio.NewScanner(res.Body)
	for _, line := range []string{"one", "two", "three"} {
		if line != "one" {
			body.write(t, line)
		}
		if !answer.Scan() || answer.Text() != "got "+line {
			t.Fatalf("got %q, %v, want an answer to %s", answer.Text(), answer.Err(), line)
		}
	}
	body.w.Close()
	if answer.Scan() || answer.Err() != nil {
		t.Errorf("got %q, %v, want the end", answer.Text(), answer.Err())
	}
}

// A request counts once as such; only bytes count beyond that, and none moved.
func TestProxyTouchesOncePerRequestOfNoBytes(t *testing.T) {
	inst := newBackend(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	p := startProxy(t, inst, instance.Instance{ID: kubetest.ID(2), Status: instance.StatusDeployed, Address: inst.Address})
	for want := 1; want <= 3; want++ {
		p.get(t, "/user/"+inst.ID+"/")
		if got := p.touches.of(inst.ID); got != want {
			t.Errorf("touched %d times after %d requests", got, want)
		}
	}
	if got := p.touches.of(kubetest.ID(2)); got != 0 {
		t.Errorf("another instance was touched %d times", got)
	}
}

// What an application breaks off must not look complete to the browser.
func TestProxyPassesABrokenAnswerOnAsBroken(t *testing.T) {
	inst := newBackend(t, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "half of ")
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	})
	p := startProxy(t, inst)
	res, err := p.Client().Get(p.URL + "/user/" + inst.ID + "/")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if body, err := io.ReadAll(res.Body); err == nil {
		t.Errorf("got %q as a whole answer, want an error", body)
	}
	kubetest.Eventually(t, "no request is in flight", func() bool {
		return scrape(t, p.metrics, "binder_proxy_requests_in_flight") == "binder_proxy_requests_in_flight 0"
	})
}
