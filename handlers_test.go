package main

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/binder-project/binder-deploy-kubernetes/internal/admin"
	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/keys"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
	"github.com/binder-project/binder-deploy-kubernetes/internal/launch"
	"github.com/binder-project/binder-deploy-kubernetes/internal/podtemplate"
	"github.com/binder-project/binder-deploy-kubernetes/internal/preload"
)

// fakeLauncher records its calls. It launches instance 1.
type fakeLauncher struct {
	err      error // returned by every call
	launches []launch.Request
	stops    []string // as template/id
}

func (f *fakeLauncher) Launch(_ context.Context, req launch.Request) (string, error) {
	f.launches = append(f.launches, req)
	return kubetest.ID(1), f.err
}

func (f *fakeLauncher) Stop(_ context.Context, template, id string) error {
	f.stops = append(f.stops, template+"/"+id)
	return f.err
}

// fakePreloader records its calls, and answers each with what a test has set.
type fakePreloader struct {
	progress preload.Progress
	known    bool
	err      error
	calls    []string
}

func (f *fakePreloader) Preload(_ context.Context, template string) (preload.Template, error) {
	f.calls = append(f.calls, "preload "+template)
	return preload.Template{Name: template, ImageSource: "app:1", Port: 8888, Images: []string{"app:1"}}, f.err
}

func (f *fakePreloader) Status(_ context.Context, template string) (preload.Progress, bool, error) {
	f.calls = append(f.calls, "status "+template)
	return f.progress, f.known, f.err
}

// newTestAPI returns an API on a read model, which can be nil, and a launcher. Its
// locations begin with the host of the request.
func newTestAPI(reader InstanceReader, launcher InstanceLauncher) *API {
	return &API{
		Instances: reader, Launcher: launcher, Preloader: &fakePreloader{}, Admin: admin.New(admin.Deps{State: func(context.Context) admin.State { return admin.State{} }}),
		Locations: func(requestHost string) func(id string) string {
			return func(id string) string { return requestHost + "/user/" + id }
		},
		Client: func(r *http.Request) string { return strings.ReplaceAll(r.RemoteAddr, ":", ".port.") }, // a label's value
		Keys:   keys.New(testAPIKey), MinCullTimeout: time.Minute, MaxCullTimeout: 24 * time.Hour,
		Draining: context.Background(), Metrics: newTestMetrics(), Log: kubetest.NoLog(),
	}
}

// wantJSON checks that an answer is 200 with this JSON.
func wantJSON(t testing.TB, res *httptest.ResponseRecorder, want string) {
	t.Helper()
	var got, wanted any
	noError(t, json.Unmarshal([]byte(want), &wanted))
	err := json.Unmarshal(res.Body.Bytes(), &got)
	if res.Code != http.StatusOK || err != nil || !reflect.DeepEqual(got, wanted) {
		t.Errorf("got %d %s, want 200 %s", res.Code, res.Body, want)
	}
	wantEqual(t, "Content-Type", res.Header().Get("Content-Type"), "application/json")
}

func TestDeploy(t *testing.T) {
	const idempotencyKey = "0123456789abcdef"
	for _, row := range []struct {
		name, target, body string
		want               launch.Request
	}{
		{"as binder-client", "/applications/", `{"template-name": "jupyter", "cull-timeout": 60000}`, launch.Request{Template: "jupyter", CullTimeout: time.Minute}},
		{"name in the path", "/applications/jupyter", ``, launch.Request{Template: "jupyter"}},
		{"timeout as text", "/applications/jupyter/", `{"cull-timeout": "60000"}`, launch.Request{Template: "jupyter", CullTimeout: time.Minute}},
		{"name in both", "/applications/jupyter", `{"template-name": "jupyter"}`, launch.Request{Template: "jupyter"}},
		{"empty name in the body", "/applications/jupyter", `{"template-name": ""}`, launch.Request{Template: "jupyter"}},
		{"escaped name", "/applications/caf%C3%A9%2F1", ``, launch.Request{Template: "café/1"}},
		{"name escaped in the path only", "/applications/a%20b", `{"template_name": "a b"}`, launch.Request{Template: "a b"}},
		{"query is ignored", "/applications/jupyter?template-name=other&cull-timeout=1", ``, launch.Request{Template: "jupyter"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			launcher := &fakeLauncher{}
			res := ask(newTestAPI(nil, launcher).Routes(), "POST", row.target, row.body, "Idempotency-Key", idempotencyKey)
			wantJSON(t, res, fmt.Sprintf(`{"id": %q}`, kubetest.ID(1)))
			row.want.IdempotencyKey, row.want.Client = idempotencyKey, "192.0.2.1.port.1234" // httptest's
			if !slices.Equal(launcher.launches, []launch.Request{row.want}) {
				t.Errorf("launched %+v, want %+v once", launcher.launches, row.want)
			}
		})
	}
}

