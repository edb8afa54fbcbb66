package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"

	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"

	"github.com/binder-project/binder-deploy-kubernetes/internal/podtemplate"

	"github.com/binder-project/binder-deploy-kubernetes/internal/launch"

	"github.com/binder-project/binder-deploy-kubernetes/internal/protocol"
)

// testAPIKey is the key of every API in these tests.
const (
	testAPIKey     = "5f2e0c6ab1d94e33"
	testMaxTimeout = 24 * time.Hour
)

// fakeReader is a read model that holds what a test puts into it and waits for
// nothing.
type fakeReader []instance.Instance

func (f fakeReader) Instances(template string) []instance.Instance {
	return slices.DeleteFunc(slices.Clone(f), func(inst instance.Instance) bool { return template != "" && inst.Template != template })
}

func (f fakeReader) Await(_ context.Context, id string, _ func(instance.Instance, bool) bool) (instance.Instance, bool) {
	i := slices.IndexFunc(f, func(inst instance.Instance) bool { return inst.ID == id })
	if i < 0 {
		return instance.Instance{}, false
	}
	return f[i], true
}

// fakeLauncher notes what it is asked to do.
type fakeLauncher struct {
	err      error // what every call comes to
	launches []fakeLaunch
	stops    []string // as template/id
}

type fakeLaunch struct {
	template    string
	cullTimeout time.Duration
}

func (f *fakeLauncher) Launch(_ context.Context, req launch.Request) (string, error) {
	f.launches = append(f.launches, fakeLaunch{req.Template, req.CullTimeout})
	return kubetest.ID(0xf), f.err
}

func (f *fakeLauncher) Stop(_ context.Context, template, id string) error {
	f.stops = append(f.stops, template+"/"+id)
	return f.err
}

// newTestAPI is an API over fakes; its locations tell the host of the request.
func newTestAPI(reader InstanceReader, launcher InstanceLauncher) *API {
	return &API{
		Instances: reader, Launcher: launcher, Key: protocol.NewAPIKey(testAPIKey), MaxCullTimeout: testMaxTimeout,
		Location: func(id, requestHost string) string { return requestHost + "/user/" + id },
		Metrics:  newTestMetrics(), Log: kubetest.NoLog(),
		Preloader: &fakePreloader{}, Draining: context.Background(),
	}
}

// ask sends one request; key is the Authorization header, "" for none.
func ask(t testing.TB, h http.Handler, method, target, key, body string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	r.Host = "binder.example:8084"
	if key != "" {
		r.Header.Set("Authorization", key)
	}
	res := httptest.NewRecorder()
	h.ServeHTTP(res, r)
	return res
}

// wantJSON checks an answer of 200 and its whole body.
func wantJSON(t testing.TB, res *httptest.ResponseRecorder, want string) {
	t.Helper()
	var got, wanted any
	if err := json.Unmarshal([]byte(want), &wanted); err != nil {
		t.Fatal(err)
	}
	err := json.Unmarshal(res.Body.Bytes(), &got)
	if res.Code != http.StatusOK || err != nil || !reflect.DeepEqual(got, wanted) {
		t.Errorf("got %d %s, want 200 %s", res.Code, res.Body, want)
	}
	if got := res.Header().Get("Content-Type"); got != "application/json" {
		t.Errorf("Content-Type is %q", got)
	}
}

