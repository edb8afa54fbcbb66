package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"

	"github.com/binder-project/binder-deploy-kubernetes/internal/metrics"

	"github.com/binder-project/binder-deploy-kubernetes/internal/podtemplate"

	"github.com/binder-project/binder-deploy-kubernetes/internal/launch"

	"github.com/binder-project/binder-deploy-kubernetes/internal/protocol"

	"github.com/binder-project/binder-deploy-kubernetes/internal/pages"
)

func discardPageLog() *slog.Logger { return slog.New(slog.DiscardHandler) }

// pageLauncher counts launches.
type pageLauncher struct {
	InstanceLauncher // only Launch is called
	err              error
	launched         []string
}

func (f *pageLauncher) Launch(_ context.Context, req launch.Request) (string, error) {
	f.launched = append(f.launched, req.Template)
	return pageID, f.err
}

// pageTemplates has jupyter, and an error for all else.
type pageTemplates struct{ err error }

func (f pageTemplates) Template(_ context.Context, name string) (*corev1.PodTemplate, error) {
	if name == "jupyter" || name == "a/b?c" {
		return &corev1.PodTemplate{}, nil
	}
	return nil, f.err
}

// launchSite is the proxy's address as a browser meets it.
type launchSite struct {
	*pages.LaunchPages
	launcher *pageLauncher
}

func newLaunchSite(inst instance.Instance) *launchSite {
	launcher := &pageLauncher{}
	return &launchSite{launcher: launcher, LaunchPages: &pages.LaunchPages{
		Instances: pageReader{inst}, Launcher: launcher, Enabled: true, Draining: context.Background(),
		Templates: pageTemplates{fmt.Errorf("%w: nowhere", podtemplate.ErrUnknown)},
		Metrics:   metrics.New("test", metricValues()), Log: discardPageLog(),
	}}
}

// at sends a request with headers in pairs. What is not one of the pages
// themselves answers 418.
func (s *launchSite) at(method, target, form string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, target, strings.NewReader(form))
	r.Header.Set("Accept", pageHTML)
	if form != "" {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	teapot := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) })
	s.Routes(teapot).ServeHTTP(w, r)
	return w
}

func TestLaunchPageLaunchesNothing(t *testing.T) {
	s := newLaunchSite(instance.Instance{})
	for _, method := range []string{http.MethodGet, http.MethodHead} {
		for _, target := range []string{"/launch/jupyter", "/launch/jupyter/"} {
			wantPage(t, s.at(method, target, ""), 200, "<title>Launch jupyter</title>", ">Launch</button>",
				`<form id="launch" method="post" action="/launch/jupyter">`)
		}
	}
	w := s.at(http.MethodGet, "/launch/jupyter?path=notebooks%2Fa%22b.ipynb%3Fx%3D1", "")
	wantPage(t, w, 200, `<input type="hidden" name="path" value="notebooks/a%22b.ipynb?x=1">`)
	wantPage(t, s.at(http.MethodGet, "/launch/a%2Fb%3Fc", ""), 200, `action="/launch/a%2Fb%3Fc"`)
	if len(s.launcher.launched) != 0 {
		t.Errorf("launched %q, want nothing: a crawler follows links too", s.launcher.launched)
	}
}

func TestLaunchPageRefuses(t *testing.T) {
	s := newLaunchSite(instance.Instance{})
	wantPage(t, s.at(http.MethodGet, "/launch/nowhere", ""), 404, "There is no nowhere")
	wantPage(t, s.at(http.MethodGet, "/launch/", ""), 404)
	wantPage(t, s.at(http.MethodGet, "/launch/jupyter/x/y", ""), 404)
	wantPage(t, s.at(http.MethodGet, "/launch/jupyter?path=..%2Fother", ""), 400, "“path”")
	wantPage(t, s.at(http.MethodGet, "/launch/jupyter?path=%zz", ""), 400, "“path”")
	wantPage(t, s.at(http.MethodDelete, "/launch/jupyter", ""), 404)
	s.Templates = pageTemplates{errors.New("the registry is away")}
	w := s.at(http.MethodGet, "/launch/nowhere", "")
	wantPage(t, w, 503, "nowhere was not launched", "Try again</button>")
	if w.Header().Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	if strings.Contains(w.Body.String(), "registry is away") {
		t.Error("the page tells what only the log should")
	}
}

