package main

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"net/http"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	k8stesting "k8s.io/client-go/testing"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
)

// visitor posts launches of the template jupyter, by way of a trusted proxy on this machine.
type visitor struct {
	forwarded string // the value of X-Forwarded-For
	key       string // the API key, or ""
}

func (v visitor) post(t testing.TB, a *app, server int, path string) answer {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, a.url(server, path), nil)
	noError(t, err)
	r.Close = true
	r.Header.Set("X-Forwarded-For", v.forwarded)
	if v.key != "" {
		r.Header.Set("Authorization", v.key)
	}
	res, err := http.DefaultTransport.RoundTrip(r)
	noError(t, err)
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	noError(t, err)
	return answer{res.StatusCode, res.Header, string(body)}
}

func (v visitor) api(t testing.TB, a *app) answer {
	t.Helper()
	return v.post(t, a, apiServer, "/applications/jupyter")
}

func (v visitor) page(t testing.TB, a *app) answer {
	t.Helper()
	return v.post(t, a, proxyServer, "/launch/jupyter")
}

// startLimited starts a replica on a fake API server.
func startLimited(t testing.TB, server *kubetest.Server, flags ...string) *app {
	t.Helper()
	a := newTestApp(t, server.Client, kubetest.NoLog(), append(flags, "--trusted-proxies=127.0.0.1")...)
	stop := runApp(t, a)
	t.Cleanup(func() { noError(t, stop()) })
	awaitCode(t, a.url(metricsServer, "/readyz"), 200)
	return a
}

// wantLimit checks that a launch was refused by a limit, and may be tried again between
// two times from now.
func wantLimit(t testing.TB, got answer, limit string, least, most time.Duration) {
	t.Helper()
	var body map[string]string
	err := json.Unmarshal([]byte(got.body), &body)
	if got.code != 429 || err != nil || body["type"] != "limitReached" || body["limit"] != limit || body["error"] == "" || len(body) != 3 {
		t.Errorf("got %d %s, want 429 and the limit %s", got.code, got.body, limit)
	}
	seconds, err := strconv.Atoi(got.header.Get("Retry-After"))
	if wait := time.Duration(seconds) * time.Second; err != nil || wait < least || wait > most {
		t.Errorf("Retry-After is %q, want %s to %s", got.header.Get("Retry-After"), least, most)
	}
}

// The API and the launch page of every replica count alike, also after a restart. Neither
// the pods nor the tombstones have an address.
func TestLimitsOfAClient(t *testing.T) {
	server := kubetest.NewServer(time.Now, kubetest.Template("jupyter"))
	flags := []string{"--launch-rate=3", "--max-instances-per-client=2"}
	a, b := startLimited(t, server, flags...), startLimited(t, server, flags...)
	ann := visitor{forwarded: "203.0.113.1"}

	first := ann.api(t, a)
	wantEqual(t, "the first, by the API", first.code, 200)
	wantEqual(t, "the second, by the page", ann.page(t, a).code, 303)
	wantLimit(t, ann.api(t, a), "max-instances-per-client", time.Minute, time.Minute)
	if got := ann.page(t, a); got.code != 429 || got.header.Get("Retry-After") != "60" || !strings.Contains(got.body, "at most 2 instances") {
		t.Errorf("the page: got %d %v %s, want 429 with Retry-After, and why", got.code, got.header, got.body)
	}
	kubetest.Eventually(t, "the other replica knows both", func() bool { return len(b.cache.Instances("")) == 2 })
	wantLimit(t, ann.api(t, b), "max-instances-per-client", time.Minute, time.Minute)
	wantEqual(t, "the page of the other replica", ann.page(t, b).code, 429)
	wantEqual(t, "with a made-up address", visitor{forwarded: "198.51.100.9, 203.0.113.1"}.api(t, b).code, 429)
	wantEqual(t, "another client", visitor{forwarded: "203.0.113.2"}.api(t, b).code, 200)
	for range 4 {
		wantEqual(t, "with the API key", visitor{forwarded: "203.0.113.1", key: testAPIKey}.api(t, a).code, 200)
	}
	wantEqual(t, "with a wrong key", visitor{forwarded: "203.0.113.1", key: "wrong"}.api(t, a).code, 429)

	var launched struct{ ID string }
	noError(t, json.Unmarshal([]byte(first.body), &launched))
	wantEqual(t, "a stop", call(t, "DELETE", a.url(apiServer, "/applications/jupyter/"+launched.ID), "").code, 200)
	kubetest.Eventually(t, "the tombstone is known", func() bool { _, known := a.cache.Tombstone(launched.ID); return known })
	wantEqual(t, "after a stop", ann.api(t, a).code, 200)
	wantLimit(t, ann.api(t, a), "launch-rate", 59*time.Minute, time.Hour)
	wantLimit(t, ann.api(t, startLimited(t, server, flags...)), "launch-rate", 59*time.Minute, time.Hour)
	wantEqual(t, "refusals by instances", metric(t, a.metrics, "binder_launches_total", "max_instances_per_client"), 3)
	wantEqual(t, "refusals by the rate", metric(t, a.metrics, "binder_launches_total", "launch_rate"), 1)

	pods, err := server.Client.CoreV1().Pods(kubetest.Namespace).List(t.Context(), metav1.ListOptions{})
	noError(t, err)
	events, err := server.Client.CoreV1().Events(kubetest.Namespace).List(t.Context(), metav1.ListOptions{})
	noError(t, err)
	stored, err := json.Marshal([]any{pods, events})
	noError(t, err)
	if strings.Contains(string(stored), "203.0.113") || !strings.Contains(string(stored), instance.ClientLabel) {
		t.Errorf("want hashes in place of addresses: %s", stored)
	}
}

