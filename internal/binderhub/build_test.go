package binderhub

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/binder-project/binder-deploy-kubernetes/internal/admission"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
)

func TestBuild(t *testing.T) {
	s := newSite(t)
	c := s.ask(t, "gh/Org/Repo/feature/x", "Accept", "text/event-stream")
	if c.StatusCode != 200 || c.Header.Get("Content-Type") != "text/event-stream" {
		t.Fatalf("got %d %v", c.StatusCode, c.Header)
	}
	want(t, c.next(t), "built")
	want(t, c.next(t), "launching")
	s.start(t, kubetest.ID(1))
	want(t, c.next(t), "launching", "Preparing the pod")
	s.serve(t, kubetest.ID(1))
	event := c.next(t)
	want(t, event, "ready")
	host := strings.TrimPrefix(s.url, "http://")
	for field, value := range map[string]string{
		"url": s.url + "/user/" + kubetest.ID(1) + "/", "token": "the-token", "image": "jupyter:1",
		"repo_url": "https://github.com/Org/Repo", "binder_ref_url": "https://github.com/Org/Repo/tree/feature/x",
		"binder_launch_host": "http://" + host + "/", "binder_request": "v2/gh/Org/Repo/feature/x", "binder_persistent_request": "v2/gh/Org/Repo/feature/x",
	} {
		if event[field] != value {
			t.Errorf("%s: got %v, want %v", field, event[field], value)
		}
	}
	if launched := s.launched[0]; launched.Template != "org-repo" || launched.Client != "somebody" || !strings.HasPrefix(launched.IdempotencyKey, keyPrefix) || !launched.Warm || launched.Repeated {
		t.Errorf("launched %+v", launched)
	}
}

// A browser connects again to a stream that was cut, wherever that was, and says which event
// was the last. Any replica can answer.
func TestNothingIsLaunchedTwice(t *testing.T) {
	for cut := 1; cut <= 4; cut++ {
		for _, at := range []string{"here", "at another replica"} {
			t.Run(fmt.Sprint("after event ", cut, ", ", at), func(t *testing.T) {
				s := newSite(t)
				replica := map[string]string{"here": s.url, "at another replica": s.other}[at]
				c := s.ask(t, "gh/org/repo")
				steps := []func(){func() {}, func() {}, func() { s.start(t, kubetest.ID(1)) }, func() { s.serve(t, kubetest.ID(1)) }}
				for _, step := range steps[:cut] {
					step()
					c.next(t)
				}
				_ = c.Body.Close()
				again := askAt(t, replica, "gh/org/repo", "Last-Event-ID", c.lastID)
				s.awaitLaunch(t) // the first event comes before it
				for _, step := range steps[cut:] {
					step()
				}
				s.wantReady(t, again)
			})
		}
	}
}

// awaitLaunch waits until something was launched.
func (s *site) awaitLaunch(t *testing.T) {
	t.Helper()
	kubetest.Eventually(t, "a launch", func() bool { return s.launches() > 0 })
}

// wantReady reads a stream up to the only instance that was launched.
func (s *site) wantReady(t *testing.T, c *client) {
	t.Helper()
	event := c.next(t)
	for event["phase"] == phaseBuilt || event["phase"] == phaseLaunching {
		event = c.next(t)
	}
	url, _ := event["url"].(string)
	if !strings.HasSuffix(url, "/user/"+kubetest.ID(1)+"/") || s.launches() != 1 {
		t.Errorf("got %v after %d launches", event, s.launches())
	}
}

// The network can drop a connection while the launch is being written, without a word to this
// service. The client has only the key of the launch then.
func TestCutWhileTheLaunchIsWritten(t *testing.T) {
	s := newSite(t)
	written, write := context.WithCancel(t.Context())
	s.launching = func() { <-written.Done() }
	c := s.ask(t, "gh/org/repo")
	want(t, c.next(t), "built")
	again := askAt(t, s.other, "gh/org/repo", "Last-Event-ID", c.lastID)
	third := s.ask(t, "gh/org/repo", "Last-Event-ID", c.lastID)
	want(t, again.next(t), "built")
	write()
	want(t, again.next(t), "launching")
	s.serve(t, kubetest.ID(1))
	for _, c := range []*client{again, third, c} {
		s.wantReady(t, c)
		if c.lastID != kubetest.ID(1) {
			t.Errorf("the last event has the id %q, want that of the instance", c.lastID)
		}
	}
}

