package main

import (
	"bufio"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
)

// readBuild asks for a stream of a launch, and reads it until an event whose id is good. It
// returns the id.
func readBuild(t *testing.T, a *app, last string, good func(id string) bool) string {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, a.url(proxyServer, "/build/gh/org/repo/HEAD"), nil)
	noError(t, err)
	r.Header.Set("Accept", "text/event-stream")
	if last != "" {
		r.Header.Set("Last-Event-ID", last)
	}
	res, err := http.DefaultTransport.RoundTrip(r)
	noError(t, err)
	defer res.Body.Close() // this cuts the connection
	lines := bufio.NewScanner(res.Body)
	for lines.Scan() {
		if id, ok := strings.CutPrefix(lines.Text(), "id: "); ok && good(id) {
			return id
		}
	}
	t.Fatalf("the stream has ended: %v", lines.Err())
	return ""
}

// A client whose connection is cut as soon as it has read the first event comes back to any
// replica, and finds the instance or launches it: there is one pod.
func TestAppLaunchesOnceForAClientThatComesBack(t *testing.T) {
	server := kubetest.NewServer(time.Now, kubetest.Template("org-repo"))
	var replicas []*app
	for range 2 {
		a := newTestApp(t, server.Client, kubetest.NoLog(), "--launch-rate=0")
		stop := runApp(t, a)
		defer func() { noError(t, stop()) }()
		awaitCode(t, a.url(metricsServer, "/readyz"), 200)
		replicas = append(replicas, a)
	}
	var ids []string
	for i := range 10 {
		key := readBuild(t, replicas[i%2], "", func(string) bool { return true })
		if instance.ValidID(key) {
			t.Fatalf("the first event has the id %q of an instance: it comes before the launch", key)
		}
		id := readBuild(t, replicas[(i+1)%2], key, instance.ValidID)
		if again := readBuild(t, replicas[i%2], key, instance.ValidID); again != id {
			t.Errorf("the key leads to %s at one replica and to %s at the other", id, again)
		}
		ids = append(ids, id)
	}
	pods := server.WritesOf("create", "pods") // also those that the API server has refused, because there is such a pod
	slices.Sort(ids)
	slices.Sort(pods)
	if got, want := len(slices.Compact(pods)), len(slices.Compact(ids)); got != 10 || want != 10 {
		t.Errorf("10 clients have %d instances, and %d pods were launched", want, got)
	}
}
