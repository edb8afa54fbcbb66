package pages

import (
	"net/http"
	"regexp"
	"strings"
	"testing"
)

func TestAdminPage(t *testing.T) {
	w := serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _ = ownSite().ServeAdmin(w, r) }), http.MethodGet, "/admin/", "")
	wantPage(t, w, 200, "<h1>What runs</h1>", `<label for="key">API key</label>`, `type="password" autocomplete="off"`)
	wantFrames(t, "the admin page", w, neverFramed)
	policy, body := w.Header().Get("Content-Security-Policy"), w.Body.String()
	if !strings.Contains(policy, "; connect-src 'self';") || strings.Contains(policy, "unsafe") {
		t.Errorf("the policy is %s", policy)
	}
	// A key that has a name is in the address of a form that the browser submits.
	if found := regexp.MustCompile(`<input[^>]* name=| on[a-z]+=| style=|innerHTML|outerHTML|insertAdjacentHTML|document\.write|[^.]\beval\(|localStorage|sessionStorage|document\.cookie`).FindString(body); found != "" {
		t.Errorf("the page has %q", found)
	}
}