func TestLaunchPageLaunches(t *testing.T) {
	for form, want := range map[string]string{
		"":                                   "/user/" + pageID + "/",
		"path=":                              "/user/" + pageID + "/",
		"path=tree":                          "/user/" + pageID + "/tree",
		"path=notebooks%2Fa+b.ipynb%3Fx%3D1": "/user/" + pageID + "/notebooks/a%20b.ipynb?x=1",
	} {
		s := newLaunchSite(instance.Instance{})
		w := s.at(http.MethodPost, "/launch/jupyter?path=ignored", form)
		if got := w.Header().Get("Location"); w.Code != http.StatusSeeOther || got != want {
			t.Errorf("%q: answered %d to %q, want 303 to %q", form, w.Code, got, want)
		}
		if len(s.launcher.launched) != 1 || s.launcher.launched[0] != "jupyter" {
			t.Errorf("%q: launched %q, want jupyter once", form, s.launcher.launched)
		}
	}
}

func TestLaunchPageOfAnInvalidForm(t *testing.T) {
	s := newLaunchSite(instance.Instance{})
	wantPage(t, s.at(http.MethodPost, "/launch/jupyter", "path="+url.QueryEscape("//evil.example")), 400, "“path”")
	wantPage(t, s.at(http.MethodPost, "/launch/jupyter", "path=%zz"), 400)
	wantPage(t, s.at(http.MethodPost, "/launch/jupyter", "x="+strings.Repeat("y", protocol.MaxBody)), 413, "64 KiB")
	if len(s.launcher.launched) != 0 {
		t.Errorf("launched %q, want nothing", s.launcher.launched)
	}
}

func TestLaunchPageThatFails(t *testing.T) {
	for _, row := range []struct {
		name   string
		err    error
		code   int
		button bool
		says   string
	}{
		{"capacity", launch.ErrCapacity, 503, true, "all places are taken"},
		{"the API server", errors.New("connection refused by 10.0.0.1"), 503, true, "try again shortly"},
		{"bad template", &podtemplate.Error{Template: "jupyter", Err: errors.New("it has no container")}, 500, false, "will not help"},
		{"unknown template", fmt.Errorf("%w: %q", podtemplate.ErrUnknown, "jupyter"), 404, false, "There is no jupyter"},
	} {
		t.Run(row.name, func(t *testing.T) {
			s := newLaunchSite(instance.Instance{})
			s.launcher.err = row.err
			w := s.at(http.MethodPost, "/launch/jupyter", "path=tree")
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
			if w := s.at(http.MethodPost, "/launch/jupyter", "", "Accept", "*/*"); w.Header().Get("Content-Type") != "text/plain; charset=utf-8" {
				t.Errorf("who does not ask for HTML got %q", w.Header().Get("Content-Type"))
			}
		})
	}
}

func TestLaunchPageIsForOurOwnPages(t *testing.T) {
	for _, row := range []struct {
		name   string
		header []string
		code   int
	}{
		{"our page", []string{"Sec-Fetch-Site", "same-origin", "Origin", "http://example.com"}, 303},
		{"our page, over plain HTTP", []string{"Origin", "http://example.com"}, 303},
		{"no browser", nil, 303},
		{"another site", []string{"Sec-Fetch-Site", "cross-site", "Origin", "http://evil.example"}, 403},
		{"a sibling", []string{"Sec-Fetch-Site", "same-site", "Origin", "http://a.example.com"}, 403},
		{"another site, over plain HTTP", []string{"Origin", "http://evil.example"}, 403},
		{"a sandbox", []string{"Origin", "null"}, 403},
	} {
		s := newLaunchSite(instance.Instance{})
		w := s.at(http.MethodPost, "/launch/jupyter", "", row.header...)
		if w.Code != row.code || len(s.launcher.launched) != map[int]int{303: 1, 403: 0}[row.code] {
			t.Errorf("%s: answered %d and launched %q; want %d", row.name, w.Code, s.launcher.launched, row.code)
		}
		if row.code == http.StatusForbidden {
			wantPage(t, w, 403, "Another site")
		}
	}
}