func TestDeployRefuses(t *testing.T) {
	for _, row := range []struct {
		name, target, body string
		code               int
		says               string
	}{
		{"no name", "/applications", `{"cull-timeout": 60000}`, 422, "template-name"},
		{"no body", "/applications/", ``, 422, "template-name"},
		{"empty name", "/applications", `{"template-name": ""}`, 422, "template-name"},
		{"name in the query", "/applications?template-name=jupyter", `{}`, 422, "template-name"},
		{"form", "/applications", `template-name=jupyter`, 422, "JSON"},
		{"two names", "/applications/jupyter", `{"template-name": "rstudio"}`, 422, `"rstudio"`},
		{"timeout below the limit", "/applications/jupyter", `{"cull-timeout": 59999}`, 422, "60000"},
		{"timeout above the limit", "/applications/jupyter", `{"cull-timeout": 86400001}`, 422, "86400000"},
		{"body too large", "/applications/jupyter", `{"x": "` + strings.Repeat("x", 64<<10) + `"}`, 413, "64 KiB"},
	} {
		t.Run(row.name, func(t *testing.T) {
			launcher := &fakeLauncher{}
			res := ask(newTestAPI(nil, launcher).Routes(), "POST", row.target, row.body)
			if got := wantError(t, res, row.code, "malformedRequest"); !strings.Contains(got, row.says) {
				t.Errorf("the error is %q, want %q in it", got, row.says)
			}
			if len(launcher.launches) > 0 {
				t.Errorf("launched %v", launcher.launches)
			}
		})
	}
}

func TestLauncherFails(t *testing.T) {
	c := startCache(t, kubetest.ClockAt(kubetest.Noon), kubetest.Pod(kubetest.ID(1), kubetest.Noon))
	for _, row := range []struct {
		method, path string
		err          error
		code         int
		kind         string
	}{
		{"POST", "/applications/jupyter", podtemplate.ErrUnknown, 404, "registryError"},
		{"POST", "/applications/jupyter", launch.ErrCapacity, 503, "badKubeRequest"},
		{"POST", "/applications/jupyter", errors.New("connection refused"), 503, "badKubeRequest"},
		{"POST", "/applications/jupyter", &podtemplate.Error{Template: "jupyter", Err: errors.New("it has no container")}, 500, "badKubeRequest"},
		{"DELETE", firstPath, launch.ErrNoRecord, 404, "noRecord"}, // it has gone in the meantime
		{"DELETE", firstPath, errors.New("connection refused"), 503, "badKubeRequest"},
	} {
		api := newTestAPI(c.Cache, &fakeLauncher{err: row.err})
		wantError(t, ask(api.Routes(), row.method, row.path, "", withKey...), row.code, row.kind)
	}
}

// With the real launcher, an unknown template launches nothing, and a launched instance
// is known at once.
func TestDeployOnACluster(t *testing.T) {
	c := startCache(t, kubetest.ClockAt(kubetest.Noon), kubetest.Template("jupyter"))
	routes := newTestAPI(c.Cache, c.parts().launcher(t)).Routes()
	wantError(t, ask(routes, "POST", "/applications/rstudio", ""), 404, "registryError")
	wantError(t, ask(routes, "POST", "/applications", `{"template-name": "../jupyter"}`), 404, "registryError")
	wantNoWrites(t, c.Server)

	res := ask(routes, "POST", "/applications/jupyter", "")
	var launched struct{ ID string }
	if err := json.Unmarshal(res.Body.Bytes(), &launched); err != nil || res.Code != http.StatusOK || !instance.ValidID(launched.ID) {
		t.Fatalf("got %d %s, want 200 and an id", res.Code, res.Body)
	}
	wantJSON(t, ask(routes, "GET", "/applications/jupyter/"+launched.ID, ""),
		`{"id": "`+launched.ID+`", "template-name": "jupyter", "status": "pending", "message": "Waiting for a node.",
			"last-activity": "2026-01-02T12:00:00.000Z", "last-activity-source": "launch", "cull-at": "2026-01-02T13:10:02.000Z"}`)
}

