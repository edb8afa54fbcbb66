package pages

import (
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
)

// visitor is a browser at one instance, which was restarted some times.
type visitor struct {
	inst   instance.Instance
	cookie string // the Cookie header
}

func newVisitor(restarts int32) *visitor {
	return &visitor{inst: instance.Instance{
		ID: kubetest.ID(1), Template: "jupyter", Status: instance.StatusDeployed, Restarts: restarts, RestartReason: "exited with code 3",
	}}
}

// asPage are the headers by which a browser loads a page.
func asPage() []string {
	return []string{"Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document", "Sec-Fetch-Site", "none", "Upgrade-Insecure-Requests", "1"}
}

// visit makes a request to a path of the instance. forwarded is what the application
// gets, or nil.
func (v *visitor) visit(t testing.TB, method, rest string, header ...string) (forwarded *http.Request, w *httptest.ResponseRecorder) {
	t.Helper()
	if v.cookie != "" {
		header = append([]string{"Cookie", v.cookie}, header...)
	}
	w = serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		before := r.Header.Clone()
		target := r.URL.String()
		var answered bool
		if forwarded, answered = ownSite().RestartNotice(w, r, v.inst, []string{"https://hub.example"}); answered != (forwarded == nil) {
			t.Errorf("answered is %t, and the request %v", answered, forwarded)
		}
		if !answered { // as the proxy does
			forwarded = forwarded.WithContext(t.Context())
			forwarded.Header = maps.Clone(forwarded.Header)
			RemoveRestartCookie(forwarded.Header, v.inst.ID)
			if forwarded.RequestURI != forwarded.URL.RequestURI() {
				t.Errorf("the target is %q, and the address %q", forwarded.RequestURI, forwarded.URL)
			}
		}
		if !slices.Equal(before["Cookie"], r.Header["Cookie"]) || r.URL.String() != target {
			t.Error("the visitor's request was changed")
		}
	}), method, instance.BaseURL(v.inst.ID)+rest, "", header...)
	for _, set := range w.Result().Cookies() {
		v.cookie = set.Name + "=" + set.Value
	}
	return forwarded, w
}

func TestRestartNoticeIsShownOnce(t *testing.T) {
	v := newVisitor(0)
	if forwarded, _ := v.visit(t, "GET", "lab", asPage()...); forwarded == nil || v.cookie != "" {
		t.Fatal("a visitor was told of a restart that was not")
	}
	v.inst.Restarts = 1
	_, w := v.visit(t, "GET", "lab/tree/a%2Fb%7C.ipynb?x=1&y=%20", asPage()...)
	wantPage(t, w, 200, "<title>jupyter was restarted</title>", "The application in this instance ended (exited with code 3). It was started again, once.",
		`<a class="button" href="/user/`+kubetest.ID(1)+`/lab/tree/a%2Fb%7C.ipynb?x=1&amp;y=%20&amp;binder-restarts=1">Go on</a>`)
	wantFrames(t, "the notice", w, "'self' https://hub.example")
	if got, want := w.Header().Get("Set-Cookie"), "binder-restarts-"+kubetest.ID(1)+"=1; Path=/user/"+kubetest.ID(1)+"/; HttpOnly; SameSite=Lax"; got != want {
		t.Errorf("the cookie is %q, want %q", got, want)
	}
	// The visitor goes on. The application's scripts do not see our parameter.
	_, w = v.visit(t, "GET", "lab/tree/a%2Fb%7C.ipynb?x=1&y=%20&binder-restarts=1", asPage()...)
	if got := w.Header().Get("Location"); w.Code != http.StatusSeeOther || got != instance.BaseURL(kubetest.ID(1))+"lab/tree/a%2Fb%7C.ipynb?x=1&y=%20" {
		t.Errorf("goes on with %d to %q", w.Code, got)
	}
	forwarded, w := v.visit(t, "GET", "lab/tree/a%2Fb%7C.ipynb?x=1&y=%20", asPage()...)
	if forwarded == nil || w.Header().Get("Set-Cookie") != "" || forwarded.Header.Get("Cookie") != "" {
		t.Errorf("the second visit got %d, and the application %v", w.Code, forwarded)
	}
	v.inst.Restarts, v.inst.RestartReason = 3, ""
	_, w = v.visit(t, "GET", "", asPage()...)
	wantPage(t, w, 200, "this instance ended. It was started again, 3 times so far.", `href="/user/`+kubetest.ID(1)+`/?binder-restarts=3"`)
	if strings.Contains(w.Body.String(), "<dl>") {
		t.Errorf("the notice has empty details:\n%s", w.Body)
	}
}

