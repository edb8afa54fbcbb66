package pages

import (
	"context"
	"errors"
	"fmt"
	"html"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/binder-project/binder-deploy-kubernetes/internal/admission"
	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
	"github.com/binder-project/binder-deploy-kubernetes/internal/launch"
	"github.com/binder-project/binder-deploy-kubernetes/internal/podtemplate"
	"github.com/binder-project/binder-deploy-kubernetes/internal/protocol"
)

// site is a Launcher and a source of Templates, which has jupyter and a/b?c.
type site struct {
	launchErr, templateErr error
	launched, stopped      []string
	client                 string // of the last launch
	log                    *kubetest.LogBuffer
}

func (s *site) Launch(_ context.Context, req launch.Request) (string, error) {
	s.launched = append(s.launched, req.Template)
	s.client = req.Client
	return kubetest.ID(1), s.launchErr
}

func (s *site) Stop(_ context.Context, template, id string) error {
	s.stopped = append(s.stopped, template+"/"+id)
	return s.launchErr
}

func (s *site) Template(_ context.Context, name string) (*corev1.PodTemplate, error) {
	if name == "jupyter" || name == "a/b?c" {
		return kubetest.Template(name), nil
	}
	return nil, s.templateErr
}

// clientOf names the client of a request.
func clientOf(r *http.Request) string { return "client at " + r.RemoteAddr }

// newSite returns the handler of the launch page and what is behind it.
func newSite() (http.Handler, *site) {
	log, out := kubetest.RecordLog()
	s := &site{templateErr: fmt.Errorf("%w: nowhere", podtemplate.ErrUnknown), log: out}
	return New(Deps{Launcher: s, Client: clientOf, Templates: s, Log: log}).Launch(), s
}

func TestLaunchPageLaunchesNothing(t *testing.T) {
	h, s := newSite()
	for _, method := range []string{http.MethodGet, http.MethodHead} {
		for _, target := range []string{"/launch/jupyter", "/launch/jupyter/"} {
			wantPage(t, serve(h, method, target, ""), 200, "<title>Launch jupyter</title>", ">Launch</button>",
				`<form id="launch" method="post" action="/launch/jupyter">`)
		}
	}
	w := serve(h, http.MethodGet, "/launch/jupyter?path=notebooks%2Fa%22b.ipynb%3Fx%3D1", "")
	wantPage(t, w, 200, `<input type="hidden" name="path" value="notebooks/a%22b.ipynb?x=1">`)
	w = serve(h, http.MethodGet, "/launch/jupyter?labpath=a+b%3F.ipynb", "")
	wantPage(t, w, 200, `<input type="hidden" name="path" value="doc/tree/a%20b%3F.ipynb">`)
	wantPage(t, serve(h, http.MethodGet, "/launch/a%2Fb%3Fc", ""), 200, `action="/launch/a%2Fb%3Fc"`)
	if len(s.launched) != 0 {
		t.Errorf("launched %q, want nothing: a crawler follows links too", s.launched)
	}
}

func TestLaunchPageRefuses(t *testing.T) {
	for _, row := range []struct {
		method, target, form string
		code                 int
		says                 string
	}{
		{"GET", "/launch/nowhere", "", 404, "no template with the name nowhere"},
		{"GET", "/launch/", "", 404, "Not found"},
		{"GET", "/launch/jupyter/x/y", "", 404, "Not found"},
		{"DELETE", "/launch/jupyter", "", 404, "Not found"},
		{"GET", "/launch/jupyter?path=..%2Fother", "", 400, "the parameter path is not right"},
		{"GET", "/launch/jupyter?labpath=..%2Fother", "", 400, "the parameter labpath is not right"},
		{"GET", "/launch/jupyter?labpath=a&urlpath=b", "", 400, "the parameters urlpath and labpath are both given"},
		{"GET", "/launch/jupyter?path=%zz", "", 400, "not a list of parameters"},
		{"POST", "/launch/jupyter", "path=" + url.QueryEscape("//evil.example"), 400, "the parameter path is not right"},
		{"POST", "/launch/jupyter", "path=a&path=b", 400, "the parameter path is given twice"},
		{"POST", "/launch/jupyter", "path=%zz", 400, "Not launched"},
		{"POST", "/launch/jupyter", "x=" + strings.Repeat("y", protocol.MaxBody), 413, "64 KiB"},
	} {
		h, s := newSite()
		wantPage(t, serve(h, row.method, row.target, row.form), row.code, row.says)
		if len(s.launched) != 0 || s.log.String() != "" {
			t.Errorf("%s %s: launched %q and logged %q, want nothing", row.method, row.target, s.launched, s.log)
		}
	}
}

