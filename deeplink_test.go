package main

import (
	"strings"
	"testing"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"

	"github.com/binder-project/binder-deploy-kubernetes/internal/pages"
)

func TestDeepLink(t *testing.T) {
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
		if got, err := pages.DeepLink(raw); err != nil || got != want {
			t.Errorf("deepLink(%q) = %q, %v; want %q", raw, got, err, want)
		}
	}
}

func TestDeepLinkRefuses(t *testing.T) {
	for _, raw := range []string{
		"http://evil.example/", "https:evil.example", "javascript:alert(1)", "data:text/html,x", "%6Aavascript:alert(1)",
		"//evil.example", "///evil.example", "/%2Fevil.example", "%2F%2Fevil.example", "%252F%252Fevil.example", "%2Fevil", "a//b", "a/%2Fb",
		"..", "../", "../other", "a/../../b", "a/..", ".", "./a", "a/./b",
		"%2e%2e/other", "%2E./other", "a/%2e%2e/%2e%2e/b", "a%2F..%2Fb", "%252e%252e/other", "%25252e%25252e/other", "..%3Fx", "..?x=1",
		"..;/other", "a/..;x=1/b", "%2e%2e%3b/other",
		`\\evil.example`, `\evil`, `a\..\b`, "%5C%5Cevil.example", "a%5c..%5cb", "%255cevil",
		"a\r\nSet-Cookie: x=1", "a%0d%0aSet-Cookie:x", "a\tb", "\x00", "a%00b", "a?x=%0d%0aSet-Cookie:y", "a?x=\x7f", "..#x",
		"%zz", "100%", "a?x=%zz", "a\xffb", strings.Repeat("a", pages.MaxDeepLink+1),
	} {
		if got, err := pages.DeepLink(raw); err == nil {
			t.Errorf("deepLink(%q) = %q, want an error", raw, got)
		}
	}
}

// FuzzDeepLink looks for what browsers would resolve to another place.
func FuzzDeepLink(f *testing.F) {
	for _, seed := range []string{"tree", "../x", "%2e%2e/x", "//h", "a?b#c", `\\h`, "a;b/..;", "%25252e/%2f"} {
		f.Add(seed)
	}
	base := instance.BaseURL(pageID)
	f.Fuzz(func(t *testing.T, raw string) {
		link, err := pages.DeepLink(raw)
		if err != nil {
			return
		}
		address := pageMustParse(t, "http://host.example"+base+"x").ResolveReference(pageMustParse(t, base+link))
		if address.Host != "host.example" || address.Scheme != "http" || !strings.HasPrefix(address.Path, base) {
			t.Errorf("%q becomes %q, which leads to %s", raw, link, address)
		}
		for _, c := range link {
			if c <= ' ' || c >= 0x7f {
				t.Errorf("%q becomes %q, which no header may hold", raw, link)
			}
		}
		if again, err := pages.DeepLink(link); err != nil || again != link {
			t.Errorf("%q becomes %q, and that %q, %v", raw, link, again, err)
		}
	})
}
