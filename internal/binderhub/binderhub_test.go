package binderhub

import (
	"encoding/json"
	"encoding/xml"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
	"github.com/binder-project/binder-deploy-kubernetes/internal/podtemplate"
)

// get asks for a path, and follows no redirect.
func (s *site) get(t *testing.T, method, path string) *http.Response {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, s.url+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = response.Body.Close() })
	return response
}

func TestLinks(t *testing.T) {
	s := newSite(t)
	for path, want := range map[string]string{
		"/v2/gh/Org/Repo/HEAD?urlpath=lab%2Ftree%2Fa.ipynb": "/launch/org-repo?urlpath=lab%2Ftree%2Fa.ipynb",
		"/v2/gh/school/course/2026a":                        "/launch/course",
		"/v2/gh/school/old/2026":                            "/launch/school-old",
		"/v2/git/https%3A%2F%2Fexample.com%2Fa.git/main?x":  "/launch/course?x",
		"/repo/Org/Repo?filepath=a":                         "/v2/gh/Org/Repo/HEAD?filepath=a",
		"/repo/org/repo/tree":                               "/v2/gh/org/repo/tree",
	} {
		response := s.get(t, http.MethodGet, path)
		if got := response.Header.Get("Location"); response.StatusCode != 302 || got != want {
			t.Errorf("%s: got %d %s, want %s", path, response.StatusCode, got, want)
		}
	}
	for path, row := range map[string]struct {
		code int
		says string
	}{
		"/v2/gh/school/old/2025":         {404, "binder-project.org/specs"}, // a template of the name is for other versions
		"/v2/gh/school/course/2025?x":    {404, "with the name school-course"},
		"/v2/gl/a%2Fb/main":              {404, "gl/a%2Fb/main"},
		"/v2/gh/org/%3Cscript%3E/main":   {404, "gh/org/%3Cscript%3E/main"},
		"/v2/gh":                         {400, "gh/org/repo/HEAD"},
		"/v2///evil.example/x":           {400, "evil.example"},
		"/v2/gh/%2F%2Fevil.example/x/..": {400, "gh/org/repo/HEAD"},
	} {
		response := s.get(t, http.MethodGet, path)
		if text := body(t, response); response.StatusCode != row.code || !strings.Contains(text, row.says) || response.Header.Get("Location") != "" {
			t.Errorf("%s: got %d %s %v, want %d with %q", path, response.StatusCode, text, response.Header, row.code, row.says)
		}
	}
	s.templatesFail = podtemplate.ErrUnavailable
	if got := s.get(t, http.MethodGet, "/v2/gh/org/repo/HEAD").StatusCode; got != 503 {
		t.Errorf("without the registry: got %d", got)
	}
	if s.launches() != 0 {
		t.Errorf("links have launched %v: crawlers follow them too", s.launched)
	}
	for path, code := range map[string]int{"/repo/org": 404, "/v1": 404} {
		if got := s.get(t, http.MethodGet, path).StatusCode; got != code {
			t.Errorf("%s: got %d, want %d", path, got, code)
		}
	}
	if got := s.get(t, http.MethodPost, "/v2/gh/org/repo").StatusCode; got != 405 {
		t.Errorf("POST: got %d", got)
	}
}

func TestVersions(t *testing.T) {
	response := newSite(t).get(t, http.MethodGet, "/versions")
	var got map[string]any
	if err := json.Unmarshal([]byte(body(t, response)), &got); err != nil {
		t.Fatal(err)
	}
	if got["binderhub"] != "binder-deploy-kubernetes 1.2.3" || response.Header.Get("Access-Control-Allow-Origin") != "*" {
		t.Errorf("got %v %v", got, response.Header)
	}
}

func TestHealth(t *testing.T) {
	quota := func(name corev1.ResourceName, hard string) []*corev1.ResourceQuota {
		return []*corev1.ResourceQuota{{Status: corev1.ResourceQuotaStatus{Hard: corev1.ResourceList{name: resource.MustParse(hard)}}}}
	}
	answer := func(ok, fits bool, quota string) string {
		return fmt.Sprintf(`{"ok":%t,"checks":[{"service":"Kubernetes API","ok":%t},{"service":"Pod quota","ok":%t,"total_pods":3,"user_pods":2,"quota":%s,"_ignore_failure":true}]}`, ok, ok, fits, quota)
	}
	for name, row := range map[string]struct {
		most   int
		quotas []*corev1.ResourceQuota
		paused bool
		sick   bool
		code   int
		want   string
	}{
		"no limit":              {0, quota("requests.cpu", "2"), false, false, 200, answer(true, true, "null")},
		"a limit":               {3, nil, false, false, 200, answer(true, true, "4")}, // and one is warm
		"a quota":               {5, quota("count/pods", "3"), false, false, 200, answer(true, false, "3")},
		"a larger quota":        {2, quota("pods", "300"), false, false, 200, answer(true, false, "3")},
		"a quota of none":       {0, quota("pods", "0"), false, false, 200, answer(true, false, "0")},
		"paused":                {5, nil, true, false, 200, answer(true, false, "3")},
		"without an API server": {0, nil, false, true, 503, answer(false, true, "null")},
	} {
		s := &site{t: t, most: row.most, quotas: row.quotas, sick: row.sick, change: func(d *Deps) { d.Paused = row.paused }}
		s.open(t, nil)
		for _, n := range []int{1, 2, 3} {
			s.PutPod(t, kubetest.Pod(kubetest.ID(n), time.Now()))
		}
		response := s.get(t, http.MethodGet, "/health")
		if got := strings.TrimSpace(body(t, response)); response.StatusCode != row.code || got != row.want {
			t.Errorf("%s: got %d %s, want %d %s", name, response.StatusCode, got, row.code, row.want)
		}
	}
}

func TestBadges(t *testing.T) {
	s := newSite(t)
	for _, path := range []string{"/badge.svg", "/badge_logo.svg"} {
		response := s.get(t, http.MethodGet, path)
		text := body(t, response)
		if err := xml.Unmarshal([]byte(text), new(struct{ XMLName xml.Name })); err != nil || response.Header.Get("Content-Type") != "image/svg+xml" {
			t.Errorf("%s: %v %v", path, err, response.Header)
		}
	}
}