// oneOfEach returns a cluster with an instance in every status, and the JSON of each for
// holders of the API key.
func oneOfEach(t testing.TB) (*testCache, []string) {
	at := func(n int) time.Time { return kubetest.Noon.Add(time.Duration(n) * time.Second) }
	c := startCache(t, kubetest.ClockAt(at(9)),
		kubetest.Pod(kubetest.ID(1), at(1), kubetest.Unscheduled),
		kubetest.Pod(kubetest.ID(2), at(2), kubetest.Starting),
		kubetest.Pod(kubetest.ID(3), at(3), kubetest.OfTemplate("r/studio"), kubetest.WithAnnotation(instance.ActivitySourceAnnotation, "http")),
		kubetest.Pod(kubetest.ID(4), at(4), kubetest.StartingWith("InvalidImageName", "bad")),
		kubetest.Tombstone(kubetest.Pod(kubetest.ID(5), at(5)), instance.EndCulled, "idle for 1h0m0s"))
	format := func(n int, rest string) string {
		return fmt.Sprintf(`{"id": %q, "template-name": "jupyter", `, kubetest.ID(n)) + rest + "}"
	}
	return c, []string{
		format(1, `"status": "pending", "message": "Waiting for a node that can take the instance.", "fault": "cluster", "detail": "Unschedulable: 0/1 nodes are available",
			"last-activity": "2026-01-02T12:00:01.000Z", "cull-at": "2026-01-02T13:10:03.000Z"`),
		format(2, `"status": "deploying", "message": "Preparing the pod on its node.",
			"last-activity": "2026-01-02T12:00:02.000Z", "cull-at": "2026-01-02T13:10:04.000Z"`),
		strings.ReplaceAll(format(3, `"status": "deployed", "location": "example.com/user/`+kubetest.ID(3)+`",
			"last-activity": "2026-01-02T12:00:03.000Z", "last-activity-source": "http", "cull-at": "2026-01-02T13:05:05.000Z"`), "jupyter", "r/studio"),
		format(4, `"status": "failed", "reason": "InvalidImageName", "message": "The image's name is not valid: jupyter:1. Launching again will not help: tell the author of the template.", "fault": "template", "detail": "InvalidImageName: bad"`),
		format(5, `"status": "deleted", "reason": "Culled", "message": "idle for 1h0m0s"`),
	}
}

func TestStatus(t *testing.T) {
	c, want := oneOfEach(t)
	routes := newTestAPI(c.Cache, &fakeLauncher{}).Routes()
	for i, one := range want {
		template := "jupyter"
		if i == 2 {
			template = "r%2Fstudio"
		}
		target := "/applications/" + template + "/" + kubetest.ID(i+1)
		wantJSON(t, ask(routes, "GET", target, "", withKey...), one)
		wantJSON(t, ask(routes, "GET", target, ""), regexp.MustCompile(`, "detail": "[^"]*"`).ReplaceAllString(one, ""))
	}
	for target, list := range map[string][]string{
		"/applications/":           want,
		"/applications":            want,
		"/applications/jupyter":    {want[0], want[1], want[3], want[4]},
		"/applications/r%2Fstudio": {want[2]},
		"/applications/nothing":    {}, // an empty list, not null
	} {
		wantJSON(t, ask(routes, "GET", target, "", withKey...), "["+strings.Join(list, ",")+"]")
	}
}

func TestStopRequest(t *testing.T) {
	c, want := oneOfEach(t)
	stopped := fmt.Sprintf(`{"id": %q, "template-name": "jupyter", "status": "deleted", "reason": "Stopped", "message": %q}`, kubetest.ID(2), launch.StoppedMessage)
	for id, want := range map[string]string{
		kubetest.ID(2): stopped,
		kubetest.ID(5): want[4], // it has ended already and keeps its reason
	} {
		launcher := &fakeLauncher{}
		wantJSON(t, ask(newTestAPI(c.Cache, launcher).Routes(), "DELETE", "/applications/jupyter/"+id, "", withKey...), want)
		if !slices.Equal(launcher.stops, []string{"jupyter/" + id}) {
			t.Errorf("stopped %v, want %s once", launcher.stops, id)
		}
	}
}