// Nobody can launch while launches are paused, of a template or at all. What runs goes on, and
// a repeated launch finds its instance.
func TestPausedLaunches(t *testing.T) {
	for name, flags := range map[string][]string{"of a template": nil, "all": {"--pause-launches"}} {
		t.Run(name, func(t *testing.T) {
			template := kubetest.Template("jupyter")
			if flags == nil {
				kubetest.WithTemplateAnnotation(instance.MaxInstancesAnnotation, "0")(template)
			}
			server := kubetest.NewServer(time.Now, template, kubetest.Template("other"), kubetest.Pod(kubetest.ID(1), time.Now()))
			a := startLimited(t, server, flags...)
			wantLimit(t, visitor{forwarded: "203.0.113.3"}.api(t, a), "paused", time.Minute, time.Minute)
			wantLimit(t, visitor{key: testAPIKey}.api(t, a), "paused", time.Minute, time.Minute)
			wantEqual(t, "the page", visitor{forwarded: "203.0.113.4"}.page(t, a).code, 429)
			wantEqual(t, "what runs", len(a.cache.Instances("jupyter")), 1)
			if launches := server.Calls("create"); len(launches) > 0 && launches[0].GetResource().Resource == "pods" {
				t.Errorf("the writes are %v", launches)
			}
		})
	}
}

// The limits of all clients together bind holders of the API key as well.
func TestLimitsOfAll(t *testing.T) {
	for limit, flags := range map[string][]string{
		"max-instances":          {"--queue=false", "--max-instances=2"},
		"template-max-instances": {"--queue=false"},
	} {
		template := kubetest.Template("jupyter")
		if len(flags) == 1 {
			kubetest.WithTemplateAnnotation(instance.MaxInstancesAnnotation, "2")(template)
		}
		a := startLimited(t, kubetest.NewServer(time.Now, template), flags...)
		for n, v := range []visitor{{forwarded: "203.0.113.1"}, {forwarded: "203.0.113.2"}} {
			wantEqual(t, "launch "+strconv.Itoa(n), v.api(t, a).code, 200)
		}
		wantLimit(t, visitor{forwarded: "203.0.113.3"}.api(t, a), limit, time.Minute, time.Minute)
		wantLimit(t, visitor{key: testAPIKey}.api(t, a), limit, time.Minute, time.Minute)
		wantEqual(t, "the page", visitor{forwarded: "203.0.113.4"}.page(t, a).code, 429)
	}
}

// One replica keeps a limit exactly, however many launches come at the same time. Several
// replicas can exceed it by what the others launch before the watches deliver that: at
// most to the limit times the number of replicas, if the watches deliver nothing.
func TestOvershootOfLimits(t *testing.T) {
	const limit, launches = 10, 60
	for _, row := range []struct {
		name        string
		replicas    int
		blind       bool // whether the watches deliver nothing
		least, most int64
	}{
		{"one replica", 1, false, limit, limit},
		{"one replica without a watch", 1, true, limit, limit},
		{"three replicas", 3, false, limit, 3 * limit},
		{"three replicas without watches", 3, true, 3 * limit, 3 * limit},
	} {
		server := kubetest.NewServer(time.Now, kubetest.Template("jupyter"))
		if row.blind {
			server.Client.PrependWatchReactor("pods", func(k8stesting.Action) (bool, watch.Interface, error) {
				return true, watch.NewRaceFreeFake(), nil
			})
		}
		var replicas []*app
		for range row.replicas {
			replicas = append(replicas, startLimited(t, server, "--max-instances-per-client="+strconv.Itoa(limit), "--launch-rate=0"))
		}
		var launched atomic.Int64
		var posts sync.WaitGroup
		for n := range launches {
			posts.Go(func() {
				if got := (visitor{forwarded: "203.0.113.1"}).api(t, replicas[n%len(replicas)]); got.code == 200 {
					launched.Add(1)
				}
			})
		}
		posts.Wait()
		t.Logf("%s: %d of %d launches at once succeeded, the limit is %d", row.name, launched.Load(), launches, limit)
		if got := launched.Load(); got < row.least || got > row.most {
			t.Errorf("%s: %d were launched, want %d to %d", row.name, got, row.least, row.most)
		}
		if row.blind {
			continue
		}
		for _, a := range replicas {
			kubetest.Eventually(t, "the replica knows all", func() bool { return len(a.cache.Instances("")) == int(launched.Load()) })
			wantEqual(t, row.name+": one more", visitor{forwarded: "203.0.113.1"}.api(t, a).code, 429)
		}
	}
}

// Every transport bounds the head of an answer: Go's default is 10 MiB, and applications and
// registries are strangers.
func TestTransportsBoundHeads(t *testing.T) {
	found := 0
	noError(t, filepath.WalkDir("internal", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		noError(t, err)
		ast.Inspect(file, func(n ast.Node) bool {
			if selector, ok := n.(*ast.SelectorExpr); ok && selector.Sel.Name == "DefaultTransport" || ok && selector.Sel.Name == "DefaultClient" {
				t.Errorf("%s uses http.%s", path, selector.Sel.Name)
			}
			literal, ok := n.(*ast.CompositeLit)
			if !ok {
				return true
			}
			if kind, ok := literal.Type.(*ast.SelectorExpr); !ok || kind.Sel.Name != "Transport" {
				return true
			}
			found++
			if !slices.ContainsFunc(literal.Elts, func(element ast.Expr) bool {
				field, ok := element.(*ast.KeyValueExpr)
				return ok && field.Key.(*ast.Ident).Name == "MaxResponseHeaderBytes"
			}) {
				t.Errorf("%s: a transport has no MaxResponseHeaderBytes", path)
			}
			return true
		})
		return nil
	}))
	if found < 2 {
		t.Errorf("only %d transports are found", found)
	}
}