// A client that was cut off before its launch was made launches once, under the same key. It
// can be refused, and try again.
func TestCutBeforeTheLaunch(t *testing.T) {
	s := newSite(t)
	key := "launch-" + kubetest.ID(7)
	s.refuse = &admission.Refusal{Limit: "launch-rate", RetryAfter: time.Minute}
	c := s.ask(t, "gh/org/repo", "Last-Event-ID", key)
	want(t, c.next(t), "built")
	if event := c.next(t); event["status_code"] != 429.0 || c.lastID != key {
		t.Errorf("over a limit: got %v with the id %q", event, c.lastID)
	}
	s.refuse, s.launched = nil, nil
	for range 2 {
		c := s.ask(t, "gh/org/repo", "Last-Event-ID", key)
		want(t, c.next(t), "built")
		want(t, c.next(t), "launching")
	}
	if s.launches() != 1 || s.launched[0].IdempotencyKey != keyPrefix+kubetest.ID(7) || s.launched[0].Client != "somebody" || !s.launched[0].Warm || !s.launched[0].Repeated {
		t.Errorf("launched %+v", s.launched)
	}
	// Other clients have other keys.
	want(t, s.ask(t, "gh/org/repo").next(t), "built")
	kubetest.Eventually(t, "another launch", func() bool { return s.launches() == 2 })
}

// leaver is an answer whose client goes away when the first event is written.
type leaver struct {
	*httptest.ResponseRecorder
	leave func()
}

func (l leaver) Write(p []byte) (int, error) {
	l.leave()
	return l.ResponseRecorder.Write(p)
}

// A client that goes away before it has the first event cannot come back for its instance, so
// nothing is launched for it. Later, the launch goes on: it may come back.
func TestClientThatGoesAway(t *testing.T) {
	for name, row := range map[string]struct {
		during   bool // the launch
		launches int
	}{"before the first event": {false, 0}, "during the launch": {true, 1}} {
		s := newSite(t)
		ctx, goAway := context.WithCancel(t.Context())
		w := leaver{httptest.NewRecorder(), func() {}}
		if row.during {
			s.launching = goAway
		} else {
			w.leave = goAway
		}
		r := httptest.NewRequestWithContext(ctx, http.MethodGet, "/build/gh/org/repo", nil)
		r.Header.Set("Accept", "text/event-stream")
		s.hub.ServeHTTP(w, r)
		if s.launches() != row.launches {
			t.Errorf("%s: launched %v, want %d", name, s.launched, row.launches)
		}
	}
}

// A client that comes back for an instance that has ended is told so.
func TestEndedIsNotLaunchedAgain(t *testing.T) {
	s := newSite(t)
	s.PutPod(t, kubetest.Pod(kubetest.ID(8), time.Now(), kubetest.Deleting))
	for _, last := range []string{kubetest.ID(8), "17", "../x", "launch-17", "launch-"} {
		event := s.ask(t, "gh/org/repo", "Last-Event-ID", last).next(t)
		want(t, event, "failed", "has ended")
		if event["status_code"] != 410.0 {
			t.Errorf("%s: got %v", last, event)
		}
	}
	s.keys["org-repo\x00"+keyPrefix+kubetest.ID(7)] = kubetest.ID(8)
	c := s.ask(t, "gh/org/repo", "Last-Event-ID", "launch-"+kubetest.ID(7))
	want(t, c.next(t), "built")
	want(t, c.next(t), "failed", "has ended")
	if s.launches() != 0 {
		t.Errorf("launched %v", s.launched)
	}
}

// A client that comes back may be ahead of this replica, and its repository may stand for another
// template by now, or for none.
func TestReturnToAReplicaThatIsBehind(t *testing.T) {
	s := newSite(t)
	c := s.ask(t, "gh/org/gone", "Last-Event-ID", kubetest.ID(8))
	s.PutPod(t, kubetest.Pod(kubetest.ID(8), time.Now(), kubetest.OfTemplate("course")))
	event := c.next(t)
	want(t, event, "ready")
	if event["url"] != s.url+"/user/"+kubetest.ID(8)+"/" || s.launches() != 0 {
		t.Errorf("got %v after %d launches", event, s.launches())
	}
}

// A replica that stops goes on with launches under way, and ends the streams of those that are over.
func TestDraining(t *testing.T) {
	s := newSite(t)
	s.launching = s.drain
	c := s.ask(t, "gh/org/repo")
	want(t, c.next(t), "built")
	want(t, c.next(t), "launching")
	s.serve(t, kubetest.ID(1))
	want(t, c.next(t), "ready")
	if _, err := io.ReadAll(c.lines); err != nil {
		t.Errorf("the stream does not end: %v", err)
	}
}

