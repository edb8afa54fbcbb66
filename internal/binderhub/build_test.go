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
	if launched := s.launched[0]; launched.Template != "org-repo" || launched.Client != "somebody" || launched.IdempotencyKey != "" {
		t.Errorf("launched %+v", launched)
	}
}

// A browser connects again to a stream that was cut, wherever that was, and says which event
// was the last.
func TestNothingIsLaunchedTwice(t *testing.T) {
	for cut := 1; cut <= 4; cut++ {
		t.Run(fmt.Sprint("after event ", cut), func(t *testing.T) {
			s := newSite(t)
			c := s.ask(t, "gh/org/repo")
			steps := []func(){func() {}, func() {}, func() { s.start(t, kubetest.ID(1)) }, func() { s.serve(t, kubetest.ID(1)) }}
			for _, step := range steps[:cut] {
				step()
				c.next(t)
			}
			_ = c.Body.Close()
			for _, step := range steps[cut:] {
				step()
			}
			again := s.ask(t, "gh/org/repo", "Last-Event-ID", c.lastID)
			event := again.next(t)
			for event["phase"] != "ready" {
				event = again.next(t)
			}
			if url := event["url"]; url != s.url+"/user/"+kubetest.ID(1)+"/" || s.launches() != 1 {
				t.Errorf("got %v after %d launches", url, s.launches())
			}
		})
	}
}

// A client that comes back for an instance that has ended is told so.
func TestEndedIsNotLaunchedAgain(t *testing.T) {
	s := newSite(t)
	s.PutPod(t, kubetest.Pod(kubetest.ID(8), time.Now(), kubetest.Deleting))
	for _, last := range []string{kubetest.ID(8), "17", "../x"} {
		event := s.ask(t, "gh/org/repo", "Last-Event-ID", last).next(t)
		want(t, event, "failed", "has ended")
		if event["status_code"] != 410.0 {
			t.Errorf("%s: got %v", last, event)
		}
	}
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
	if len(s.stopped) > 0 {
		t.Errorf("stopped %v", s.stopped)
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
	if event := s.ask(t, "gh/org/repo").next(t); event["status_code"] != 429.0 {
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

// Pages of other sites launch nothing, whatever their request looks like.
func TestWhoMayLaunch(t *testing.T) {
	const allowed = "https://course.example"
	s := newSite(t, allowed)
	for name, row := range map[string]struct {
		header []string
		may    bool
	}{
		"no browser":           {nil, true},
		"a crawler":            {[]string{"Accept", "text/html,*/*"}, false},
		"our own page":         {[]string{"Sec-Fetch-Site", "same-origin"}, true},
		"a typed address":      {[]string{"Sec-Fetch-Site", "none"}, true},
		"our own page on HTTP": {[]string{"Referer", s.url + "/v2/gh/org/repo"}, true},
		"an allowed origin":    {[]string{"Origin", allowed, "Sec-Fetch-Site", "cross-site"}, true},
		"our origin":           {[]string{"Origin", s.url}, true},
		"another origin":       {[]string{"Origin", "https://evil.example", "Sec-Fetch-Site", "cross-site"}, false},
		"no origin at all":     {[]string{"Origin", "null"}, false},
		"an image":             {[]string{"Sec-Fetch-Site", "cross-site"}, false},
		"another subdomain":    {[]string{"Sec-Fetch-Site", "same-site"}, false},
		"an image on HTTP":     {[]string{"Referer", "http://evil.example/"}, false},
	} {
		before := s.launches()
		c := s.ask(t, "gh/org/repo", row.header...)
		if may := c.StatusCode == 200; may != row.may || s.launches() == before == row.may {
			t.Errorf("%s: got %d, launched %d", name, c.StatusCode, s.launches()-before)
		}
		allowsRead := c.Header.Get("Access-Control-Allow-Origin") == allowed
		if allowsRead != slices.Contains(row.header, allowed) {
			t.Errorf("%s: Access-Control-Allow-Origin is %q", name, c.Header.Get("Access-Control-Allow-Origin"))
		}
		_ = c.Body.Close()
	}
}

// An instance of which nobody was told is stopped.
func TestClientThatGoesAwayDuringTheLaunch(t *testing.T) {
	s := newSite(t)
	ctx, goAway := context.WithCancel(t.Context())
	s.launching = goAway
	r := httptest.NewRequestWithContext(ctx, http.MethodGet, "/build/gh/org/repo", nil)
	r.Header.Set("Accept", "text/event-stream")
	s.hub.ServeHTTP(httptest.NewRecorder(), r)
	if !slices.Equal(s.stopped, []string{kubetest.ID(1)}) {
		t.Errorf("stopped %v, want the instance", s.stopped)
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