// TestLaunchPageLaunches: a browser comes to its instance by a page, at which its form
// ends. Other clients need none.
func TestLaunchPageLaunches(t *testing.T) {
	for form, path := range map[string]string{
		"": "", "path=": "", "path=tree": "tree", "path=notebooks%2Fa+b.ipynb%3Fx%3D1%26y": "notebooks/a%20b.ipynb?x=1&y",
		"labpath=%C3%A9.ipynb": "doc/tree/%C3%A9.ipynb",
	} {
		h, s := newSite()
		direct := serve(h, http.MethodPost, "/launch/jupyter?path=ignored", form, "Accept", "*/*")
		browser := serve(h, http.MethodPost, "/launch/jupyter?path=ignored", form)
		address := instance.BaseURL(kubetest.ID(1)) + path
		between := "/launch/jupyter/" + kubetest.ID(1) + "?path=" + url.QueryEscape(path)
		for _, c := range []struct {
			w    *httptest.ResponseRecorder
			want string
		}{{direct, address}, {browser, between}} {
			if got := c.w.Header().Get("Location"); c.w.Code != http.StatusSeeOther || got != c.want {
				t.Errorf("%q: answered %d to %q, want 303 to %q", form, c.w.Code, got, c.want)
			}
			wantOwnHeaders(t, c.w)
		}
		for range 2 { // a reload finds the same instance
			wantPage(t, serve(h, http.MethodGet, between, ""), 200, "<title>Opening jupyter</title>",
				`<meta http-equiv="refresh" content="0; url=`+html.EscapeString(address)+`">`, `<a href="`+html.EscapeString(address)+`">`)
		}
		if want := "client at 192.0.2.1:1234"; s.client != want { // httptest's
			t.Errorf("the launch counts for %q, want %q", s.client, want)
		}
		if !slices.Equal(s.launched, []string{"jupyter", "jupyter"}) {
			t.Errorf("%q: launched %q, want jupyter once for each POST", form, s.launched)
		}
	}
	h, _ := newSite()
	if got, want := serve(h, http.MethodPost, "/launch/a%2Fb%3Fc", "path=").Header().Get("Location"), "/launch/a%2Fb%3Fc/"+kubetest.ID(1)+"?path="; got != want {
		t.Errorf("leads to %q, want %q", got, want)
	}
	wantPage(t, serve(h, http.MethodGet, "/launch/a%2Fb%3Fc/"+kubetest.ID(1)+"?path=", ""), 200, "Opening a/b?c")
}

// TestOpenRefuses: the page leads nowhere but to an instance.
func TestOpenRefuses(t *testing.T) {
	h, s := newSite()
	for target, code := range map[string]int{
		"/launch/jupyter/tree":                                           404,
		"/launch/jupyter/" + kubetest.ID(1) + "x":                        404,
		"/launch/jupyter/" + kubetest.ID(1) + "/":                        404,
		"/launch/jupyter/" + kubetest.ID(1) + "?path=..%2Fx":             400,
		"/launch/jupyter/" + kubetest.ID(1) + "?path=%2F%2Fevil.example": 400,
		"/launch/jupyter/" + kubetest.ID(1) + "?%zz":                     400,
	} {
		wantPage(t, serve(h, http.MethodGet, target, ""), code)
	}
	wantPage(t, serve(h, http.MethodPost, "/launch/jupyter/"+kubetest.ID(1), ""), 404)
	if len(s.launched) != 0 {
		t.Errorf("launched %q, want nothing", s.launched)
	}
}

func TestLaunchPageFails(t *testing.T) {
	secret := errors.New("connection refused by 10.0.0.1")
	for _, row := range []struct {
		name   string
		err    error
		code   int
		button bool
		says   string
		logged bool
	}{
		{"no capacity", fmt.Errorf("%w: %w", launch.ErrCapacity, secret), 503, true, "all places are taken", false},
		{"over a limit", &admission.Refusal{Limit: admission.ClientInstances, Max: 10, RetryAfter: time.Minute}, 429, true, "at most 10 instances", false},
		{"the API server is away", secret, 503, true, "try again shortly", true},
		{"bad template", &podtemplate.Error{Template: "nowhere", Err: secret}, 500, false, "will not help", true},
		{"unknown template", fmt.Errorf("%w: %q", podtemplate.ErrUnknown, "nowhere"), 404, false, "no template with the name nowhere", false},
	} {
		t.Run(row.name, func(t *testing.T) {
			h, s := newSite()
			s.launchErr, s.templateErr = row.err, row.err
			for _, w := range []*httptest.ResponseRecorder{
				serve(h, http.MethodPost, "/launch/nowhere", "path=tree"), serve(h, http.MethodGet, "/launch/nowhere?path=tree", ""),
			} {
				wantPage(t, w, row.code, row.says)
				body := w.Body.String()
				if got := strings.Contains(body, "Try again</button>") && strings.Contains(body, `name="path" value="tree"`); got != row.button {
					t.Errorf("there is a button to try again: %t, want %t:\n%s", got, row.button, body)
				}
				if got := w.Header().Get("Retry-After") != ""; got != row.button {
					t.Errorf("Retry-After is there: %t, want %t", got, row.button)
				}
				if strings.Contains(body, "10.0.0.1") {
					t.Error("the page tells what only the log should")
				}
			}
			if logged := strings.Contains(s.log.String(), "10.0.0.1"); logged != row.logged {
				t.Errorf("logged is %t, want %t: %q", logged, row.logged, s.log)
			}
		})
	}
}

