package main

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"

	"github.com/binder-project/binder-deploy-kubernetes/internal/protocol"

	"github.com/binder-project/binder-deploy-kubernetes/internal/proxy"
)

const (
	pageID   = "0123456789abcdef0123456789abcdef"
	pageHTML = "text/html,application/xhtml+xml,*/*;q=0.8"
	// hostileText is what a pod or a registry may say.
	hostileText = `</script><script>alert("x")</script><img src=x onerror=alert(1)>`
)

// pageReader knows one instance, or none.
type pageReader struct{ inst instance.Instance }

func (f pageReader) Instances(string) []instance.Instance { return nil }

func (f pageReader) Await(_ context.Context, id string, _ func(instance.Instance, bool) bool) (instance.Instance, bool) {
	return f.inst, f.inst.ID == id
}

func pageMustParse(t testing.TB, s string) *url.URL {
	t.Helper()
	u, err := url.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// visitPage is a GET of a browser at the proxy; none of these may count as use.
func visitPage(t testing.TB, inst instance.Instance, target string, launchPage bool, change func(*http.Request)) *httptest.ResponseRecorder {
	t.Helper()
	touch := func(string, instance.Source) { t.Error("touched: it was not used") }
	proxy := proxy.New(pageReader{inst}, touch, protocol.NewAPIKey("key").Opens, discardPageLog())
	proxy.LaunchPage = launchPage
	r := httptest.NewRequest(http.MethodGet, target, nil)
	r.Header.Set("Accept", pageHTML)
	if change != nil {
		change(r)
	}
	w := httptest.NewRecorder()
	proxy.ServeHTTP(w, r)
	return w
}

// wantPage checks what every page must be, and that it says some things.
func wantPage(t testing.TB, w *httptest.ResponseRecorder, code int, says ...string) {
	t.Helper()
	body := w.Body.String()
	if w.Code != code {
		t.Errorf("answered %d, want %d: %s", w.Code, code, body)
	}
	for header, want := range map[string]string{
		"Content-Type": "text/html; charset=utf-8", "Cache-Control": "no-store",
		"X-Content-Type-Options": "nosniff", "Referrer-Policy": "strict-origin",
	} {
		if got := w.Header().Get(header); got != want {
			t.Errorf("%s is %q, want %q", header, got, want)
		}
	}
	policy := w.Header().Get("Content-Security-Policy")
	for _, want := range []string{"default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'self'"} {
		if !strings.Contains(policy, want) {
			t.Errorf("the policy has no %q: %s", want, policy)
		}
	}
	// What is inlined is exactly what the policy allows.
	for _, inlined := range regexp.MustCompile(`(?s)<(style|script)>(.*?)</`).FindAllStringSubmatch(body, -1) {
		sum := sha256.Sum256([]byte(inlined[2]))
		if hash := base64.StdEncoding.EncodeToString(sum[:]); !strings.Contains(policy, inlined[1]+"-src") || !strings.Contains(policy, hash) {
			t.Errorf("the policy does not allow this %s (%s):\n%s", inlined[1], hash, inlined[2])
		}
	}
	for _, want := range append(says, `<html lang="en">`, `<meta name="viewport"`, "<main>", "<h1>", "<title>") {
		if !strings.Contains(body, want) {
			t.Errorf("the page does not say %q:\n%s", want, body)
		}
	}
	if strings.Contains(body, "<title></title>") || strings.Contains(body, "<h1></h1>") {
		t.Errorf("a page with no title:\n%s", body)
	}
	if found := regexp.MustCompile(`(?i)https?://|src=|url\(|@import`).FindString(strings.ReplaceAll(body, "src=x", "")); found != "" {
		t.Errorf("the page loads something (%s):\n%s", found, body)
	}
}

func TestPagesOfInstances(t *testing.T) {
	const button = `<form id="launch" method="post" action="/launch/jupyter">`
	ended := time.Date(2026, time.January, 2, 12, 0, 0, 0, time.UTC)
	is := func(status instance.Status, reason, message string) instance.Instance {
		return instance.Instance{ID: pageID, Template: "jupyter", Status: status, Reason: reason, Message: message}
	}
	endedAt := func(inst instance.Instance) instance.Instance { inst.Ended = ended; return inst }
	for _, row := range []struct {
		name   string
		inst   instance.Instance
		code   int
		button bool
		says   []string
	}{
		{"unknown", instance.Instance{}, 404, false, []string{"<title>No such instance</title>"}},
		{"pending", is(instance.StatusPending, "", "waiting for a node"), 503, false, []string{
			"<title>Starting jupyter</title>", "waiting for a node</p>", `role="status" aria-live="polite"`,
			`data-events="/progress/` + pageID + `"`, `<noscript><meta http-equiv="refresh" content="2"></noscript>`,
			`data-phase="pending" aria-current="step"`,
		}},
		{"deploying", is(instance.StatusDeploying, "", "pulling image x"), 503, false, []string{"pulling image x", `data-phase="deploying" aria-current="step"`}},
		{"failed", is(instance.StatusFailed, "ImagePullBackOff", "image x: not found"), 502, true, []string{
			"<title>jupyter failed</title>", "ImagePullBackOff", "image x: not found", "Launch a new one",
		}},
		{"culled", endedAt(is(instance.StatusDeleted, "Culled", "not used for 1h0m0s; its cull timeout is 1h0m0s")), 410, true, []string{
			"<title>jupyter was closed because it was not used</title>", "not used for 1h0m0s", "Culled",
			`<time datetime="2026-01-02T12:00:00Z">2 January 2026, 12:00 UTC</time>`, "Launch a new one",
		}},
		{"expired", endedAt(is(instance.StatusDeleted, "Expired", "launched 12h0m9s ago; its max age is 12h0m0s")), 410, true, []string{
			"jupyter was closed because its time was up", "launched 12h0m9s ago", "Expired",
		}},
		{"stopped", endedAt(is(instance.StatusDeleted, "Stopped", "stopped by request")), 410, true, []string{"jupyter was stopped", "stopped by request"}},
		{"failed and deleted", endedAt(is(instance.StatusDeleted, "Failed", "StartTimeout: not ready")), 410, true, []string{"jupyter failed and was deleted", "StartTimeout: not ready"}},
		{"gone", endedAt(is(instance.StatusDeleted, "Gone", "deleted from outside")), 410, true, []string{"jupyter is gone", "deleted from outside"}},
		{"completed", is(instance.StatusDeleted, "Completed", "ended by itself"), 410, true, []string{"jupyter has ended"}},
		{"deleting", is(instance.StatusDeleted, "Deleting", "the instance is being deleted"), 410, true, []string{"jupyter is being deleted"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			target := "/user/" + pageID + "/tree"
			w := visitPage(t, row.inst, target, true, nil)
			wantPage(t, w, row.code, row.says...)
			if got := strings.Contains(w.Body.String(), button); got != row.button {
				t.Errorf("a button is there: %t, want %t", got, row.button)
			}
			if got, want := w.Header().Get("Retry-After") != "", row.code == 503; got != want {
				t.Errorf("Retry-After is there: %t, want %t", got, want)
			}
			if strings.Contains(w.Body.String(), "http-equiv") != (row.code == 503) {
				t.Error("only what is starting may load itself again")
			}
			w = visitPage(t, row.inst, target, false, nil)
			wantPage(t, w, row.code, row.says[0])
			if strings.Contains(w.Body.String(), "<form") {
				t.Error("a button is there with the launch page turned off")
			}
		})
	}
}

func TestPagesAreForBrowsersOnly(t *testing.T) {
	inst := instance.Instance{ID: pageID, Template: "jupyter", Status: instance.StatusDeploying, Message: "starting"}
	for name, change := range map[string]func(*http.Request){
		"another kind": func(r *http.Request) { r.Header.Set("Accept", "application/json") },
		"any kind":     func(r *http.Request) { r.Header.Set("Accept", "*/*") },
		"no Accept":    func(r *http.Request) { r.Header.Del("Accept") },
		"a POST":       func(r *http.Request) { r.Method = http.MethodPost },
	} {
		w := visitPage(t, inst, "/user/"+pageID+"/", true, change)
		if got := w.Header().Get("Content-Type"); w.Code != 503 || got != "text/plain; charset=utf-8" {
			t.Errorf("%s: answered %d as %q, want 503 as plain text", name, w.Code, got)
		}
		if got := w.Header().Get("Retry-After"); got != "1" {
			t.Errorf("%s: Retry-After is %q", name, got)
		}
	}
	wantPage(t, visitPage(t, inst, "/user/"+pageID+"/", true, func(r *http.Request) { r.Method = http.MethodHead }), 503)
	wantPage(t, visitPage(t, inst, "/", true, nil), 404, "nothing at this address")
}

func TestPageOfAnInstanceThatDoesNotAnswer(t *testing.T) {
	closed := httptest.NewServer(nil)
	closed.Close()
	inst := instance.Instance{ID: pageID, Template: "jupyter", Status: instance.StatusDeployed, Address: strings.TrimPrefix(closed.URL, "http://")}
	proxy := proxy.New(pageReader{inst}, func(string, instance.Source) {}, protocol.NewAPIKey("key").Opens, discardPageLog())
	r := httptest.NewRequest(http.MethodGet, "/user/"+pageID+"/", nil)
	r.Header.Set("Accept", pageHTML)
	w := httptest.NewRecorder()
	proxy.ServeHTTP(w, r)
	wantPage(t, w, http.StatusBadGateway, "jupyter does not answer")
}

// TestPagesEscape: what others say is shown, and is never run.
func TestPagesEscape(t *testing.T) {
	for _, status := range []instance.Status{instance.StatusPending, instance.StatusFailed, instance.StatusDeleted} {
		inst := instance.Instance{ID: pageID, Template: hostileText, Status: status, Reason: hostileText, Message: hostileText}
		body := visitPage(t, inst, "/user/"+pageID+"/", true, nil).Body.String()
		if strings.Contains(body, "<img") || strings.Contains(body, "alert(\"x\")") || strings.Count(body, "<script>") > 1 {
			t.Errorf("%s: the page runs what a pod said:\n%s", status, body)
		}
		if !strings.Contains(body, "&lt;img src=x") {
			t.Errorf("%s: the page does not show what a pod said:\n%s", status, body)
		}
	}
}
