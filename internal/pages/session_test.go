package pages

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
	"github.com/binder-project/binder-deploy-kubernetes/internal/launch"
)

// known is a read model of one instance.
type known instance.Instance

func (k known) Await(_ context.Context, id string, _ func(instance.Instance, bool) bool) (instance.Instance, bool) {
	return instance.Instance(k), id == k.ID
}

// session is the pages of one instance, and what was asked for.
type session struct {
	site  *site
	pages *Pages
	kept  []time.Duration
	err   error
}

func newSession(inst instance.Instance) *session {
	s := &session{site: &site{}}
	s.pages = New(Deps{
		Instances: known(inst), Launcher: s.site, Client: clientOf, Templates: s.site, Log: kubetest.NoLog(),
		Now: func() time.Time { return kubetest.Noon }, MinCullTimeout: time.Minute, MaxCullTimeout: 8 * time.Hour,
		LastUse: func(string) (time.Time, time.Duration, bool) { return kubetest.Noon, time.Hour, true },
		KeepAlive: func(_ context.Context, id string, timeout time.Duration) error {
			s.kept = append(s.kept, timeout)
			return s.err
		},
	})
	return s
}

func living() instance.Instance {
	return instance.Instance{
		ID: kubetest.ID(1), Template: "jupyter", Status: instance.StatusDeployed, Source: instance.SourceWebSocket,
		LastActivity: kubetest.Noon.Add(-5 * time.Minute), CullAt: kubetest.Noon.Add(time.Hour),
	}
}

func TestSessionPage(t *testing.T) {
	address := "/session/" + kubetest.ID(1)
	page := serve(newSession(living()).pages.Session(), "GET", address, "")
	wantPage(t, page, 200, "<title>Your jupyter</title>", `data-events="/progress/`+kubetest.ID(1)+`?watch=true"`,
		`datetime="2026-01-02T13:00:00Z">2 January 2026, 13:00 UTC<`, "a message over a WebSocket", `href="http://example.com/user/`+kubetest.ID(1)+`/">Open it`,
		`<option value="">1 hour</option><option value="7200">2 hours</option><option value="14400">4 hours</option><option value="28800">8 hours</option></select>`,
		"After 1 hour without use", `value="stop"`)
	wantFrames(t, "the session page", page, neverFramed)

	aging := living()
	aging.ExpiresAt = kubetest.Noon.Add(3 * time.Hour)
	wantPage(t, serve(newSession(aging).pages.Session(), "GET", address, ""), 200, "even if it is in use", `id="expires" datetime="2026-01-02T15:00:00Z"`,
		`<option value="">1 hour</option><option value="7200">2 hours</option></select>`)
	aging.ExpiresAt = aging.CullAt
	page = serve(newSession(aging).pages.Session(), "GET", address, "")
	wantPage(t, page, 200, "even if it is in use")
	if strings.Contains(page.Body.String(), "<select") {
		t.Error("more time is offered, which there is not")
	}
	unused := living()
	unused.CullAt, unused.Status, unused.Message = time.Time{}, instance.StatusDeploying, "Pulling <image>."
	wantPage(t, serve(newSession(unused).pages.Session(), "GET", address, ""), 200, "Pulling &lt;image&gt;.")

	over := living()
	over.Status, over.Reason = instance.StatusDeleted, "Culled"
	wantPage(t, serve(newSession(over).pages.Session(), "GET", address, ""), 410, "closed because it was not used")
	over.Status, over.Message = instance.StatusFailed, "It failed. The container's last output:\n<b>no module</b>"
	wantPage(t, serve(newSession(over).pages.Session(), "GET", address, ""), 502, "<p>It failed.</p>", "<pre>&lt;b&gt;no module&lt;/b&gt;</pre>")
	wantPage(t, serve(newSession(living()).pages.Session(), "GET", "/session/"+kubetest.ID(2), ""), 404, "No such instance")
	wantPage(t, serve(newSession(living()).pages.Session(), "GET", "/session/x", ""), 404, "Not found")
}

func TestSessionChanges(t *testing.T) {
	address := "/session/" + kubetest.ID(1)
	for _, test := range []struct {
		form    string
		code    int
		says    string
		kept    []time.Duration
		stopped int
	}{
		{"action=extend", 303, "", []time.Duration{0}, 0},
		{"action=extend&timeout=", 303, "", []time.Duration{0}, 0},
		{"action=extend&timeout=7200", 303, "", []time.Duration{2 * time.Hour}, 0},
		{"action=extend&timeout=3600", 303, "", []time.Duration{time.Hour}, 0},
		{"action=extend&timeout=28801", 422, "from 60 to 28800", nil, 0},
		{"action=extend&timeout=59", 422, "from 60 to 28800", nil, 0},
		{"action=extend&timeout=-1", 422, "from 60 to 28800", nil, 0},
		{"action=extend&timeout=1h", 422, "from 60 to 28800", nil, 0},
		{"action=extend&timeout=9223372036854775807", 422, "from 60 to 28800", nil, 0},
		{"action=stop", 303, "", nil, 1},
		{"action=delete", 422, "it must be extend or stop", nil, 0},
		{"", 422, "it must be extend or stop", nil, 0},
		{"action=%zz", 400, "could not be read", nil, 0},
	} {
		s := newSession(living())
		w := serve(s.pages.Session(), "POST", address, test.form)
		if w.Code != test.code || !strings.Contains(w.Body.String(), test.says) || len(s.kept) != len(test.kept) || len(s.site.stopped) != test.stopped {
			t.Errorf("%s: got %d, kept %v, stopped %v: %s", test.form, w.Code, s.kept, s.site.stopped, w.Body)
		}
		if test.code == 303 && w.Header().Get("Location") != address || len(test.kept) == 1 && len(s.kept) == 1 && s.kept[0] != test.kept[0] {
			t.Errorf("%s: leads to %s, kept %v", test.form, w.Header().Get("Location"), s.kept)
		}
	}

	over := living()
	over.Status = instance.StatusDeleted
	closed := newSession(over)
	closed.pages.deps.NoLaunchPage = true
	if page := serve(closed.pages.Session(), "GET", address, "").Body.String(); strings.Contains(page, "<form") {
		t.Errorf("a new instance is offered, though visitors cannot launch: %s", page)
	}

	s := newSession(living())
	wantPage(t, serve(s.pages.Session(), "POST", address, "action=stop", "Sec-Fetch-Site", "cross-site"), 403, "in your name")
	wantPage(t, serve(s.pages.Session(), "POST", "/session/"+kubetest.ID(2), "action=stop"), 404, "No such instance")
	s.err = errors.New("10.0.0.1: refused")
	if w := serve(s.pages.Session(), "POST", address, "action=extend"); w.Code != 503 || strings.Contains(w.Body.String(), "10.0.0.1") || !strings.Contains(w.Body.String(), "jupyter may not have been changed") {
		t.Errorf("got %d: %s", w.Code, w.Body)
	}
	if len(s.site.stopped) != 0 {
		t.Errorf("stopped %v", s.site.stopped)
	}
}