// TestRestartNoticeWithoutCookies: the link of the notice leads on, and only past this
// restart.
func TestRestartNoticeWithoutCookies(t *testing.T) {
	for query, want := range map[string]string{ // what the application gets; "" for the notice
		"?binder-restarts=2":                 "/user/" + kubetest.ID(1) + "/",
		"?a=%zz&binder-restarts=2&b=c;d&":    "/user/" + kubetest.ID(1) + "/?a=%zz&b=c;d&",
		"?binder-restarts=9999":              "/user/" + kubetest.ID(1) + "/",
		"?binder-restarts=1":                 "",
		"?binder-restarts=1&binder-restarts": "",
		"?binder-restarts=-1":                "",
		"?binder-restarts=99999999999999":    "",
		"?Binder-restarts=2":                 "",
	} {
		v := newVisitor(2)
		forwarded, _ := v.visit(t, "GET", query, asPage()...)
		got := ""
		if forwarded != nil {
			got = forwarded.URL.RequestURI()
		}
		if got != want {
			t.Errorf("%s: the application got %q, want %q", query, got, want)
		}
	}
}

// TestRestartNoticeIsForPages: whatever is no page is forwarded, without our cookie.
func TestRestartNoticeIsForPages(t *testing.T) {
	plain := []string{"Upgrade-Insecure-Requests", "1"} // over plain HTTP, and of older browsers
	fetched := func(mode, dest, site string) []string {
		return []string{"Sec-Fetch-Mode", mode, "Sec-Fetch-Dest", dest, "Sec-Fetch-Site", site, "Upgrade-Insecure-Requests", "1"}
	}
	for _, row := range []struct {
		name, method string
		header       []string
		told         bool
	}{
		{"a page", "GET", asPage(), true},
		{"a page over plain HTTP", "GET", plain, true},
		{"a reload", "GET", fetched("navigate", "document", "same-origin"), true},
		{"a frame of another site", "GET", fetched("navigate", "iframe", "cross-site"), true},
		{"a frame in the application", "GET", fetched("navigate", "iframe", "same-origin"), false},
		{"an embedded object", "GET", fetched("navigate", "object", "cross-site"), false},
		{"a script's request", "GET", fetched("cors", "empty", "same-origin"), false},
		{"a script's request for HTML over plain HTTP", "GET", nil, false},
		{"a WebSocket", "GET", append(plain, "Upgrade", "websocket"), false},
		{"a program", "GET", append(plain, "Accept", "*/*"), false},
		{"a prefetch", "GET", append(asPage(), "Sec-Purpose", "prefetch;prerender"), false},
		{"HEAD", "HEAD", asPage(), false},
		{"a form", "POST", asPage(), false},
		{"PUT", "PUT", asPage(), false},
	} {
		v := newVisitor(1)
		v.cookie = "a=1; binder-restarts-" + kubetest.ID(1) + "=0; b=2"
		forwarded, w := v.visit(t, row.method, "lab?binder-restarts=0", row.header...)
		if (forwarded == nil) != row.told {
			t.Errorf("%s: told is %t, want %t: %d", row.name, forwarded == nil, row.told, w.Code)
		}
		if forwarded != nil && (forwarded.Header.Get("Cookie") != "a=1; b=2" || w.Header().Get("Set-Cookie") != "") {
			t.Errorf("%s: the application got the cookies %q", row.name, forwarded.Header["Cookie"])
		}
	}
}

func TestRestartCookie(t *testing.T) {
	ours := restartCookiePrefix + kubetest.ID(1)
	for sent, want := range map[string]struct {
		forwarded string
		told      bool
	}{
		"":                            {"", false},
		ours + "=2":                   {"", true},
		ours + "=3":                   {"", true},
		ours + "=2;":                  {"", true},
		"a=b; " + ours + "=2":         {"a=b", true},
		ours + "=2; a=\"b\"":          {"a=\"b\"", true},
		"a= b ;c;" + ours + "=2;;d==": {"a= b ;c;;d==", true},
		"x" + ours + "=2":             {"x" + ours + "=2", false},
		ours + "x=2":                  {ours + "x=2", false},
		"binder-restarts-" + kubetest.ID(2) + "=2": {"binder-restarts-" + kubetest.ID(2) + "=2", false},
		ours + "=1":                 {"", false},
		ours + "=":                  {"", false},
		ours:                        {"", false},
		ours + "=-2":                {"", false},
		ours + "=4294967298":        {"", false},
		ours + "=two":               {"", false},
		ours + "=1; " + ours + "=2": {"", false}, // the first counts
	} {
		v := newVisitor(2)
		v.cookie = sent
		forwarded, _ := v.visit(t, "GET", "", asPage()...)
		if (forwarded != nil) != want.told {
			t.Errorf("%q: counts as told: %t, want %t", sent, forwarded != nil, want.told)
		}
		v.cookie = sent
		forwarded, _ = v.visit(t, "POST", "")
		if got := strings.Join(forwarded.Header["Cookie"], "|"); got != want.forwarded {
			t.Errorf("%q: the application got %q, want %q", sent, got, want.forwarded)
		}
	}
}