func TestKeepAliveRequest(t *testing.T) {
	c, want := oneOfEach(t)
	api := newTestAPI(c.Cache, &fakeLauncher{})
	var asked []string
	var fails error
	api.KeepAlive = func(_ context.Context, id string, timeout time.Duration) error {
		asked = append(asked, id+" "+timeout.String())
		return fails
	}
	routes := api.Routes()
	target := "/applications/jupyter/" + kubetest.ID(2) + "/keep-alive"
	public := regexp.MustCompile(`, "detail": "[^"]*"`).ReplaceAllString(want[1], "")
	wantJSON(t, ask(routes, "POST", target, ""), public)
	wantJSON(t, ask(routes, "POST", target, `{"cullTimeout": "120000", "template-name": "ignored"}`), public)
	wantEqual(t, "asked for", strings.Join(asked, ", "), kubetest.ID(2)+" 0s, "+kubetest.ID(2)+" 2m0s")
	fails = instance.ErrTooSoon
	if res := ask(routes, "POST", target, ""); res.Code != 429 || res.Header().Get("Retry-After") != "5" || !strings.Contains(res.Body.String(), `"limit":"keep-alive"`) {
		t.Errorf("too soon: got %d %v %s", res.Code, res.Header(), res.Body)
	}
	fails = instance.ErrEnded
	for _, row := range []struct {
		method, target, body string
		code                 int
		says                 string
	}{
		{"POST", target, "", 410, "the instance has ended"},
		{"POST", target, `{"cull-timeout": 1}`, 422, "cull-timeout must be at least"},
		{"POST", "/applications/other/" + kubetest.ID(2) + "/keep-alive", "", 404, "noRecord"},
		{"GET", target, "", 405, "the method must be one of POST"},
	} {
		if res := ask(routes, row.method, row.target, row.body); res.Code != row.code || !strings.Contains(res.Body.String(), row.says) {
			t.Errorf("%s %s %s: got %d %s", row.method, row.target, row.body, res.Code, res.Body)
		}
	}
}

func TestNoRecord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startCache(t, time.Now, kubetest.Pod(kubetest.ID(1), time.Now()))
		for _, path := range []string{
			"/applications/jupyter/" + kubetest.ID(2), // unknown
			"/applications/rstudio/" + kubetest.ID(1), // of another template
			"/applications/Jupyter/" + kubetest.ID(1),
			"/applications/jupyter/not-an-id",
			"/applications/jupyter/" + strings.ToUpper(kubetest.ID(0xa)),
			"/applications/jupyter/" + kubetest.ID(1)[1:],
			"/applications/jupyter/" + kubetest.ID(1) + "0",
			"/applications/jupyter/" + kubetest.ID(1) + "%0A",
		} {
			launcher := &fakeLauncher{}
			routes := newTestAPI(c.Cache, launcher).Routes()
			wantError(t, ask(routes, "GET", path, ""), 404, "noRecord")
			wantError(t, ask(routes, "DELETE", path, "", withKey...), 404, "noRecord")
			if len(launcher.stops) > 0 {
				t.Errorf("DELETE %s stopped %v", path, launcher.stops)
			}
		}
	})
}

// A client gets a location only while the instance listens.
func TestLocationIsOfWhatListens(t *testing.T) {
	c := startCache(t, kubetest.ClockAt(kubetest.Noon))
	routes := newTestAPI(c.Cache, &fakeLauncher{}).Routes()
	for _, row := range []struct {
		name   string
		change func(*corev1.Pod)
		has    bool
	}{
		{"unscheduled", kubetest.Unscheduled, false}, {"starting", kubetest.Starting, false}, {"ready", kubetest.All(), true},
		{"broken", kubetest.Broken, false}, {"deleting", kubetest.Deleting, false},
	} {
		c.put(t, kubetest.Pod(kubetest.ID(1), kubetest.Noon, row.change))
		res := ask(routes, "GET", firstPath, "")
		if has := strings.Contains(res.Body.String(), `"location"`); res.Code != http.StatusOK || has != row.has {
			t.Errorf("%s: got %d %s, want a location: %t", row.name, res.Code, res.Body, row.has)
		}
	}
}