// A visitor who comes back to the launch page is led to the instance that lives.
func TestBackToMine(t *testing.T) {
	ended := living()
	ended.Status = instance.StatusDeleted
	other := living()
	other.Template = "rstudio"
	for name, test := range map[string]struct {
		inst   instance.Instance
		cookie string
		back   bool
	}{
		"it lives":            {living(), kubetest.ID(1), true},
		"it has ended":        {ended, kubetest.ID(1), false},
		"nothing is known":    {living(), kubetest.ID(2), false},
		"of another template": {other, kubetest.ID(1), false},
		"no id":               {living(), "<script>", false},
	} {
		w := serve(newSession(test.inst).pages.Launch(), "GET", "/launch/jupyter?path=tree", "", "Cookie", instanceCookie+"="+test.cookie, "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document", "Sec-Fetch-Site", "none")
		page := w.Body.String()
		if back := strings.Contains(page, `href="/user/`+kubetest.ID(1)+`/tree">Go back to it`); w.Code != 200 || back != test.back {
			t.Errorf("%s: got %d, %s", name, w.Code, page)
		}
		if strings.Contains(page, "Start another") != test.back || strings.Contains(page, "form.submit") == test.back {
			t.Errorf("%s: it launches by itself, or offers no other: %s", name, page)
		}
	}

	for _, header := range [][]string{
		nil, {"Sec-Fetch-Mode", "cors", "Sec-Fetch-Dest", "empty", "Sec-Fetch-Site", "same-origin"}, {"Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "iframe", "Sec-Fetch-Site", "none"},
		{"Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document", "Sec-Fetch-Site", "same-origin"}, // opened by a script, which keeps hold of the window
	} {
		w := serve(newSession(living()).pages.Launch(), "GET", "/launch/jupyter", "", append(header, "Cookie", instanceCookie+"="+kubetest.ID(1))...)
		if strings.Contains(w.Body.String(), kubetest.ID(1)) {
			t.Errorf("with %q, a script of another instance could read the id", header)
		}
		wantPage(t, w, 200, "You have an instance of this already. To go back", ">Start another</button>")
		if strings.Contains(w.Body.String(), "form.submit") {
			t.Errorf("with %q, it launches by itself", header)
		}
	}

	window := []string{"Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document", "Sec-Fetch-Site", "cross-site"}
	twice := serve(newSession(living()).pages.Launch(), "GET", "/launch/jupyter", "", append(window, "Cookie", instanceCookie+"="+kubetest.ID(1)+"; "+instanceCookie+"="+kubetest.ID(2))...)
	if strings.Contains(twice.Body.String(), "Go back") {
		t.Error("a planted cookie leads to another instance")
	}

	h, _ := newSite()
	if got := serve(h, "POST", "/launch/jupyter", "", "Sec-Fetch-Mode", "cors", "Sec-Fetch-Dest", "empty", "Sec-Fetch-Site", "same-origin").Header()["Set-Cookie"]; got != nil {
		t.Errorf("a launch by a script set %q", got)
	}
	w := serve(h, "POST", "/launch/"+url.PathEscape("a/b?c"), "", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document", "Sec-Fetch-Site", "same-origin", "X-Forwarded-Proto", "https")
	cookies := (&http.Response{Header: w.Header()}).Cookies()
	if len(cookies) != 1 || cookies[0].Value != kubetest.ID(1) || cookies[0].Path != "/launch/a%2Fb%3Fc" || !cookies[0].HttpOnly || !cookies[0].Secure || cookies[0].SameSite != http.SameSiteLaxMode {
		t.Errorf("the launch set %+v", cookies)
	}
	s := &site{launchErr: launch.ErrBusy}
	failed := httptest.NewRecorder()
	New(Deps{Launcher: s, Client: clientOf, Templates: s, Log: kubetest.NoLog()}).Launch().ServeHTTP(failed, httptest.NewRequest("POST", "/launch/jupyter", nil))
	if got := failed.Header()["Set-Cookie"]; got != nil {
		t.Errorf("a launch that failed set %q", got)
	}
}

func TestInWords(t *testing.T) {
	for d, want := range map[time.Duration]string{
		time.Hour: "1 hour", 2 * time.Hour: "2 hours", 90 * time.Minute: "90 minutes", time.Minute: "1 minute", 6 * time.Second: "6 seconds",
	} {
		if got := inWords(d).String(); got != want {
			t.Errorf("%s: got %q", d, got)
		}
	}
}
