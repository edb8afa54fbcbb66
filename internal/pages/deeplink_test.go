package pages

import (
	"net/url"
	"strings"
	"testing"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
)

func TestParseDeepLink(t *testing.T) {
	for raw, want := range map[string]string{
		"":                            "",
		"tree":                        "tree",
		"/tree":                       "tree",
		"tree/":                       "tree/",
		"notebooks/index.ipynb?x=1&y": "notebooks/index.ipynb?x=1&y",
		"?token=a":                    "?token=a",
		"lab/tree/a b.ipynb":          "lab/tree/a%20b.ipynb",
		"lab/tree/a%20b%2Fc.ipynb":    "lab/tree/a%20b%2Fc.ipynb",
		"tree/é?name=é è":             "tree/%C3%A9?name=%C3%A9%20%C3%A8",
		"tree#part":                   "tree#part",
		"a..b/...":                    "a..b/...",
		"tree/b:c":                    "tree/b:c",
		"git-pull?repo=https%3A%2F%2Fgit.example%2Fa&urlpath=../x": "git-pull?repo=https%3A%2F%2Fgit.example%2Fa&urlpath=../x",
		"go?to=http://git.example/":                                "go?to=http://git.example/",
		`tree/"><script>`:                                          "tree/%22%3E%3Cscript%3E",
	} {
		if got, err := parseDeepLink(raw); err != nil || got != want {
			t.Errorf("parseDeepLink(%q) = %q, %v; want %q", raw, got, err, want)
		}
	}
}

func TestParseDeepLinkRefuses(t *testing.T) {
	for _, raw := range []string{
		"http://evil.example/", "https:evil.example", "javascript:alert(1)", "data:text/html,x", "%6Aavascript:alert(1)",
		"//evil.example", "///evil.example", "/%2Fevil.example", "%2F%2Fevil.example", "%252F%252Fevil.example", "%2Fevil", "a//b", "a/%2Fb",
		"..", "../", "../other", "a/../../b", "a/..", ".", "./a", "a/./b",
		"%2e%2e/other", "%2E./other", "a/%2e%2e/%2e%2e/b", "a%2F..%2Fb", "%252e%252e/other", "%25252e%25252e/other", "..%3Fx", "..?x=1",
		"..;/other", "a/..;x=1/b", "%2e%2e%3b/other",
		`\\evil.example`, `\evil`, `a\..\b`, "%5C%5Cevil.example", "a%5c..%5cb", "%255cevil",
		"a\r\nSet-Cookie: x=1", "a%0d%0aSet-Cookie:x", "a\tb", "\x00", "a%00b", "a?x=%0d%0aSet-Cookie:y", "a?x=\x7f", "..#x",
		"%zz", "100%", "a?x=%zz", "a\xffb", strings.Repeat("a", maxDeepLink+1),
	} {
		if got, err := parseDeepLink(raw); err == nil {
			t.Errorf("parseDeepLink(%q) = %q, want an error", raw, got)
		}
	}
}

// FuzzParseDeepLink looks for links that browsers resolve to another place.
func FuzzParseDeepLink(f *testing.F) {
	for _, seed := range []string{"tree", "../x", "%2e%2e/x", "//h", "a?b#c", `\\h`, "a;b/..;", "%25252e/%2f"} {
		f.Add(seed)
	}
	base := instance.BaseURL(kubetest.ID(1))
	page, err := url.Parse("http://host.example" + base + "x")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		link, err := parseDeepLink(raw)
		if err != nil {
			return
		}
		address, err := page.Parse(base + link)
		if err != nil || address.Host != "host.example" || address.Scheme != "http" || !strings.HasPrefix(address.Path, base) {
			t.Errorf("%q becomes %q, which leads to %s, %v", raw, link, address, err)
		}
		if strings.ContainsFunc(link, func(c rune) bool { return c <= ' ' || c >= 0x7f }) {
			t.Errorf("%q becomes %q, which is not allowed in a header", raw, link)
		}
		if again, err := parseDeepLink(link); err != nil || again != link {
			t.Errorf("%q becomes %q, and that %q, %v", raw, link, again, err)
		}
	})
}