func TestLaunchPageTurnedOff(t *testing.T) {
	s := newLaunchSite(instance.Instance{ID: pageID, Status: instance.StatusDeployed})
	s.Enabled = false
	for _, method := range []string{http.MethodGet, http.MethodPost} {
		if w := s.at(method, "/launch/jupyter", ""); w.Code != http.StatusTeapot {
			t.Errorf("%s /launch/jupyter is answered %d; want it left to the proxy", method, w.Code)
		}
	}
	if w := s.at(http.MethodGet, pages.ProgressPrefix+pageID, ""); w.Code != http.StatusOK {
		t.Errorf("the page of an instance that starts gets %d for its events", w.Code)
	}
}

// TestLaunchPagesLeaveTheProxyAlone: paths reach it as they were sent.
func TestLaunchPagesLeaveTheProxyAlone(t *testing.T) {
	s := newLaunchSite(instance.Instance{})
	for _, target := range []string{"/user/" + pageID + "//a/../b", "/", "/launch", "/launches/x", "/%6caunch/jupyter"} {
		if w := s.at(http.MethodGet, target, ""); w.Code != http.StatusTeapot {
			t.Errorf("%s is answered %d; want it left to the proxy", target, w.Code)
		}
	}
}

func TestProgressOfALaunch(t *testing.T) {
	s := newLaunchSite(instance.Instance{ID: pageID, Template: "jupyter", Status: instance.StatusFailed, Reason: "Error", Message: "exit code 1", Address: "10.0.0.1:8888"})
	w := s.at(http.MethodGet, pages.ProgressPrefix+pageID, "", "Accept", "text/event-stream")
	if got := w.Header().Get("Content-Type"); w.Code != 200 || got != "text/event-stream" {
		t.Errorf("answered %d as %q", w.Code, got)
	}
	if got, want := w.Body.String(), "event: progress\ndata: {\"phase\":\"failed\",\"message\":\"exit code 1\",\"reason\":\"Error\"}\n\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	for _, id := range []string{"", "x", strings.Repeat("0", 32), pageID + "/"} {
		if w := s.at(http.MethodGet, pages.ProgressPrefix+id, "", "Accept", "text/event-stream"); w.Code != http.StatusNotFound {
			t.Errorf("%q is answered %d, want 404: an EventSource then gives up", id, w.Code)
		}
	}
	if w := s.at(http.MethodHead, pages.ProgressPrefix+pageID, ""); w.Code != http.StatusNotFound {
		t.Errorf("HEAD is answered %d, want 404: it would wait for nothing", w.Code)
	}
}

func TestLaunchPageMetrics(t *testing.T) {
	s := newLaunchSite(instance.Instance{ID: pageID, Status: instance.StatusDeployed})
	s.at(http.MethodGet, "/launch/jupyter", "")
	s.at(http.MethodGet, "/launch/nowhere/x/y", "")
	s.at(http.MethodPost, "/launch/jupyter", "", "Origin", "null")
	s.at(http.MethodGet, pages.ProgressPrefix+pageID, "")
	w := httptest.NewRecorder()
	s.Metrics.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	for _, want := range []string{
		`binder_http_requests_total{code="200",method="get",route="/launch/",server="proxy"} 1`,
		`binder_http_requests_total{code="404",method="get",route="/launch/",server="proxy"} 1`,
		`binder_http_requests_total{code="403",method="post",route="/launch/",server="proxy"} 1`,
		`binder_http_requests_total{code="200",method="get",route="/progress/",server="proxy"} 1`,
	} {
		if !strings.Contains(w.Body.String(), want) {
			t.Errorf("there is no %s", want)
		}
	}
}