// Every endpoint answers every method, with and without slashes at the end of its path.
// Only POST launches and only DELETE stops.
func TestRoutes(t *testing.T) {
	const all, template, preload = "/applications", "/applications/jupyter", "/preload/jupyter"
	c := startCache(t, kubetest.ClockAt(kubetest.Noon), kubetest.Pod(kubetest.ID(1), kubetest.Noon))
	for _, row := range []struct {
		methods, path string
		code          int
		allow         string
	}{
		{"GET HEAD POST", all, 200, ""},
		{"PUT DELETE PATCH OPTIONS BREW get", all, 405, "GET, POST"},
		{"GET HEAD POST", template, 200, ""},
		{"PUT DELETE OPTIONS", template, 405, "GET, POST"},
		{"GET HEAD DELETE", firstPath, 200, ""},
		{"POST PUT OPTIONS", firstPath, 405, "GET, DELETE"},
		{"GET HEAD POST", preload, 200, ""},
		{"DELETE", preload, 405, "GET, POST"},
		{"GET HEAD", "/admin", 200, ""},
		{"GET HEAD", "/admin/state", 200, ""},
		{"POST DELETE OPTIONS", "/admin/state", 405, "GET"},
		{"GET", "/admin/other", 404, ""},
		{"GET POST HEAD OPTIONS", "/", 404, ""},
		{"GET", "/application", 404, ""},
		{"GET", "/Applications", 404, ""},
		{"GET", firstPath + "/logs", 404, ""},
		{"POST", "/stop", 404, ""},
		{"POST", "/preload", 404, ""},
		{"GET", "/preload/jupyter/nodes", 404, ""},
		// These belong to the other listeners.
		{"GET", "/metrics", 404, ""},
		{"GET", "/readyz", 404, ""},
		{"GET", "/user/" + kubetest.ID(1), 404, ""},
	} {
		for method := range strings.FieldsSeq(row.methods) {
			for _, slashes := range []string{"", "/", "//"} {
				if row.path == "/" && slashes != "" {
					continue
				}
				launcher := &fakeLauncher{}
				res := ask(newTestAPI(c.Cache, launcher).Routes(), method, row.path+slashes, `{"template-name": "jupyter"}`, withKey...)
				if row.code != 200 {
					wantError(t, res, row.code, "malformedRequest")
				}
				if got := res.Header().Get("Allow"); res.Code != row.code || got != row.allow {
					t.Errorf("%s %s: got %d, allowed %q; want %d and %q: %s", method, row.path+slashes, res.Code, got, row.code, row.allow, res.Body)
				}
				launches, stops := 0, 0
				switch {
				case method == "POST" && (row.path == all || row.path == template):
					launches = 1
				case method == "DELETE" && row.path == firstPath:
					stops = 1
				}
				if len(launcher.launches) != launches || len(launcher.stops) != stops {
					t.Errorf("%s %s: launched %v, stopped %v", method, row.path+slashes, launcher.launches, launcher.stops)
				}
			}
		}
	}
}

// Paths that the mux would redirect to a cleaner path get a JSON error: a client that
// posts does not follow redirects.
func TestNoRedirects(t *testing.T) {
	c := startCache(t, kubetest.ClockAt(kubetest.Noon), kubetest.Pod(kubetest.ID(1), kubetest.Noon))
	for _, path := range []string{
		"//", "//applications", "/applications//" + kubetest.ID(1), "//applications/jupyter", "/./applications", "/x/../applications",
		"/applications/.", "/applications/..", "/applications/jupyter/..", "/applications/jupyter/../" + kubetest.ID(1),
	} {
		for _, method := range []string{"GET", "POST", "DELETE"} {
			launcher := &fakeLauncher{}
			res := ask(newTestAPI(c.Cache, launcher).Routes(), method, path, `{"template-name": "jupyter"}`, withKey...)
			wantError(t, res, http.StatusNotFound, "malformedRequest")
			if len(launcher.launches)+len(launcher.stops) > 0 {
				t.Errorf("%s %s: launched %v, stopped %v", method, path, launcher.launches, launcher.stops)
			}
		}
	}
}