func TestLaunchIsForOurOwnPages(t *testing.T) {
	for _, row := range []struct {
		name   string
		header []string
		code   int
	}{
		{"our page", []string{"Sec-Fetch-Site", "same-origin", "Origin", "http://example.com"}, 303},
		{"our page over plain HTTP", []string{"Origin", "http://example.com"}, 303},
		{"no browser", nil, 303},
		{"another site", []string{"Sec-Fetch-Site", "cross-site", "Origin", "http://evil.example"}, 403},
		{"a sibling", []string{"Sec-Fetch-Site", "same-site", "Origin", "http://a.example.com"}, 403},
		{"another site over plain HTTP", []string{"Origin", "http://evil.example"}, 403},
		{"a sandbox", []string{"Origin", "null"}, 403},
	} {
		h, s := newSite()
		w := serve(h, http.MethodPost, "/launch/jupyter", "", row.header...)
		if w.Code != row.code || len(s.launched) != map[int]int{303: 1, 403: 0}[row.code] {
			t.Errorf("%s: answered %d and launched %q, want %d", row.name, w.Code, s.launched, row.code)
		}
		if row.code == http.StatusForbidden {
			wantPage(t, w, 403, "Another site")
		}
	}
}

func TestProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := kubetest.NewWorld(time.Now, nil, kubetest.Pod(kubetest.ID(1), time.Now(), kubetest.Starting), kubetest.Pod(kubetest.ID(2), time.Now()))
		draining, drain := context.WithCancel(t.Context())
		h := New(Deps{Instances: world, Draining: draining}).Progress()
		began := time.Now()
		time.AfterFunc(time.Second, drain)
		for _, c := range []struct {
			n    int
			want string
		}{ // the stream of a starting instance comes last: it waits until the server drains
			{2, `{"phase":"deployed","message":"Ready.","step":"open"}`}, // without a location
			{1, `{"phase":"deploying","message":"Preparing the pod on its node.","step":"prepare"}`},
		} {
			w := serve(h, http.MethodGet, ProgressPrefix+kubetest.ID(c.n), "")
			if got, want := w.Body.String(), "event: progress\ndata: "+c.want+"\n\n"; w.Header().Get("Content-Type") != "text/event-stream" || got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		}
		if took := time.Since(began); took != time.Second {
			t.Errorf("the stream of a starting instance ended after %s, want 1s: when the server stops", took)
		}
		for _, target := range []string{"", "x", kubetest.ID(3), kubetest.ID(2) + "/", "%30" + kubetest.ID(2)[1:]} {
			if w := serve(h, http.MethodGet, ProgressPrefix+target, ""); w.Code != http.StatusNotFound {
				t.Errorf("%q is answered %d, want 404, which makes an EventSource give up", target, w.Code)
			}
		}
		if w := serve(h, http.MethodHead, ProgressPrefix+kubetest.ID(2), ""); w.Code != http.StatusNotFound {
			t.Errorf("HEAD is answered %d, want 404: it would wait for nothing", w.Code)
		}
	})
}

// TestProgressOfALateWatch: another replica may have launched the instance.
func TestProgressOfALateWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := kubetest.NewWorld(time.Now, nil)
		time.AfterFunc(instance.WatchDelay/2, func() { world.PutPod(t, kubetest.Pod(kubetest.ID(1), time.Now())) })
		w := serve(New(Deps{Instances: world, Draining: t.Context()}).Progress(), http.MethodGet, ProgressPrefix+kubetest.ID(1), "")
		wantOwnHeaders(t, w)
		if w.Code != http.StatusOK {
			t.Errorf("answered %d, want 200", w.Code)
		}
	})
}
