package repospec_test

import (
	"slices"
	"strings"
	"testing"

	. "github.com/binder-project/binder-deploy-kubernetes/internal/repospec"
)

func TestParse(t *testing.T) {
	for text, want := range map[string]struct {
		spec           Spec
		canonical, url string
		template       string
	}{
		"gh/Org/Repo":              {Spec{"gh", []string{"Org", "Repo"}, "HEAD"}, "gh/Org/Repo/HEAD", "https://github.com/Org/Repo", "org-repo"},
		"gh/org/repo/main":         {Spec{"gh", []string{"org", "repo"}, "main"}, "gh/org/repo/main", "https://github.com/org/repo", "org-repo"},
		"/gh/org/repo/feature/x/":  {Spec{"gh", []string{"org", "repo"}, "feature/x"}, "gh/org/repo/feature/x", "https://github.com/org/repo", "org-repo"},
		"gh/org/repo/feature%2Fx":  {Spec{"gh", []string{"org", "repo"}, "feature/x"}, "gh/org/repo/feature/x", "https://github.com/org/repo", "org-repo"},
		"gist/user/0a1b":           {Spec{"gist", []string{"user", "0a1b"}, "HEAD"}, "gist/user/0a1b/HEAD", "https://gist.github.com/user/0a1b", ""},
		"gl/group%2Fsub%2Frepo/v1": {Spec{"gl", []string{"group/sub/repo"}, "v1"}, "gl/group%2Fsub%2Frepo/v1", "https://gitlab.com/group/sub/repo", ""},
		"git/https%3A%2F%2Fexample.com%2Fa.git/main": {Spec{"git", []string{"https://example.com/a.git"}, "main"},
			"git/https:%2F%2Fexample.com%2Fa.git/main", "https://example.com/a.git", ""},
		"git/javascript%3Aalert(1)/main": {Spec{"git", []string{"javascript:alert(1)"}, "main"}, "git/javascript:alert%281%29/main", "", ""},
		"zenodo/10.5281/zenodo.3242074":  {Spec{"zenodo", []string{"10.5281", "zenodo.3242074"}, ""}, "zenodo/10.5281/zenodo.3242074", "https://doi.org/10.5281/zenodo.3242074", ""},
		"other/a/b/c":                    {Spec{"other", []string{"a", "b", "c"}, ""}, "other/a/b/c", "", ""},
	} {
		spec, err := Parse(text)
		if err != nil || spec.Provider != want.spec.Provider || !slices.Equal(spec.Repo, want.spec.Repo) || spec.Ref != want.spec.Ref {
			t.Errorf("%s: got %+v, %v, want %+v", text, spec, err, want.spec)
			continue
		}
		if spec.String() != want.canonical || spec.URL() != want.url || spec.TemplateName() != want.template {
			t.Errorf("%s: got %q, %q, %q", text, spec.String(), spec.URL(), spec.TemplateName())
		}
		again, err := Parse(spec.String())
		if err != nil || again.String() != spec.String() {
			t.Errorf("%s: read again it is %v, %v", text, again, err)
		}
	}
	for _, text := range []string{
		"", "/", "gh", "g h/org/repo", "g%20h/org/repo", "gh/org", "gh//repo", "gh/org/..", "gh/org/%2E%2E/x", "gh/org/%00/x", "gh/org/%ff/x", "gh/org/%zz", "gh/org/re\npo",
		"gh/org/" + strings.Repeat("x", 3000),
	} {
		if spec, err := Parse(text); err == nil {
			t.Errorf("%q: got %+v, want an error", text, spec)
		}
	}
}

func TestPatterns(t *testing.T) {
	const text = "gh/org/repo v1.*\n\n  gh/org/all\ngit/https%3A%2F%2Fexample.com%2Fa.git\nzenodo/10.5281/zenodo.1\n"
	patterns, err := ParsePatterns(text)
	if err != nil || len(patterns) != 4 {
		t.Fatalf("got %v, %v", patterns, err)
	}
	for spec, want := range map[string]struct{ pattern, exact bool }{
		"gh/org/repo/v1.2":        {true, true},
		"gh/ORG/Repo/v1.2":        {true, true},
		"gh/org/repo/v2":          {false, false},
		"gh/org/repo":             {false, false},
		"gh/org/all/any":          {true, false},
		"gh/org/other":            {false, false},
		"gist/org/all":            {false, false},
		"zenodo/10.5281/zenodo.1": {true, false},
		"git/https%3A%2F%2Fexample.com%2Fa.git/main": {true, false},
		"git/https%3A%2F%2Fexample.com%2FA.git/main": {false, false},
	} {
		parsed, err := Parse(spec)
		if err != nil {
			t.Fatal(err)
		}
		var got struct{ pattern, exact bool }
		for _, p := range patterns {
			if matches, exact := p.Matches(parsed); matches {
				got.pattern, got.exact = true, exact
			}
		}
		if got != want {
			t.Errorf("%s: got %+v, want %+v", spec, got, want)
		}
	}
	for text, says := range map[string]string{
		"gh/org":            "must name a repository",
		"gh/org/repo/v1":    "put it after a space",
		"gh/org/repo v1 v2": "is not a repository such as",
		"gh/org/repo [":     "not a pattern",
		"gh/org/repo\nnope": "must name a repository",
	} {
		if _, err := ParsePatterns(text); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: got %v, want one that says %q", text, err, says)
		}
	}
}
