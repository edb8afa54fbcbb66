package pages

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
)

// FuzzDeepLink looks for launch links that browsers, or servers that decode a path once
// more, resolve to another place than below the instance's base URL.
func FuzzDeepLink(f *testing.F) {
	for _, seed := range []string{
		"tree", "é?é", "../x", "%2e%2e/x", "//h", "a?b#c", `\\h`, "a;b/..;", "%25252e/%2f", "/.%2E/x", "a/.\t./b", "\u2025/x", "..%c0%af", "javascript:x", "http:x", "a/b/", "?", "#", "a%5c..%5cb", "a%09/..", "\u3002\u3002/x", "a?x=\\..\\y",
	} {
		for _, parameter := range linkParameters() {
			f.Add(parameter, seed)
		}
	}
	base := instance.BaseURL(kubetest.ID(1))
	page, err := url.Parse("http://host.example" + base + "x")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, parameter, raw string) {
		link, err := deepLink(url.Values{parameter: {raw}})
		if err != nil {
			return
		}
		address, err := page.Parse(base + link)
		if err != nil || address.Host != "host.example" || address.Scheme != "http" || !strings.HasPrefix(address.Path, base) {
			t.Errorf("%q becomes %q, which leads to %s, %v", raw, link, address, err)
		}
		for decoded := base + link; ; {
			if host, path := kubetest.Browse("host.example", LaunchPrefix+"x/y", decoded); host != "host.example" || !strings.HasPrefix(path, base) {
				t.Errorf("%q becomes %q, and then %q, by which a browser goes to %s%s", raw, link, decoded, host, path)
			}
			path, query, _ := strings.Cut(decoded, "?")
			again, err := url.PathUnescape(path)
			if err != nil || again == path {
				break
			}
			decoded = again + "?" + query
		}
		if strings.ContainsFunc(link, func(c rune) bool { return c <= ' ' || c >= 0x7f }) || len(link) > maxDeepLink {
			t.Errorf("%q becomes %q, which is not allowed in a header", raw, link)
		}
		if again, err := parseDeepLink(link); err != nil || again != link {
			t.Errorf("%q becomes %q, and that %q, %v", raw, link, again, err)
		}
	})
}

// FuzzLaunchPages sends requests to the launch page and to the page that leads from it.
// Whatever is asked, an answer leads nowhere but to our own pages or below an instance's
// base URL, and nothing is launched by a GET, or for another site.
func FuzzLaunchPages(f *testing.F) {
	for _, seed := range [][3]string{
		{"GET", "/launch/jupyter?path=tree", ""}, {"POST", "/launch/jupyter", "path=tree"}, {"POST", "/launch/a%2Fb//", "path=..%2Fx"}, {"GET", "/launch/../../evil.example", ""},
		{"GET", "/launch/x/" + kubetest.ID(1) + "?path=%2F%2Fevil", ""}, {"GET", "/launch//evil.example", ""}, {"GET", `/launch/..%5C..%5Cevil.example`, ""}, {"CONNECT", "/launch/x", ""}, {"HEAD", "/launch/%zz", ""},
	} {
		f.Add(seed[0], seed[1], seed[2], "same-origin")
		f.Add(seed[0], seed[1], seed[2], "cross-site")
	}
	f.Fuzz(func(t *testing.T, method, target, form, site string) {
		pages, s := newSite()
		r, err := http.NewRequest(method, "http://hub.example/", strings.NewReader(form))
		if err != nil {
			return
		}
		if r.URL, err = url.ParseRequestURI(target); err != nil || !strings.HasPrefix(target, LaunchPrefix) {
			return
		}
		r.RequestURI = target
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("Sec-Fetch-Site", site)
		answer := httptest.NewRecorder()
		pages.ServeHTTP(answer, r)
		if to := answer.Header().Get("Location"); to != "" {
			if host, path := kubetest.Browse("hub.example", "/", to); host != "hub.example" || !strings.HasPrefix(path, instance.UserPrefix) && !strings.HasPrefix(path, LaunchPrefix) && answer.Code == http.StatusSeeOther {
				t.Errorf("%s %q with %q leads to %q", method, target, form, to)
			}
		}
		if len(s.launched) > 0 && (method == "GET" || method == "HEAD" || site != "same-origin" && site != "none" && site != "") {
			t.Errorf("%s %q from %q launches", method, target, site)
		}
	})
}
