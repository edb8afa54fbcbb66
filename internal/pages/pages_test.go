package pages

import (
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
	"github.com/binder-project/binder-deploy-kubernetes/internal/podtemplate"
	"github.com/binder-project/binder-deploy-kubernetes/internal/protocol"
)

const (
	browserAccept = "text/html,application/xhtml+xml,*/*;q=0.8"
	// hostileText is what a pod or a registry may write.
	hostileText = `</script><script>alert("x")</script><img src=x onerror=alert(1)>`
)

// serve sends a request of a browser to a handler. A form makes it a form; headers are
// names and values in turn.
func serve(h http.Handler, method, target, form string, header ...string) *httptest.ResponseRecorder {
	r, w := httptest.NewRequest(method, target, strings.NewReader(form)), httptest.NewRecorder()
	r.Header.Set("Accept", browserAccept)
	if form != "" {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	h.ServeHTTP(w, r)
	return w
}

// serveNotice serves a notice to a browser, or to a client with another Accept header.
func serveNotice(n Notice, accept string) *httptest.ResponseRecorder {
	return serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { ownSite().Serve(w, r, n) }), http.MethodGet, "/", "", "Accept", accept)
}

// wantOwnHeaders checks the headers of all our answers: they keep the address secret, and
// windows apart.
func wantOwnHeaders(t testing.TB, w *httptest.ResponseRecorder) {
	t.Helper()
	for header, want := range map[string]string{
		"Cache-Control": "no-store", "Referrer-Policy": "strict-origin",
		"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Resource-Policy": "same-origin",
	} {
		if got := w.Header().Get(header); got != want {
			t.Errorf("%s is %q, want %q", header, got, want)
		}
	}
	for _, feature := range []string{"camera=()", "geolocation=()", "microphone=()"} {
		if got := w.Header().Get("Permissions-Policy"); !strings.Contains(got, feature) {
			t.Errorf("Permissions-Policy is %q, want %s in it", got, feature)
		}
	}
}

// wantPage checks what is true of every page, and that this one contains some texts.
func wantPage(t testing.TB, w *httptest.ResponseRecorder, code int, texts ...string) {
	t.Helper()
	body := w.Body.String()
	if w.Code != code {
		t.Errorf("answered %d, want %d: %s", w.Code, code, body)
	}
	for header, want := range map[string]string{
		"Content-Type": "text/html; charset=utf-8", "X-Content-Type-Options": "nosniff",
	} {
		if got := w.Header().Get(header); got != want {
			t.Errorf("%s is %q, want %q", header, got, want)
		}
	}
	wantOwnHeaders(t, w)
	policy := w.Header().Get("Content-Security-Policy")
	for _, want := range []string{"default-src 'none'", "; frame-ancestors '", "base-uri 'none'", "form-action 'self'"} {
		if !strings.Contains(policy, want) {
			t.Errorf("the policy has no %q: %s", want, policy)
		}
	}
	for _, inlined := range regexp.MustCompile(`(?s)<(style|script)>(.*?)</`).FindAllStringSubmatch(body, -1) {
		sum := sha256.Sum256([]byte(inlined[2]))
		allowed := regexp.MustCompile(inlined[1] + `-src[^;]*'sha256-` + regexp.QuoteMeta(base64.StdEncoding.EncodeToString(sum[:])) + `'`)
		if !allowed.MatchString(policy) {
			t.Errorf("the policy does not allow this %s:\n%s", inlined[1], inlined[2])
		}
	}
	for _, want := range append(texts, `<html lang="en">`, `<meta name="viewport"`, "<main>") {
		if !strings.Contains(body, want) {
			t.Errorf("the page does not contain %q:\n%s", want, body)
		}
	}
	if !regexp.MustCompile(`(?s)<title>.+</title>.*<h1>.+</h1>`).MatchString(body) {
		t.Errorf("the page has no title:\n%s", body)
	}
	if found := regexp.MustCompile(`(?i)https?://|src=|url\(|@import`).FindString(strings.ReplaceAll(body, "http://example.com/user/", "")); found != "" {
		t.Errorf("the page loads something (%s):\n%s", found, body)
	}
}

