package pages

import (
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"
)

// MaxDeepLink bounds a deep link: what is longer is no address that browsers take.
const MaxDeepLink = 2048

var (
	schemePattern = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9+.-]*:`)

	errDeepLink = errors.New("it must be the path of a page below the instance's address, such as tree or notebooks/index.ipynb?x=1")
)

// DeepLink reads a path below an instance's base URL, with its query, and
// returns it so that it can be put after one. It comes from whoever wrote a
// link, who may want to lead a visitor elsewhere: to another host, or, by dots
// in any disguise, to an instance that is not his.
func DeepLink(raw string) (string, error) {
	if len(raw) > MaxDeepLink || !plainText(raw) {
		return "", errDeepLink
	}
	raw = strings.TrimPrefix(raw, "/") // as binder-web writes them
	link, err := url.Parse("/" + raw)
	if err != nil || link.Host != "" {
		return "", errDeepLink
	}
	path, _, _ := strings.Cut(raw, "#")
	path, _, _ = strings.Cut(path, "?")
	if !below(path) {
		return "", errDeepLink
	}
	if !plainQuery(link.RawQuery) {
		return "", errDeepLink
	}
	link.RawQuery = escapeQuery(link.RawQuery)
	return strings.TrimPrefix(link.String(), "/"), nil
}

// below reports whether a path stays below what it is put after, however often
// it is unescaped on the way.
func below(path string) bool {
	for {
		if !plainText(path) || strings.HasPrefix(path, "/") || strings.Contains(path, "//") || schemePattern.MatchString(path) {
			return false
		}
		for segment := range strings.SplitSeq(path, "/") {
			// What follows one of these is not part of the name to some servers.
			if end := strings.IndexAny(segment, ";?#"); end >= 0 {
				segment = segment[:end]
			}
			if segment == "." || segment == ".." {
				return false
			}
		}
		unescaped, err := url.PathUnescape(path)
		if err != nil || unescaped == path { // each time it gets shorter
			return true
		}
		path = unescaped
	}
}

// plainQuery reports whether a query holds nothing that could break out of a header.
func plainQuery(query string) bool {
	decoded, err := url.QueryUnescape(query)
	return err == nil && !strings.ContainsFunc(decoded, unicode.IsControl)
}

// plainText reports whether a text has neither control characters nor
// backslashes, which browsers take for slashes.
func plainText(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return r == '\\' || unicode.IsControl(r) })
}

// escapeQuery escapes what no header may hold, and leaves the rest as it is.
func escapeQuery(query string) string {
	var b strings.Builder
	for _, c := range []byte(query) {
		if c == ' ' || c >= utf8.RuneSelf {
			fmt.Fprintf(&b, "%%%02X", c)
			continue
		}
		b.WriteByte(c)
	}
	return b.String()
}
