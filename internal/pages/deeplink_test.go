package pages

import (
	"net/url"
	"strings"
	"testing"
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
		"%zz", "100%", "a?x=%zz", "a\xffb", strings.Repeat("a", maxDeepLink+1), strings.Repeat("é", maxDeepLink/4),
	} {
		if got, err := parseDeepLink(raw); err == nil {
			t.Errorf("parseDeepLink(%q) = %q, want an error", raw, got)
		}
	}
}

func TestDeepLink(t *testing.T) {
	for query, want := range map[string]string{
		"":                               "",
		"path=":                          "",
		"labpath=&filepath=&urlpath=":    "",
		"path=tree":                      "tree",
		"path=&urlpath=tree":             "tree",
		"path=tree&path=":                "tree",
		"other=x&labpath=a":              "doc/tree/a",
		"urlpath=lab":                    "lab",
		"urlpath=%2Flab%2Ftree%2Fx":      "lab/tree/x",
		"urlpath=rstudio/":               "rstudio/",
		"urlpath=%3Ftoken=x":             "?token=x",
		"urlpath=lab/tree/x.ipynb?reset": "lab/tree/x.ipynb?reset",
		"urlpath=lab%2Ftree%2Fa%20b.ipynb%3Freset%26x%3D1":                 "lab/tree/a%20b.ipynb?reset&x=1",
		"urlpath=git-pull%3Frepo%3Dhttps%253A%252F%252Fgit.example%252Fa":  "git-pull?repo=https%3A%2F%2Fgit.example%2Fa",
		"urlpath=git-pull%3Frepo%3Dhttps://git.example/a%26urlpath%3Dlab/": "git-pull?repo=https://git.example/a&urlpath=lab/",
		"labpath=index.ipynb":            "doc/tree/index.ipynb",
		"labpath=/index.ipynb":           "doc/tree/index.ipynb",
		"labpath=///index.ipynb":         "doc/tree/index.ipynb",
		"labpath=a/b/c.ipynb":            "doc/tree/a/b/c.ipynb",
		"labpath=a%2Fb%2Fc.ipynb":        "doc/tree/a/b/c.ipynb",
		"labpath=dir/":                   "doc/tree/dir",
		"labpath=/":                      "doc/tree/",
		"labpath=a+b%20c.ipynb":          "doc/tree/a%20b%20c.ipynb",
		"labpath=%C3%A9t%C3%A9.ipynb":    "doc/tree/%C3%A9t%C3%A9.ipynb",
		"labpath=what%3F.ipynb":          "doc/tree/what%3F.ipynb",
		"labpath=C%23%20intro.ipynb":     "doc/tree/C%23%20intro.ipynb",
		"labpath=100%25.ipynb":           "doc/tree/100%25.ipynb",
		"labpath=a%2520b.ipynb":          "doc/tree/a%2520b.ipynb",
		"labpath=javascript:x":           "doc/tree/javascript:x",
		"filepath=index.ipynb":           "tree/index.ipynb",
		"filepath=/a/b%20c.ipynb":        "tree/a/b%20c.ipynb",
		"filepath=dir/":                  "tree/dir",
		"filepath=//evil.example/x":      "tree/evil.example/x",
		"filepath=notebooks/x.ipynb%3Fy": "tree/notebooks/x.ipynb%3Fy",
	} {
		values, err := url.ParseQuery(query)
		if err != nil {
			t.Fatal(err)
		}
		got, err := deepLink(values)
		if err != nil || got != want {
			t.Errorf("%s opens %q, %v; want %q", query, got, err, want)
		}
		if again, err := deepLink(url.Values{"path": {got}}); err != nil || again != want {
			t.Errorf("%s opens %q, and that as a path %q, %v", query, got, again, err)
		}
	}
}

func TestDeepLinkRefuses(t *testing.T) {
	hostile := []string{
		"..", "../x", "%2e%2e/x", "a/../../x", "%252e%252e/x", "//../x", "a//b", `\\evil`, `a\..\b`, "a%5c..%5cb", "a\r\nX: y", "\x00", "a\xffb",
		"a/..;/b", "..?x", "..#x", strings.Repeat("a", maxDeepLink+1),
	}
	for _, parameter := range linkParameters() {
		values := hostile
		if parameter == "path" || parameter == "urlpath" { // the others name files, and slashes before those are cut
			values = append([]string{"//evil.example"}, hostile...)
		}
		for _, value := range values {
			if got, err := deepLink(url.Values{parameter: {value}}); err == nil || !strings.HasPrefix(err.Error(), "the parameter "+parameter+" ") {
				t.Errorf("%s=%q opens %q, %v; want an error that names the parameter", parameter, value, got, err)
			}
		}
		twice := "the parameter " + parameter + " is given twice"
		if _, err := deepLink(url.Values{parameter: {"a", "a"}}); err == nil || err.Error() != twice {
			t.Errorf("got %v, want %s", err, twice)
		}
		for _, other := range linkParameters() {
			if _, err := deepLink(url.Values{parameter: {"a"}, other: {"", "a", ""}}); other != parameter &&
				(err == nil || !strings.Contains(err.Error(), parameter) || !strings.Contains(err.Error(), other)) {
				t.Errorf("%s and %s: got %v, want an error that names both", parameter, other, err)
			}
		}
	}
}
