// Package repospec knows how BinderHub and its clients name a repository and a version of
// it: a provider, and what that provider needs to find it, as in gh/org/repo/main.
//
// It must never know which templates there are, nor ask a provider.
package repospec

import (
	"cmp"
	"errors"
	"fmt"
	"net/url"
	"path"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxSpec is the longest spec, in bytes as it is sent.
const maxSpec = 2048

// DefaultRef is the version that a spec without one means.
const DefaultRef = "HEAD"

// github is the provider for which templates have names by rule.
const github = "gh"

// Spec names a repository and a version of it.
type Spec struct {
	// Provider says where the repository is, such as gh for GitHub.
	Provider string
	// Repo names the repository at the provider, in parts; an address is one part.
	Repo []string
	// Ref is the version: a branch, tag or commit. It is "" for a provider whose names
	// say the version, such as a DOI.
	Ref string
}

// repoParts returns how many segments of a path name a repository at a provider. For other
// providers all do: what those name has one version, or nothing here depends on it.
func repoParts(provider string) (parts int, known bool) {
	switch provider {
	case github, "gist":
		return 2, true
	case "git", "gl", "ckan", "hydroshare": // an address, or a name with slashes, in one segment
		return 1, true
	}
	return 0, false
}

// Parse reads a spec from the segments of a path as they are sent, such as
// gh/org/repo/feature/x. A version can have slashes.
func Parse(text string) (Spec, error) {
	if len(text) > maxSpec {
		return Spec{}, fmt.Errorf("it has more than %d bytes", maxSpec)
	}
	var segments []string
	for segment := range strings.SplitSeq(strings.Trim(text, "/"), "/") {
		part, err := url.PathUnescape(segment)
		if err != nil || !isName(part) {
			return Spec{}, errForm
		}
		segments = append(segments, part)
	}
	spec := Spec{Provider: strings.ToLower(segments[0]), Repo: segments[1:]}
	parts, known := repoParts(spec.Provider)
	switch {
	case strings.Trim(spec.Provider, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "":
		return Spec{}, fmt.Errorf("%q is not a provider such as gh", segments[0])
	case len(spec.Repo) == 0, known && len(spec.Repo) < parts:
		return Spec{}, fmt.Errorf("it must name a repository after %q, such as gh/org/repo/HEAD", segments[0])
	case known:
		spec.Ref = cmp.Or(strings.Join(spec.Repo[parts:], "/"), DefaultRef)
		spec.Repo = spec.Repo[:parts]
		for part := range strings.SplitSeq(spec.Ref, "/") { // a slash in it may have been escaped
			if !isName(part) {
				return Spec{}, errForm
			}
		}
	}
	return spec, nil
}

var errForm = errors.New("it must be a provider and the name of a repository, such as gh/org/repo/HEAD")

// isName reports whether a text can be a part of the name of a repository or a version.
func isName(part string) bool {
	return part != "" && part != "." && part != ".." && utf8.ValidString(part) && !strings.ContainsFunc(part, unicode.IsControl)
}

// String returns the spec as a path, with its version.
func (s Spec) String() string {
	parts := []string{s.Provider}
	for _, part := range s.Repo {
		parts = append(parts, url.PathEscape(part))
	}
	if s.Ref != "" {
		parts = append(parts, (&url.URL{Path: s.Ref}).EscapedPath())
	}
	return strings.Join(parts, "/")
}

// TemplateName returns the name that the first Binder gave to the template of a repository:
// <org>-<repo> in small letters. It is "" if there is no such rule for the provider.
func (s Spec) TemplateName() string {
	if s.Provider != github {
		return ""
	}
	return strings.ToLower(strings.Join(s.Repo, "-"))
}

// URL returns the address of the repository for people; "" if it is not known.
func (s Spec) URL() string {
	switch s.Provider {
	case github:
		return "https://github.com/" + s.path()
	case "gist":
		return "https://gist.github.com/" + s.path()
	case "gl":
		return "https://gitlab.com/" + (&url.URL{Path: s.Repo[0]}).EscapedPath()
	case "git":
		if u, err := url.Parse(s.Repo[0]); err == nil && (u.Scheme == "https" || u.Scheme == "http") && u.Host != "" && u.User == nil {
			return u.String()
		}
	case "zenodo", "figshare", "dataverse":
		return "https://doi.org/" + s.path()
	}
	return ""
}

func (s Spec) path() string {
	parts := make([]string, len(s.Repo))
	for i, part := range s.Repo {
		parts[i] = url.PathEscape(part)
	}
	return strings.Join(parts, "/")
}

// Pattern is a line of a template's annotation: a repository, and the versions of it that the
// template is for.
type Pattern struct {
	repo Spec
	refs string // a pattern of package path; "" for all
}

// ParsePatterns reads the lines of an annotation: a spec without a version, and after a space
// a pattern for versions, if the template is not for all of them. Empty lines are left out.
func ParsePatterns(text string) (patterns []Pattern, err error) {
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		switch {
		case len(fields) == 0:
			continue
		case len(fields) > 2:
			return nil, fmt.Errorf("%q is not a repository such as gh/org/repo, and a pattern for its versions such as v1.*", strings.TrimSpace(line))
		}
		p := Pattern{}
		if p.repo, err = Parse(fields[0]); err != nil {
			return nil, fmt.Errorf("%q: %w", fields[0], err)
		}
		if p.repo.Ref != "" && p.repo.Ref != DefaultRef {
			return nil, fmt.Errorf("%q has a version: put it after a space", fields[0])
		}
		if len(fields) == 2 {
			p.refs = fields[1]
			if _, err := path.Match(p.refs, ""); err != nil {
				return nil, fmt.Errorf("%q is not a pattern for versions such as v1.*: %w", p.refs, err)
			}
		}
		patterns = append(patterns, p)
	}
	return patterns, nil
}

// Names reports whether a spec is of the pattern's repository, whatever its version. GitHub's
// names are compared without case, as GitHub does.
func (p Pattern) Names(s Spec) bool {
	same := func(a, b string) bool { return a == b }
	if s.Provider == github {
		same = strings.EqualFold
	}
	return p.repo.Provider == s.Provider && slices.EqualFunc(p.repo.Repo, s.Repo, same)
}

// Matches reports whether a spec is of the pattern's repository and versions. exact says that
// the pattern names versions, so it says more than one that does not.
func (p Pattern) Matches(s Spec) (matches, exact bool) {
	if !p.Names(s) {
		return false, false
	}
	if p.refs == "" {
		return true, false
	}
	matches, _ = path.Match(p.refs, s.Ref) // ParsePatterns has tried the pattern
	return matches, true
}