// The address is that by which the client came, or the instance's own.
func TestAddresses(t *testing.T) {
	for _, row := range []struct{ domain, forwarded, want string }{
		{"", "", "http://HOST/user/ID/"},
		{"", "https", "https://HOST/user/ID/"},
		{"", "HTTPS, http", "https://HOST/user/ID/"},
		{"", "http, https", "http://HOST/user/ID/"},
		{"users.example:8443", "https", "https://ID.users.example:8443/user/ID/"},
	} {
		s := &site{t: t, change: func(d *Deps) { d.Layout.Domain = row.domain }}
		s.open(t, nil)
		s.PutPod(t, kubetest.Pod(kubetest.ID(3), time.Now()))
		event := s.ask(t, "gh/org/repo", "Last-Event-ID", kubetest.ID(3), "X-Forwarded-Proto", row.forwarded).next(t)
		if want := strings.NewReplacer("HOST", strings.TrimPrefix(s.url, "http://"), "ID", kubetest.ID(3)).Replace(row.want); event["url"] != want {
			t.Errorf("%+v: got %v, want %v", row, event["url"], want)
		}
	}
}

func TestBuildFails(t *testing.T) {
	s := newSite(t)
	for spec, row := range map[string]struct {
		code float64
		says string
	}{
		"gh/org":                   {400, "gh/org/repo/HEAD"},
		"gh/org/other":             {404, "with the name org-other"},
		"gh/school/course/2025":    {404, "with the name school-course"},
		"gh/school/old/2025":       {404, "binder-project.org/specs"},
		"gl/a%2Fb/main":            {404, "binder-project.org/specs"},
		"gh/org/my_repo":           {404, "an operator can name it in the annotation binder-project.org/specs"},
		"gh/org/%3Cscript%3E/main": {404, "gh/org/%3Cscript%3E/main"},
	} {
		event := s.ask(t, spec).next(t)
		want(t, event, "failed", row.says)
		if event["status_code"] != row.code {
			t.Errorf("%s: got %v, want %v", spec, event["status_code"], row.code)
		}
	}
	if s.launches() != 0 {
		t.Errorf("launched %v", s.launched)
	}
	s.refuse = &admission.Refusal{Limit: "launch-rate", RetryAfter: time.Minute}
	full := s.ask(t, "gh/org/repo")
	want(t, full.next(t), "built")
	if event := full.next(t); event["status_code"] != 429.0 {
		t.Errorf("over a limit: got %v", event)
	}
	s.refuse = nil
	c := s.ask(t, "gh/school/course/2026b")
	want(t, c.next(t), "built")
	want(t, c.next(t), "launching")
	s.become(t, c.lastID, kubetest.Broken)
	event := c.next(t)
	for event["phase"] == "launching" {
		event = c.next(t)
	}
	want(t, event, "failed")
}