func TestHeadHasNoBody(t *testing.T) {
	c := startCache(t, kubetest.ClockAt(kubetest.Noon), kubetest.Pod(kubetest.ID(1), kubetest.Noon))
	server := httptest.NewServer(newTestAPI(c.Cache, &fakeLauncher{}).Routes())
	defer server.Close()
	for path, code := range map[string]int{firstPath: 200, "/applications": 200, "/applications/jupyter/not-an-id": 404} {
		if got := call(t, "HEAD", server.URL+path, ""); got.code != code || got.body != "" {
			t.Errorf("HEAD %s: got %d %q, want %d and no body", path, got.code, got.body, code)
		}
	}
}

// A long list is compressed for clients that accept that. A HEAD says the same without the
// body.
func TestListsAreCompressed(t *testing.T) {
	api := newTestAPI(filledCache(t, 100), &fakeLauncher{})
	api.AllowOrigins = []string{"https://hub.example"}
	server := httptest.NewServer(api.Routes())
	defer server.Close()
	get := func(method, accepts string) answer {
		r := httptest.NewRequestWithContext(t.Context(), method, server.URL+"/applications/", nil)
		r.Header.Set("Authorization", testAPIKey)
		r.Header.Set("Accept-Encoding", accepts)
		res, err := http.DefaultTransport.RoundTrip(r)
		noError(t, err)
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		noError(t, err)
		return answer{res.StatusCode, res.Header, string(body)}
	}
	plain, compressed := get("GET", "identity"), get("GET", "gzip")
	reader, err := gzip.NewReader(strings.NewReader(compressed.body))
	noError(t, err)
	text, err := io.ReadAll(reader)
	noError(t, err)
	if string(text) != plain.body || !json.Valid(text) || len(compressed.body) > len(text)/4 {
		t.Errorf("%d bytes are sent as %d, which hold %d", len(plain.body), len(compressed.body), len(text))
	}
	for accepts, want := range map[string]string{"gzip": "gzip", "gzip;q=0": "", "identity": ""} {
		for _, method := range []string{"GET", "HEAD"} {
			got := get(method, accepts)
			wantEqual(t, method+" with "+accepts+": Content-Encoding", got.header.Get("Content-Encoding"), want)
			wantEqual(t, method+" with "+accepts+": Vary", strings.Join(got.header.Values("Vary"), ", "), "Origin, Accept-Encoding")
			wantEqual(t, method+" with "+accepts+": has a body", got.body != "", method == "GET")
		}
	}
	res := ask(api.Routes(), "GET", firstPath, "", "Accept-Encoding", "gzip")
	wantEqual(t, "Content-Encoding of a status", res.Header().Get("Content-Encoding"), "")
}

// Lists and stops need the key. A launch, and the status of a known id, do not.
func TestAuthorisation(t *testing.T) {
	c := startCache(t, kubetest.ClockAt(kubetest.Noon), kubetest.Pod(kubetest.ID(1), kubetest.Noon))
	for header, allowed := range map[string]bool{
		testAPIKey: true, "Bearer " + testAPIKey: true, "": false, "wrong": false, "Basic " + testAPIKey: false,
	} {
		launcher := &fakeLauncher{}
		routes := newTestAPI(c.Cache, launcher).Routes()
		for _, request := range []string{"GET /applications", "GET /applications/jupyter/", "HEAD /applications", "GET /admin/state", "DELETE " + firstPath} {
			method, path, _ := strings.Cut(request, " ")
			res := ask(routes, method, path, "", "Authorization", header)
			switch {
			case allowed && res.Code != http.StatusOK:
				t.Errorf("%s with %q: got %d, want 200", request, header, res.Code)
			case !allowed:
				wantError(t, res, http.StatusForbidden, "unauthorized")
			}
		}
		if stopped := len(launcher.stops) > 0; stopped != allowed {
			t.Errorf("with %q: stopped is %t, want %t", header, stopped, allowed)
		}
		for _, request := range []string{"GET " + firstPath, "POST /applications/jupyter"} {
			method, path, _ := strings.Cut(request, " ")
			if res := ask(routes, method, path, "", "Authorization", header); res.Code != http.StatusOK {
				t.Errorf("%s with %q: got %d, want 200", request, header, res.Code)
			}
		}
		for _, query := range []string{"api-key", "Authorization"} {
			res := ask(routes, "GET", "/applications?"+query+"="+testAPIKey, "")
			wantError(t, res, http.StatusForbidden, "unauthorized")
		}
	}
}