func TestNotices(t *testing.T) {
	ended := time.Date(2026, time.January, 2, 12, 0, 0, 0, time.UTC)
	is := func(status instance.Status, reason, message string) instance.Instance {
		return instance.Instance{ID: kubetest.ID(1), Template: "jupyter", Launched: ended, Status: status, Reason: reason, Message: message, Detail: "raw text of the cluster"}
	}
	blame := func(fault instance.Fault, inst instance.Instance) instance.Instance {
		inst.Fault = fault
		return inst
	}
	over := func(reason, message string) Notice {
		inst := is(instance.StatusDeleted, reason, message)
		inst.Ended = ended
		return OverNotice(inst)
	}
	// A pod without a start time counts as one that was Ready before.
	crashed := instance.FromPod(kubetest.Pod(kubetest.ID(1), ended, kubetest.Broken), nil, ended, kubetest.StartTimeout)
	for _, row := range []struct {
		name   string
		notice Notice
		code   int
		button bool
		texts  []string
	}{
		{"nothing here", NothingHereNotice(), 404, false, []string{"nothing at this address"}},
		{"unknown", MissingNotice(false), 404, false, []string{"<title>No such instance</title>"}},
		{"unknown at the moment", MissingNotice(true), 503, false, []string{"<title>This instance cannot be found at the moment</title>"}},
		{"pending", StartingNotice(is(instance.StatusPending, "", "Waiting for a node."), ended.Add(72*time.Second), nil), 503, false, []string{
			"<title>Starting jupyter</title>", "Waiting for a node.</p>", `role="status" aria-live="polite"`,
			`data-events="/progress/` + kubetest.ID(1) + `"`, `<noscript><meta http-equiv="refresh" content="2"></noscript>`,
			`data-step="node" data-state="now" aria-current="step"><span class="step">Find a node</span> <span class="state">now</span> <span class="took" data-seconds="72">1:12</span>`,
			`data-step="prepare" data-state="next"`, `data-seconds="72">Launched 72 seconds ago</span>.</p>`, `href="/session/` + kubetest.ID(1) + `"`,
		}},
		{"deploying", StartingNotice(is(instance.StatusDeploying, "", "Fetching the image x."), ended, func() time.Duration { return 23 * time.Second }), 503, false, []string{
			"Fetching the image x.", `data-step="node" data-state="done"`, `data-step="prepare" data-state="now" aria-current="step"`, `data-step="open" data-state="next"`,
			`data-seconds="0">Launched 0 seconds ago</span>. It usually takes about 25 seconds.`,
		}},
		{"failed", FailedNotice(is(instance.StatusFailed, "ImagePullBackOff", "image x: not found")), 502, true, []string{
			"<title>jupyter failed</title>", "ImagePullBackOff", "image x: not found", "Launch a new one",
		}},
		{"failed, again", FailedNotice(blame(instance.FaultChance, is(instance.StatusFailed, "NodeLost", "The node is lost. Launch a new one."))), 502, true, []string{
			"<p>The node is lost. Launch a new one.</p>", "NodeLost", "Launch a new one</button>",
		}},
		{"ended in use", FailedNotice(crashed), 502, true, []string{"Launch a new one. If it ends again, tell the author of the template.", "Launch a new one</button>"}},
		{"ended in use and was deleted", OverNotice(blame(crashed.Fault, is(instance.StatusDeleted, "Failed", crashed.Message))), 410, true, []string{"Launch a new one</button>"}},
		{"failed by the visitor", FailedNotice(blame(instance.FaultVisitor, is(instance.StatusFailed, "OOMKilled", "out of memory"))), 502, true, []string{"Launch a new one</button>"}},
		{"failed by the cluster", FailedNotice(blame(instance.FaultCluster, is(instance.StatusFailed, "Evicted", "Try again later."))), 502, true, []string{"Try again</button>"}},
		{"failed by its template", FailedNotice(blame(instance.FaultTemplate, is(instance.StatusFailed, "Error", "exited with code 3"))), 502, false, []string{"<p>exited with code 3</p>"}},
		{"failed for no known reason", FailedNotice(is(instance.StatusFailed, "", "")), 502, true, []string{"did not start, or it broke down"}},
		{"no answer", NoAnswerNotice(is(instance.StatusDeployed, "", "")), 502, true, []string{"jupyter does not answer"}},
		{"culled", over("Culled", "Not used for 1h0m0s."), 410, true, []string{
			"<title>jupyter was closed because it was not used</title>", "Not used for 1h0m0s.", "Culled",
			`<time datetime="2026-01-02T12:00:00Z">2 January 2026, 12:00 UTC</time>`, "Launch a new one",
		}},
		{"expired", over("Expired", "Launched 12h0m9s ago."), 410, true, []string{"jupyter was closed because its time was up", "Launched 12h0m9s ago.", "Expired"}},
		{"stopped", over("Stopped", "Stopped by request."), 410, true, []string{"jupyter was stopped", "Stopped by request."}},
		{"failed and deleted", over("Failed", "StartTimeout: not ready"), 410, true, []string{"jupyter failed and was deleted", "<p>StartTimeout: not ready</p>"}},
		{"failed by its template and deleted", OverNotice(blame(instance.FaultTemplate, is(instance.StatusDeleted, "Failed", "exited with code 3"))), 410, false, []string{"exited with code 3"}},
		{"gone", over("Gone", "deleted from outside"), 410, true, []string{"jupyter is gone", "deleted from outside"}},
		{"completed", OverNotice(is(instance.StatusDeleted, "Completed", "ended by itself")), 410, true, []string{"jupyter has ended"}},
		{"no template", noTemplateNotice("gh/a/b", &protocol.Error{Code: 404, Message: "add <one>"}), 404, false, []string{
			"<title>There is nothing to launch by this name</title>", "is for this repository and version", "add &lt;one&gt;",
		}},
		{"no repository", noTemplateNotice("gh/a", &protocol.Error{Code: 400, Message: "name one"}), 400, false, []string{"name one"}},
		{"no template at the moment", noTemplateNotice("gh/a/b", &protocol.Error{Code: 503, RetryAfter: time.Second, Message: "try again"}), 503, false, []string{
			"<title>gh/a/b was not launched</title>", "try again",
		}},
		{"deleting", OverNotice(is(instance.StatusDeleted, "Deleting", "The instance is being deleted.")), 410, true, []string{"jupyter is being deleted"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			w := serveNotice(row.notice, browserAccept)
			wantPage(t, w, row.code, row.texts...)
			if got := strings.Contains(w.Body.String(), `<form id="launch" method="post" action="/launch/jupyter">`); got != row.button {
				t.Errorf("the page has a button: %t, want %t", got, row.button)
			}
			if got, want := strings.Contains(w.Body.String(), `<noscript><meta http-equiv="refresh"`), row.code == 503; got != want {
				t.Errorf("the page reloads by itself: %t, want %t: only what is so for a moment changes", got, want)
			}
			retryAfter := w.Header().Get("Retry-After")
			if (retryAfter != "") != (row.code == 503) {
				t.Errorf("Retry-After is %q with %d", retryAfter, row.code)
			}
			if strings.Contains(w.Body.String()+row.notice.Plain, "raw text") {
				t.Errorf("the visitor is told what only the operator should know:\n%s", w.Body)
			}
			for _, accept := range []string{"application/json", "*/*", ""} {
				w := serveNotice(row.notice, accept)
				wantOwnHeaders(t, w)
				if w.Code != row.code || w.Header().Get("Content-Type") != "text/plain; charset=utf-8" ||
					w.Header().Get("Retry-After") != retryAfter || strings.TrimSpace(w.Body.String()) != row.notice.Plain || row.notice.Plain == "" {
					t.Errorf("a client that accepts %q got %d, %v: %q", accept, w.Code, w.Header(), w.Body)
				}
			}
			row.notice.Template = "" // as the proxy does if there is no launch page
			if body := serveNotice(row.notice, browserAccept).Body.String(); strings.Contains(body, "<form") {
				t.Errorf("the page has a button without a template:\n%s", body)
			}
		})
	}
}