// Pages of other sites launch nothing, whatever their request looks like, and neither does a
// browser that opens the address. The header fields are those of Chromium and of Node.
func TestWhoMayLaunch(t *testing.T) {
	const allowed = "https://course.example"
	browser, page := []string{"User-Agent", "Mozilla/5.0 (X11; Linux x86_64) Chrome/149.0"}, []string{"Accept", "text/html,application/xhtml+xml,*/*;q=0.8"}
	window := slices.Concat(browser, page, []string{"Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document"})
	s := newSite(t, allowed)
	for name, row := range map[string]struct {
		header []string
		code   int
	}{
		"no browser":             {nil, 200},
		"Node":                   {[]string{"User-Agent", "node", "Accept-Language", "*", "Sec-Fetch-Mode", "cors"}, 200},
		"Python":                 {[]string{"User-Agent", "python-requests/2.32"}, 200},
		"a tool without a wish":  {[]string{"Accept", "*/*"}, 403},
		"a crawler":              {page, 302},
		"our own page":           {slices.Concat(browser, []string{"Sec-Fetch-Site", "same-origin", "Sec-Fetch-Mode", "cors"}), 200},
		"our own page on HTTP":   {slices.Concat(browser, []string{"Referer", s.url + "/v2/gh/org/repo"}), 200},
		"an allowed origin":      {slices.Concat(browser, []string{"Origin", allowed, "Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "cors"}), 200},
		"an allowed one on HTTP": {slices.Concat(browser, []string{"Origin", allowed, "Referer", allowed + "/"}), 200},
		"our origin":             {slices.Concat(browser, []string{"Origin", s.url}), 200},
		"another origin":         {[]string{"Origin", "https://evil.example", "Sec-Fetch-Site", "cross-site"}, 403},
		"no origin at all":       {[]string{"Origin", "null"}, 403},
		"an image":               {[]string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "no-cors"}, 403},
		"another subdomain":      {[]string{"Sec-Fetch-Site", "same-site"}, 403},
		"an image on HTTP":       {slices.Concat(browser, []string{"Referer", "http://evil.example/"}), 403},
		"a hidden page on HTTP":  {browser, 403},
		"the same with any type": {slices.Concat(browser, []string{"Accept", "*/*"}), 403},

		"a typed address":         {slices.Concat(window, []string{"Sec-Fetch-Site", "none", "Sec-Fetch-User", "?1"}), 302},
		"typed on HTTP":           {slices.Concat(browser, page), 302},
		"a link of another site":  {slices.Concat(window, []string{"Sec-Fetch-Site", "cross-site", "Referer", "https://evil.example/"}), 302},
		"a link of our own":       {slices.Concat(window, []string{"Sec-Fetch-Site", "same-origin", "Referer", s.url + "/"}), 302},
		"the same link on HTTP":   {slices.Concat(browser, page, []string{"Referer", s.url + "/"}), 302},
		"a link of the course":    {slices.Concat(window, []string{"Sec-Fetch-Site", "cross-site", "Referer", allowed + "/"}), 302},
		"a frame":                 {slices.Concat(browser, []string{"Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "iframe", "Sec-Fetch-Site", "cross-site"}), 302},
		"while it is being typed": {slices.Concat(window, []string{"Sec-Fetch-Site", "none", "Sec-Purpose", "prefetch;prerender"}), 403},
		"a prefetch of our page":  {slices.Concat(browser, []string{"Sec-Fetch-Site", "same-origin", "Sec-Purpose", "prefetch"}), 403},
		"an old prefetch":         {slices.Concat(browser, page, []string{"Purpose", "prefetch"}), 403},
		"neither page nor window": {slices.Concat(browser, []string{"Sec-Fetch-Site", "none", "Sec-Fetch-Mode", "cors"}), 403},
	} {
		before := s.launches()
		c := s.ask(t, "gh/org/repo?urlpath=lab", row.header...)
		if c.StatusCode == 200 {
			want(t, c.next(t), "built")
			want(t, c.next(t), "launching") // it was launched
		}
		if launched := s.launches() - before; c.StatusCode != row.code || launched > 0 != (row.code == 200) {
			t.Errorf("%s: got %d, want %d; launched %d", name, c.StatusCode, row.code, launched)
		}
		if to := c.Header.Get("Location"); (to == "/v2/gh/org/repo?urlpath=lab") != (row.code == 302) {
			t.Errorf("%s: leads to %q", name, to)
		}
		allowsRead := c.Header.Get("Access-Control-Allow-Origin") == allowed
		if allowsRead != slices.Contains(row.header, allowed) {
			t.Errorf("%s: Access-Control-Allow-Origin is %q", name, c.Header.Get("Access-Control-Allow-Origin"))
		}
		_ = c.Body.Close()
	}
}

// Where pages of all origins may launch, windows and prefetches still do not.
func TestAnyPageMayLaunch(t *testing.T) {
	s := newSite(t, "*")
	for name, row := range map[string]struct {
		header []string
		code   int
	}{
		"a page":             {[]string{"Origin", "https://any.example", "Sec-Fetch-Site", "cross-site"}, 200},
		"a page on HTTP":     {[]string{"User-Agent", "Mozilla/5.0"}, 200},
		"a window":           {[]string{"Sec-Fetch-Site", "none", "Sec-Fetch-Mode", "navigate"}, 302},
		"a prefetch":         {[]string{"Sec-Fetch-Site", "none", "Sec-Purpose", "prefetch"}, 403},
		"no page, no window": {[]string{"Sec-Fetch-Site", "none"}, 403},
	} {
		if got := s.ask(t, "gh/org/repo", row.header...).StatusCode; got != row.code {
			t.Errorf("%s: got %d, want %d", name, got, row.code)
		}
	}
}

func TestBuildOnly(t *testing.T) {
	s := newSite(t)
	event := s.ask(t, "gh/org/repo?build_only=true").next(t)
	want(t, event, "ready", "exists")
	if s.launches() != 0 || event["url"] != nil {
		t.Errorf("launched %v, told %v", s.launched, event)
	}
}