// The page of another site launches nothing and stops nothing, whatever a browser of any
// age sends for it. Programs send neither Origin nor Sec-Fetch-Site.
func TestOtherSitesCannotLaunch(t *testing.T) {
	c := startCache(t, kubetest.ClockAt(kubetest.Noon), kubetest.Pod(kubetest.ID(1), kubetest.Noon))
	trusted := []string{"https://hub.example"}
	for _, row := range []struct {
		name   string
		allow  []string
		header []string
		passes bool
	}{
		{"a program", nil, nil, true},
		{"a program with a form", nil, []string{"Content-Type", "application/x-www-form-urlencoded"}, true},
		{"a form of another site", nil, []string{"Sec-Fetch-Site", "cross-site", "Origin", "https://evil.example"}, false},
		{"plain text of another site", nil, []string{"Sec-Fetch-Site", "cross-site", "Content-Type", "text/plain"}, false},
		{"another port or name of the same site", nil, []string{"Sec-Fetch-Site", "same-site", "Origin", "http://example.com:8000"}, false},
		{"an old browser", nil, []string{"Origin", "http://evil.example"}, false},
		{"an old browser, another port", nil, []string{"Origin", "http://example.com:8000"}, false},
		{"a sandboxed frame", nil, []string{"Origin", "null"}, false},
		{"the API's own origin", nil, []string{"Sec-Fetch-Site", "same-origin", "Origin", "http://example.com"}, true},
		{"the API's own origin, an old browser", nil, []string{"Origin", "http://example.com"}, true},
		{"the visitor", nil, []string{"Sec-Fetch-Site", "none"}, true},
		{"a trusted site", trusted, []string{"Sec-Fetch-Site", "cross-site", "Origin", "https://hub.example"}, true},
		{"an old browser on a trusted site", trusted, []string{"Origin", "https://hub.example"}, true},
		{"not the trusted site", trusted, []string{"Sec-Fetch-Site", "cross-site", "Origin", "https://hub.example.evil.example"}, false},
		{"the trusted name without TLS", trusted, []string{"Sec-Fetch-Site", "cross-site", "Origin", "http://hub.example"}, false},
		{"any site is trusted", []string{"*"}, []string{"Sec-Fetch-Site", "cross-site", "Origin", "https://evil.example"}, true},
	} {
		for _, request := range []string{"POST /applications", "POST /applications/jupyter", "POST /applications/jupyter/", "DELETE " + firstPath, "PUT " + firstPath} {
			launcher := &fakeLauncher{}
			api := newTestAPI(c.Cache, launcher)
			api.AllowOrigins = row.allow
			method, path, _ := strings.Cut(request, " ")
			res := ask(api.Routes(), method, path, `{"template-name": "jupyter"}`, append(row.header, withKey...)...)
			if !row.passes {
				wantError(t, res, http.StatusForbidden, "unauthorized")
			}
			if acted := len(launcher.launches)+len(launcher.stops) > 0; acted != (row.passes && method != "PUT") {
				t.Errorf("%s, %s: launched %v, stopped %v", row.name, request, launcher.launches, launcher.stops)
			}
		}
		api := newTestAPI(c.Cache, nil)
		if res := ask(api.Routes(), "GET", firstPath, "", row.header...); res.Code != http.StatusOK {
			t.Errorf("%s: a GET got %d, want 200", row.name, res.Code)
		}
	}
}

