package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/binder-project/binder-deploy-kubernetes/internal/binderhub"
	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
	"github.com/binder-project/binder-deploy-kubernetes/internal/origin"
	"github.com/binder-project/binder-deploy-kubernetes/internal/pages"
	"github.com/binder-project/binder-deploy-kubernetes/internal/protocol"
)

// oneInstance is a read model with instance 1, which waits for nothing.
type oneInstance struct {
	listed bool
	asked  []string // ids
}

func (o *oneInstance) Encoded(template, id string) (*protocol.Encoded, bool) {
	inst, known := o.Instance(id)
	return protocol.Encode(inst), known && template == inst.Template
}

func (o *oneInstance) EachEncoded(string) iter.Seq[*protocol.Encoded] {
	o.listed = true
	return slices.Values[[]*protocol.Encoded](nil)
}

func (o *oneInstance) Await(_ context.Context, id string, _ func(instance.Instance, bool) bool) (instance.Instance, bool) {
	return o.Instance(id)
}

func (o *oneInstance) Instance(id string) (instance.Instance, bool) {
	o.asked = append(o.asked, id)
	return instance.Instance{ID: id, Template: "jupyter", Status: instance.StatusDeployed}, id == kubetest.ID(1)
}

func (o *oneInstance) Template(_ context.Context, name string) (*corev1.PodTemplate, error) {
	return kubetest.Template(name), nil
}

// FuzzAPI sends requests without a key to the API, which has one instance. Nobody learns of
// other instances, stops one, or launches but by a POST. Every answer is JSON, and none is a
// redirect.
func FuzzAPI(f *testing.F) {
	id := kubetest.ID(1)
	for _, seed := range [][3]string{
		{"GET", "/applications/jupyter/" + id, ""}, {"DELETE", "/applications/jupyter/" + id + "/", ""}, {"POST", "/applications/jupyter", `{"cull-timeout": 60000}`},
		{"GET", "/applications", ""}, {"GET", "/applications//jupyter", ""}, {"POST", "/applications/../preload/jupyter", ""}, {"HEAD", "/applications/jup%79ter/%30" + id[1:], ""},
		{"POST", "http://x/applications", `{"template-name": "jupyter"}`}, {"OPTIONS", "*", ""}, {"GET", "//applications", ""}, {"POST", "/applications/%2e%2e", "{}"},
		{"GET", "/applications/jupyter/" + strings.ToUpper(id), ""}, {"CONNECT", "/applications", ""}, {"CONNECT", "x:1", ""}, {"POST", "/preload/jupyter%00", ""}, {"POST", "/applications/a%2f..%2fb", ""},
		{"GET", "/applications/jupyter%22,%22location%22:%22/" + id, ""}, {"GET", "/applications/jupyte/" + id, ""},
	} {
		f.Add(seed[0], seed[1], seed[2])
	}
	f.Fuzz(func(t *testing.T, method, target, body string) {
		head := fmt.Sprintf("%s %s HTTP/1.1\r\nHost: hub.example\r\nContent-Length: %d\r\n\r\n", method, target, len(body))
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(head + body)))
		if err != nil || target == "*" {
			return // net/http answers
		}
		reader, launcher := &oneInstance{}, &fakeLauncher{}
		api := newTestAPI(reader, launcher)
		preloader := api.Preloader.(*fakePreloader)
		answer := httptest.NewRecorder()
		api.Routes().ServeHTTP(answer, r)
		if reader.listed || len(launcher.stops) > 0 || len(preloader.calls) > 0 || len(launcher.launches) > 0 && r.Method != http.MethodPost {
			t.Errorf("%s %q: listed %t, launched %v, stopped %q, %q", method, target, reader.listed, launcher.launches, launcher.stops, preloader.calls)
		}
		for _, asked := range reader.asked {
			if !strings.Contains(target+body, asked) && len(launcher.launches) == 0 {
				t.Errorf("%s %q asks for the instance %q", method, target, asked)
			}
		}
		if r.Method == http.MethodGet && answer.Code == http.StatusOK && !strings.HasSuffix(r.URL.Path, "/") && r.URL.Path != "/applications/jupyter/"+id {
			t.Errorf("%s %q has an instance: %s", method, target, answer.Body)
		}
		if answer.Code >= 300 && answer.Code < 400 || !json.Valid(answer.Body.Bytes()) || answer.Header().Get("Content-Type") != "application/json" {
			t.Errorf("%s %q: got %d %q", method, target, answer.Code, answer.Body)
		}
	})
}

// FuzzRoutePublic sends request targets to the public port. Only those below our own paths
// reach our pages, and only those of instances can reach an instance.
func FuzzRoutePublic(f *testing.F) {
	for _, seed := range []string{
		"/launch/jupyter", "/user/" + kubetest.ID(1) + "/", "/progress/" + kubetest.ID(1), "/launch/../user/x", "/%6caunch/x", "//launch/x", "http://x/launch/jupyter?path=//evil.example", "*",
		"/progress/../launch/x", "/progress/%30", "/launch/jupyter/" + kubetest.ID(1) + "?path=x", "/launch//evil.example/..", "x://launch/jupyter", "/user/../launch/x",
		"/versions", "/versions/", "/versions?x", "//versions", "/v2/gh/org/repo", "/v2//evil.example/x", "/v2", "/repo/%2F%2Fevil.example/x",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, target string) {
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader("GET " + target + " HTTP/1.1\r\nHost: hub.example\r\nAccept: text/html\r\n\r\n")))
		if err != nil {
			return // net/http answers
		}
		reader, launcher := &oneInstance{}, &fakeLauncher{}
		own := pages.New(pages.Deps{Instances: reader, Launcher: launcher, Templates: reader, Client: func(*http.Request) string { return "" }, Draining: t.Context(), Log: kubetest.NoLog()})
		hub := binderhub.New(binderhub.Deps{Templates: reader, PodTemplates: func() []*corev1.PodTemplate { return nil }, Refuse: pages.OrOwn(nil).ServeNoTemplate, Log: kubetest.NoLog()})
		reached := false
		instances := http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached = true })
		answer := httptest.NewRecorder()
		routePublic(newTestMetrics(), pages.OrOwn(nil), map[string]http.Handler{
			pages.LaunchPrefix: own.Launch(), pages.ProgressPrefix: own.Progress(), "/v2/": hub, "/repo/": hub, "/versions": hub,
		}, origin.Layout{}, instances).ServeHTTP(answer, r)
		sent := target
		if _, after, absolute := strings.Cut(target, "://"); absolute && target[0] != '/' {
			sent = after[max(strings.IndexAny(after, "/?"), 0):]
		}
		path, _, _ := strings.Cut(sent, "?")
		ours := path == "/versions"
		for _, prefix := range []string{pages.LaunchPrefix, pages.ProgressPrefix, "/v2/", "/repo/"} {
			ours = ours || strings.HasPrefix(sent, prefix)
		}
		if reached == ours || len(launcher.launches) > 0 {
			t.Errorf("%q reaches the instances: %t, and launches %v", target, reached, launcher.launches)
		}
		if to := answer.Header().Get("Location"); to != "" {
			if host, _ := kubetest.Browse("hub.example", "/", to); host != "hub.example" {
				t.Errorf("%q leads to %q", target, to)
			}
		}
	})
}
