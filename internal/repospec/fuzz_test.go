package repospec_test

import (
	"net/url"
	"strings"
	"testing"

	. "github.com/binder-project/binder-deploy-kubernetes/internal/repospec"
)

// FuzzParse reads what strangers send. What is read is written so that it is read the same, and
// leads to no other place than its provider.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"gh/org/repo/HEAD", "gh/org/repo/feature%2Fx", "git/https%3A%2F%2Fexample.com%2Fa.git/main", "zenodo/10.5281/zenodo.1",
		"gl/a%2Fb", "gist/u/1", "gh/%2E%2E/x", "git/javascript%3Aalert(1)", "git/https%3A%2F%2Fu%3Ap%40h/x", "gh/a/b/%0d%0aSet-Cookie:x", "x",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		spec, err := Parse(text)
		if err != nil {
			return
		}
		written := spec.String()
		again, err := Parse(written)
		if err != nil || again.String() != written || again.Ref != spec.Ref || again.TemplateName() != spec.TemplateName() {
			t.Errorf("%q is read as %+v, and %q as %+v, %v", text, spec, written, again, err)
		}
		if strings.ContainsAny(written, " \r\n<>\"") {
			t.Errorf("%q is written as %q", text, written)
		}
		address := spec.URL()
		u, err := url.Parse(address)
		if err != nil || address != "" && u.Scheme != "https" && u.Scheme != "http" || u.User != nil {
			t.Errorf("%q leads to %q, %v", text, address, err)
		}
		if spec.Provider == "gh" && u.Host != "github.com" {
			t.Errorf("%q leads to %q", text, address)
		}
		patterns, err := ParsePatterns(text)
		for _, pattern := range patterns {
			if err == nil {
				pattern.Matches(spec)
			}
		}
	})
}