func TestPreloadRequests(t *testing.T) {
	loading := fakePreloader{known: true, progress: preload.Progress{Template: "x", Started: kubetest.Noon, Status: preload.Loading, Done: 1, ToDo: 2}}
	failed := fakePreloader{known: true, progress: preload.Progress{Template: "x", Started: kubetest.Noon, Status: preload.Failed, ToDo: 1, Reason: "ImagePullBackOff", Message: "node a: no"}}
	const begun = `{"template": {"name": "x", "image-source": "app:1", "port": 8888, "images": ["app:1"]}}`
	for _, row := range []struct {
		name, method, path, key string
		fake                    fakePreloader
		code                    int
		want, calls             string // want is the JSON of a 200, and the type of an error
	}{
		{"begin", "POST", "/preload/x", testAPIKey, fakePreloader{}, 200, begun, "preload x"},
		{"trailing slash", "POST", "/preload/x/", testAPIKey, fakePreloader{}, 200, begun, "preload x"},
		{"begin without the key", "POST", "/preload/x", "", fakePreloader{}, 403, "unauthorized", ""},
		{"unknown template", "POST", "/preload/x", testAPIKey, fakePreloader{err: podtemplate.ErrUnknown}, 404, "registryError", "preload x"},
		{"bad template", "POST", "/preload/x", testAPIKey, fakePreloader{err: &podtemplate.Error{Template: "x", Use: "preloaded", Err: errors.New("secret")}}, 500, "badKubeRequest", "preload x"},
		{"loading", "GET", "/preload/x", testAPIKey, loading, 200,
			`{"name": "x", "start-time": "2026-01-02T12:00:00Z", "status": "loading", "nodes-done": 1, "nodes-to-do": 2}`, "status x"},
		{"failed", "GET", "/preload/x", testAPIKey, failed, 200,
			`{"name": "x", "start-time": "2026-01-02T12:00:00Z", "status": "failed", "nodes-done": 0, "nodes-to-do": 1, "reason": "ImagePullBackOff", "message": "node a: no"}`, "status x"},
		{"never preloaded", "GET", "/preload/x", testAPIKey, fakePreloader{}, 200, `{}`, "status x"},
		{"status of an unknown template", "GET", "/preload/x", testAPIKey, fakePreloader{err: podtemplate.ErrUnknown}, 404, "registryError", "status x"},
		{"status without the key", "GET", "/preload/x", "wrong", fakePreloader{}, 403, "unauthorized", ""},
		{"no template", "POST", "/preload/", testAPIKey, fakePreloader{}, 404, "malformedRequest", ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			api := newTestAPI(nil, nil)
			api.Preloader = &row.fake
			res := ask(api.Routes(), row.method, row.path, "", "Authorization", row.key)
			if row.code == 200 {
				wantJSON(t, res, row.want)
			} else if message := wantError(t, res, row.code, row.want); strings.Contains(message, "secret") {
				t.Errorf("the client is told %q", message)
			}
			if calls := strings.Join(row.fake.calls, ", "); calls != row.calls {
				t.Errorf("the preloader got the calls %q, want %q", calls, row.calls)
			}
		})
	}
}

// What a client sends does not become a label: it could make any number of series.
func TestRequestsAreCountedUnderClosedLabels(t *testing.T) {
	c := startCache(t, kubetest.ClockAt(kubetest.Noon), kubetest.Pod(kubetest.ID(1), kubetest.Noon))
	api := newTestAPI(c.Cache, &fakeLauncher{})
	routes := api.Routes()
	for _, request := range []string{
		"GET " + firstPath, "GET " + firstPath + "/", "HEAD " + firstPath, "GET /applications/other/not-an-id",
		"BREW /applications", "X-1 /applications", "X-2 /applications", "POST /applications/a", "POST /applications/b",
		"GET /wp-login.php", "GET /.env",
	} {
		method, path, _ := strings.Cut(request, " ")
		ask(routes, method, path, "")
	}
	wantMetrics(t, api.Metrics, "binder_http_requests_total", `
binder_http_requests_total{code="200",method="get",route="/applications/{template}/{id}",server="api"} 2
binder_http_requests_total{code="200",method="head",route="/applications/{template}/{id}",server="api"} 1
binder_http_requests_total{code="200",method="post",route="/applications/{template}",server="api"} 2
binder_http_requests_total{code="404",method="get",route="/",server="api"} 2
binder_http_requests_total{code="404",method="get",route="/applications/{template}/{id}",server="api"} 1
binder_http_requests_total{code="405",method="unknown",route="/applications",server="api"} 3`)
	wantEqual(t, "series of durations", strings.Count(scrape(t, api.Metrics, "binder_http_request_duration_seconds_count"), "\n")+1, 6)
}