func TestDeploy(t *testing.T) {
	const minute = time.Minute
	for _, row := range []struct {
		name, target, body string
		want               fakeLaunch
	}{
		{"as binder-client does", "/applications/", `{"template-name": "jupyter", "cull-timeout": 60000}`, fakeLaunch{"jupyter", minute}},
		{"with the name in the path", "/applications/jupyter", ``, fakeLaunch{"jupyter", 0}},
		{"with an empty object", "/applications/jupyter", `{}`, fakeLaunch{"jupyter", 0}},
		{"with a timeout from the command line", "/applications/jupyter/", `{"cull-timeout": "60000"}`, fakeLaunch{"jupyter", minute}},
		{"with no timeout", "/applications", `{"templateName": "jupyter", "cullTimeout": null}`, fakeLaunch{"jupyter", 0}},
		{"with the name in both", "/applications/jupyter", `{"template-name": "jupyter"}`, fakeLaunch{"jupyter", 0}},
		{"with an empty name in the body", "/applications/jupyter", `{"template-name": ""}`, fakeLaunch{"jupyter", 0}},
		{"with an escaped name", "/applications/caf%C3%A9%2F1", ``, fakeLaunch{"café/1", 0}},
		{"with a name the path escapes and the body does not", "/applications/a%20b", `{"template_name": "a b"}`, fakeLaunch{"a b", 0}},
		{"with a query that says otherwise", "/applications/jupyter?template-name=other&cull-timeout=1", ``, fakeLaunch{"jupyter", 0}},
	} {
		t.Run(row.name, func(t *testing.T) {
			launcher := &fakeLauncher{}
			res := ask(t, newTestAPI(fakeReader{}, launcher).Routes(), http.MethodPost, row.target, "", row.body)
			wantJSON(t, res, fmt.Sprintf(`{"id": %q}`, kubetest.ID(0xf)))
			if !slices.Equal(launcher.launches, []fakeLaunch{row.want}) {
				t.Errorf("launched %v, want %v once", launcher.launches, row.want)
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
		{"no name at all", "/applications", `{"cull-timeout": 60000}`, 422, "template-name is missing"},
		{"no body", "/applications/", ``, 422, "template-name is missing"},
		{"an empty name", "/applications", `{"template-name": ""}`, 422, "template-name is missing"},
		{"a name in the query", "/applications?template-name=jupyter", `{}`, 422, "template-name is missing"},
		{"a form", "/applications", `template-name=jupyter`, 422, "not a JSON object"},
		{"two names", "/applications/jupyter", `{"template-name": "rstudio"}`, 422, `"jupyter" in the path and "rstudio" in the body`},
		{"a timeout of nothing", "/applications/jupyter", `{"cull-timeout": 0}`, 422, "positive number"},
		{"a timeout too long", "/applications/jupyter", `{"cull-timeout": 86400001}`, 422, "at most 86400000"},
		{"a body too large", "/applications/jupyter", `{"x": "` + strings.Repeat("x", 64<<10) + `"}`, 413, "64 KiB"},
	} {
		t.Run(row.name, func(t *testing.T) {
			launcher := &fakeLauncher{}
			res := ask(t, newTestAPI(fakeReader{}, launcher).Routes(), http.MethodPost, row.target, "", row.body)
			if got := wantError(t, res, row.code, "malformedRequest"); !strings.Contains(got, row.says) {
				t.Errorf("the client is told %q, want %q in it", got, row.says)
			}
			if len(launcher.launches) > 0 {
				t.Errorf("launched %v all the same", launcher.launches)
			}
		})
	}
}

func TestDeployFails(t *testing.T) {
	for _, row := range []struct {
		err  error
		code int
		kind string
	}{
		{podtemplate.ErrUnknown, 404, "registryError"},
		{launch.ErrCapacity, 503, "badKubeRequest"},
		{errors.New("connection refused"), 503, "badKubeRequest"},
		{&podtemplate.Error{Template: "jupyter", Err: errors.New("it has no container")}, 500, "badKubeRequest"},
	} {
		api := newTestAPI(fakeReader{}, &fakeLauncher{err: row.err})
		wantError(t, ask(t, api.Routes(), http.MethodPost, "/applications/jupyter", "", ""), row.code, row.kind)
	}
}

// oneOfEach are instances in every status, and how the API tells of them.
func oneOfEach() (fakeReader, []string) {
	reader := fakeReader{
		{ID: kubetest.ID(1), Template: "jupyter", Status: instance.StatusPending},
		{ID: kubetest.ID(2), Template: "jupyter", Status: instance.StatusDeploying},
		{ID: kubetest.ID(3), Template: "r/studio", Status: instance.StatusDeployed, Address: "10.0.0.7:8888"},
		{ID: kubetest.ID(4), Template: "jupyter", Status: instance.StatusFailed, Reason: "StartTimeout", Message: "not ready within 5m0s"},
		{ID: kubetest.ID(5), Template: "jupyter", Status: instance.StatusDeleted, Reason: "Culled", Message: "idle for 1h0m0s"},
	}
	return reader, []string{
		fmt.Sprintf(`{"id": %q, "template-name": "jupyter", "status": "pending"}`, kubetest.ID(1)),
		fmt.Sprintf(`{"id": %q, "template-name": "jupyter", "status": "deploying"}`, kubetest.ID(2)),
		fmt.Sprintf(`{"id": %[1]q, "template-name": "r/studio", "status": "deployed", "location": "binder.example:8084/user/%[1]s"}`, kubetest.ID(3)),
		fmt.Sprintf(`{"id": %q, "template-name": "jupyter", "status": "failed", "reason": "StartTimeout", "message": "not ready within 5m0s"}`, kubetest.ID(4)),
		fmt.Sprintf(`{"id": %q, "template-name": "jupyter", "status": "deleted", "reason": "Culled", "message": "idle for 1h0m0s"}`, kubetest.ID(5)),
	}
}

func TestStatus(t *testing.T) {
	reader, want := oneOfEach()
	api := newTestAPI(reader, &fakeLauncher{})
	for i, inst := range reader {
		target := "/applications/" + strings.ReplaceAll(inst.Template, "/", "%2F") + "/" + inst.ID
		wantJSON(t, ask(t, api.Routes(), http.MethodGet, target, "", ""), want[i])
	}
}

func TestStatusOfNoRecord(t *testing.T) {
	reader := fakeReader{
		{ID: kubetest.ID(1), Template: "jupyter", Status: instance.StatusDeployed},
		{ID: "not-an-id", Template: "jupyter", Status: instance.StatusDeployed},
	}
	for _, target := range []string{
		"/applications/jupyter/" + kubetest.ID(2), // nobody's
		"/applications/rstudio/" + kubetest.ID(1), // of another template
		"/applications/Jupyter/" + kubetest.ID(1),
		"/applications/jupyter/not-an-id",
		"/applications/jupyter/" + strings.ToUpper(kubetest.ID(0xa)),
		"/applications/jupyter/" + kubetest.ID(1)[1:],
		"/applications/jupyter/" + kubetest.ID(1) + "0",
		"/applications/jupyter/" + kubetest.ID(1) + "%0A",
	} {
		launcher := &fakeLauncher{}
		routes := newTestAPI(reader, launcher).Routes()
		wantError(t, ask(t, routes, http.MethodGet, target, "", ""), 404, "noRecord")
		wantError(t, ask(t, routes, http.MethodDelete, target, testAPIKey, ""), 404, "noRecord")
		if len(launcher.stops) > 0 {
			t.Errorf("DELETE %s stopped %v", target, launcher.stops)
		}
	}
}

func TestStatusAll(t *testing.T) {
	reader, want := oneOfEach()
	api := newTestAPI(reader, &fakeLauncher{})
	for target, list := range map[string][]string{
		"/applications/":           want,
		"/applications":            want,
		"/applications/jupyter":    {want[0], want[1], want[3], want[4]},
		"/applications/r%2Fstudio": {want[2]},
		"/applications/nothing":    {}, // a list all the same, and not null
	} {
		res := ask(t, api.Routes(), http.MethodGet, target, testAPIKey, "")
		wantJSON(t, res, "["+strings.Join(list, ",")+"]")
	}
}

func TestStopRequest(t *testing.T) {
	reader, want := oneOfEach()
	stopped := fmt.Sprintf(`{"id": %q, "template-name": "jupyter", "status": "deleted", "reason": "Stopped", "message": "stopped by request"}`, kubetest.ID(2))
	for id, want := range map[string]string{
		kubetest.ID(2): stopped,
		kubetest.ID(5): want[4], // over already, and it keeps the reason that it had
	} {
		launcher := &fakeLauncher{}
		res := ask(t, newTestAPI(reader, launcher).Routes(), http.MethodDelete, "/applications/jupyter/"+id, testAPIKey, "")
		wantJSON(t, res, want)
		if !slices.Equal(launcher.stops, []string{"jupyter/" + id}) {
			t.Errorf("stopped %v, want %s once", launcher.stops, id)
		}
	}
}

func TestStopRequestFails(t *testing.T) {
	reader, _ := oneOfEach()
	target := "/applications/jupyter/" + kubetest.ID(2)
	for _, row := range []struct {
		err  error
		code int
		kind string
	}{
		{launch.ErrNoRecord, 404, "noRecord"}, // it has gone in the meantime
		{errors.New("connection refused"), 503, "badKubeRequest"},
	} {
		api := newTestAPI(reader, &fakeLauncher{err: row.err})
		wantError(t, ask(t, api.Routes(), http.MethodDelete, target, testAPIKey, ""), row.code, row.kind)
	}
}
