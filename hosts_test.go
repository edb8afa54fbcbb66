package main

import (
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/binder-project/binder-deploy-kubernetes/internal/binderhub"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
)

// TestAppAtEveryHost asks every port for everything, as every host.
func TestAppAtEveryHost(t *testing.T) {
	notebook := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer notebook.Close()
	id := kubetest.ID(1)
	pod := kubetest.Pod(id, time.Now().Add(-time.Minute), listensAt(t, notebook.Listener.Addr()))
	const main, domain = "hub.example", ".users.example:8443"
	a := newTestApp(t, kubetest.NewServer(time.Now, pod, kubetest.Template("jupyter")).Client, kubetest.NoLog(),
		"--public-host="+main+":8443", "--instance-domain=users.example:8443")
	stop := runApp(t, a)
	awaitCode(t, a.url(metricsServer, "/readyz"), 200)
	user := "/user/" + id + "/"
	own := []string{id + domain, id + ".Users.Example", id + ".users.example.:1", "www" + domain, "a." + id + domain, "users.example"}
	for _, row := range []struct {
		hosts                []string
		server               int
		method, path, origin string
		code                 int
		says                 string
	}{
		{[]string{main, main + ":1", "HUB.example."}, proxyServer, "GET", "/launch/jupyter", "", 200, "Launch jupyter"},
		{[]string{main}, proxyServer, "POST", "/launch/jupyter", "http://hub.example", 303, ""},
		{[]string{main}, proxyServer, "GET", user, "", 307, ""},
		{[]string{"evil.example", "10.0.0.7", "[::1]:80", ""}, proxyServer, "GET", "/launch/jupyter", "", 421, "not at this host"},
		{[]string{"evil.example"}, proxyServer, "POST", "/launch/jupyter", "http://evil.example", 421, ""},
		{[]string{"evil.example"}, proxyServer, "GET", "/progress/" + id, "", 421, ""},
		{own, proxyServer, "GET", "/launch/jupyter", "", 404, "nothing at this address"},
		{own, proxyServer, "POST", "/launch/jupyter", "", 404, ""},
		{own, proxyServer, "GET", "/progress/" + id, "", 404, "nothing at this address"},
		{own, proxyServer, "GET", "/applications/", "", 404, ""},
		{own, proxyServer, "GET", "/healthz", "", 404, ""},
		{own[:1], proxyServer, "GET", user, "", 200, ""},
		{own, apiServer, "GET", "/applications/", "", 421, ""},
		{own, apiServer, "POST", "/applications/jupyter", "", 421, ""},
		{own, apiServer, "GET", "/admin/", "", 421, ""},
		{own, metricsServer, "GET", "/metrics", "", 421, ""},
		{own, metricsServer, "GET", "/healthz", "", 421, ""},
		{[]string{"api.example", main}, apiServer, "GET", "/applications/jupyter/" + id, "", 200, id + domain + "/user/" + id},
		{[]string{"api.example", main}, apiServer, "POST", "/applications/jupyter", "", 200, ""},
		{[]string{main + ":8084"}, apiServer, "POST", "/applications/jupyter", "http://hub.example:8084", 200, ""},
		{[]string{"evil.example:8084"}, apiServer, "POST", "/applications/jupyter", "http://evil.example:8084", 403, "another site"},
		{[]string{"127.0.0.1:8084"}, apiServer, "GET", "/admin/", "", 200, "What runs"},
		{[]string{"127.0.0.1:8084"}, apiServer, "DELETE", "/applications/jupyter/" + kubetest.ID(9), "http://127.0.0.1:8084", 404, "no"},
		{[]string{"127.0.0.1:8084"}, apiServer, "DELETE", "/applications/jupyter/" + id, "http://evil.example:8084", 403, "another site"},
		{[]string{"10.0.0.7"}, metricsServer, "GET", "/healthz", "", 200, ""},
	} {
		for _, host := range row.hosts {
			r := httptest.NewRequest(row.method, row.path, nil)
			r.Host = host
			r.Header.Set("Accept", "text/html")
			r.Header.Set("Authorization", testAPIKey)
			if row.origin != "" {
				r.Header.Set("Origin", row.origin)
			}
			w := httptest.NewRecorder()
			a.servers[row.server].http.Handler.ServeHTTP(w, r)
			if w.Code != row.code || !strings.Contains(w.Body.String(), row.says) {
				t.Errorf("%s %s at %q on %s: got %d %.300s, want %d with %q", row.method, row.path, host, a.servers[row.server].name, w.Code, w.Body, row.code, row.says)
			}
		}
	}
	noError(t, stop())
}

// What clients of BinderHub ask for is there by default, at the public port and the main host
// only, and the flags hide it.
func TestAppIsABinderHub(t *testing.T) {
	const main, domain = "hub.example", "users.example"
	paths := map[string]int{
		"/build/gh/org/repo/HEAD": 302, "/v2/gh/org/repo/HEAD": 302, "/repo/org/repo": 302,
		"/versions": 200, "/health": 200, "/badge.svg": 200, "/badge_logo.svg": 200,
	}
	for _, path := range binderhub.Paths() {
		path := strings.TrimSuffix(path, "/")
		served := func(request string) bool { return request == path || strings.HasPrefix(request, path+"/") }
		if !slices.ContainsFunc(slices.Collect(maps.Keys(paths)), served) {
			t.Errorf("nothing is asked of %s", path)
		}
	}
	for _, test := range []struct {
		flag string
		on   bool
	}{{"--binderhub", true}, {"--queue", true}, {"--binderhub=false", false}, {"--launch-page=false", false}} {
		a := newTestApp(t, kubetest.NewServer(time.Now, kubetest.Template("org-repo")).Client, kubetest.NoLog(), "--public-host="+main, "--instance-domain="+domain, test.flag)
		stop := runApp(t, a)
		awaitCode(t, a.url(metricsServer, "/readyz"), 200)
		foreign := 404 // as for every path that is not ours
		if test.on {
			foreign = 421
		}
		for path, code := range paths {
			if !test.on {
				code = 404
			}
			for host, want := range map[string]int{main: code, "evil.example": foreign, kubetest.ID(1) + "." + domain: 404, "www." + domain: 404} {
				got := ask(a.servers[proxyServer].http.Handler, "GET", "http://"+host+path, "", "Accept", "text/html")
				if got.Code != want {
					t.Errorf("%s: %s at %s: got %d %.200s, want %d", test.flag, path, host, got.Code, got.Body, want)
				}
			}
			for _, server := range []int{apiServer, metricsServer} {
				if got := ask(a.servers[server].http.Handler, "GET", "http://"+main+path, ""); got.Code != 404 {
					t.Errorf("%s: %s on %s: got %d", test.flag, path, a.servers[server].name, got.Code)
				}
			}
		}
		noError(t, stop())
	}
}