// wantFrames checks who may show a page in a frame.
func wantFrames(t testing.TB, name string, w *httptest.ResponseRecorder, want string) {
	t.Helper()
	policy := w.Header().Get("Content-Security-Policy")
	if _, got, _ := strings.Cut(policy, "frame-ancestors "); got != want {
		t.Errorf("%s (%d): frame-ancestors is %q, want %q", name, w.Code, got, want)
	}
}

// TestFrames: no frame shows what a link alone can load of the launch page, because it
// launches by itself. A notice of an instance in a frame has a button, and shows what
// follows.
func TestFrames(t *testing.T) {
	const both = "'self' https://hub.example http://b.example:8080"
	origins := []string{"https://hub.example", "http://b.example:8080"}
	s := &site{templateErr: podtemplate.ErrUnknown}
	p := New(Deps{Launcher: s, Client: clientOf, Templates: s, FrameAncestors: origins, Log: kubetest.NoLog(), Instances: kubetest.NewWorld(time.Now, nil)})
	for _, row := range []struct {
		method, target string
		header         []string
		want           string
	}{
		{"GET", "/launch/jupyter", nil, neverFramed},
		{"GET", "/launch/nowhere", nil, neverFramed},
		{"GET", "/launch/jupyter?path=..", nil, neverFramed},
		{"GET", "/launch/jupyter/x/y", nil, neverFramed},
		{"PUT", "/launch/jupyter", nil, neverFramed},
		{"POST", "/launch/jupyter", []string{"Sec-Fetch-Site", "cross-site"}, neverFramed},
		{"POST", "/launch/nowhere", nil, both},
		{"POST", "/launch/jupyter?x", []string{"Content-Type", "multipart/x"}, ""}, // 303, to the next
		{"GET", "/launch/jupyter/" + kubetest.ID(1), nil, both},
	} {
		s.launchErr = nil
		if strings.HasSuffix(row.target, "nowhere") {
			s.launchErr = podtemplate.ErrUnknown
		}
		wantFrames(t, row.method+" "+row.target, serve(p.Launch(), row.method, row.target, "", row.header...), row.want)
	}
	inst := instance.Instance{ID: kubetest.ID(1), Template: "jupyter"}
	for name, n := range map[string]Notice{"starting": StartingNotice(inst, kubetest.Noon, nil), "failed": FailedNotice(inst), "over": OverNotice(inst), "unknown": MissingNotice(false)} {
		wantFrames(t, name, serveNotice(n, browserAccept), "'self'")
		n.FrameAncestors = origins
		wantFrames(t, name, serveNotice(n, browserAccept), both)
	}
}

// TestPagesEscape: texts of pods and registries are shown and never run.
func TestPagesEscape(t *testing.T) {
	inst := instance.Instance{ID: kubetest.ID(1), Template: hostileText, Reason: hostileText, Message: hostileText, Ended: kubetest.Noon}
	for name, notice := range map[string]Notice{"starting": StartingNotice(inst, kubetest.Noon, nil), "failed": FailedNotice(inst), "over": OverNotice(inst)} {
		body := serveNotice(notice, browserAccept).Body.String()
		if strings.Contains(body, "<img") || strings.Contains(body, "alert(\"x\")") || strings.Count(body, "<script>") > 1 {
			t.Errorf("%s: the page runs what a pod wrote:\n%s", name, body)
		}
		if !strings.Contains(body, "&lt;img src=x") {
			t.Errorf("%s: the page does not show what a pod wrote:\n%s", name, body)
		}
	}
}
