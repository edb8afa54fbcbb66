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

// maxDeepLink is the longest deep link, in bytes, as given and as escaped. Some browsers and servers refuse
// longer addresses.
const maxDeepLink = 2048

var (
	schemePattern = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9+.-]*:`)

	errDeepLink = errors.New("it must be the path of a page below the instance's address, such as tree or notebooks/index.ipynb?x=1, of at most 2048 bytes")
)

// linkParameters are the parameters of a launch link that say where the instance opens.
// All but path are those of mybinder.org's badges.
func linkParameters() []string { return []string{"path", "urlpath", "labpath", "filepath"} }

// deepLink returns the deep link that the parameters of a launch link name, as
// parseDeepLink does; "" if they name none. An empty parameter counts as absent. A link
// with two is an error: nobody can tell which of them its author means. Errors name
// the parameter.
func deepLink(parameters url.Values) (string, error) {
	var name, value string
	for _, parameter := range linkParameters() {
		for _, given := range parameters[parameter] {
			switch {
			case given == "":
			case name == parameter:
				return "", fmt.Errorf("the parameter %s is given twice", name)
			case name != "":
				return "", fmt.Errorf("the parameters %s and %s are both given: only one of them can say where to open", name, parameter)
			default:
				name, value = parameter, given
			}
		}
	}
	switch name {
	case "labpath":
		value = filePath("doc/tree/", value)
	case "filepath":
		value = filePath("tree/", value)
	}
	link, err := parseDeepLink(value)
	if err != nil {
		return "", fmt.Errorf("the parameter %s is not right: %w", name, err)
	}
	return link, nil
}

// filePath returns the deep link of the page that shows a file or directory. The value
// is the name of a file, and no part of a URL: a question mark in it belongs to the name.
// Slashes before it are cut, as BinderHub does.
func filePath(page, file string) string {
	file = strings.TrimSuffix(strings.TrimLeft(file, "/"), "/")
	return (&url.URL{Path: page + file}).EscapedPath()
}

// parseDeepLink reads a path below an instance's base URL, with an optional query. It
// returns the link escaped, so that it can be appended to the base URL. The author of
// a link may try to lead a visitor to another host or, by dot segments in any
// encoding, to another person's instance; such links are errors.
func parseDeepLink(raw string) (string, error) {
	if len(raw) > maxDeepLink || !isPlainText(raw) {
		return "", errDeepLink
	}
	raw = strings.TrimPrefix(raw, "/") // binder-web writes one
	link, err := url.Parse("/" + raw)
	if err != nil || link.Host != "" {
		return "", errDeepLink
	}
	path, _, _ := strings.Cut(raw, "#")
	path, _, _ = strings.Cut(path, "?")
	if !staysBelow(path) {
		return "", errDeepLink
	}
	if !isPlainQuery(link.RawQuery) {
		return "", errDeepLink
	}
	link.RawQuery = escapeQuery(link.RawQuery)
	escaped := strings.TrimPrefix(link.String(), "/")
	if len(escaped) > maxDeepLink { // it is what the browser gets, and what our form sends back
		return "", errDeepLink
	}
	return escaped, nil
}

// staysBelow reports whether a path stays below the URL that it is appended to, no
// matter how often a server on the way unescapes it.
func staysBelow(path string) bool {
	for {
		if !isPlainText(path) || strings.HasPrefix(path, "/") || strings.Contains(path, "//") || schemePattern.MatchString(path) {
			return false
		}
		for segment := range strings.SplitSeq(path, "/") {
			// Some servers end the name of a segment at one of these.
			if end := strings.IndexAny(segment, ";?#"); end >= 0 {
				segment = segment[:end]
			}
			if segment == "." || segment == ".." {
				return false
			}
		}
		unescaped, err := url.PathUnescape(path)
		if err != nil || unescaped == path { // ends: each round makes it shorter
			return true
		}
		path = unescaped
	}
}

// isPlainQuery reports whether a query is well-formed and has no control characters,
// which could end a header.
func isPlainQuery(query string) bool {
	decoded, err := url.QueryUnescape(query)
	return err == nil && !strings.ContainsFunc(decoded, unicode.IsControl)
}

// isPlainText reports whether a text is UTF-8 without control characters and without
// backslashes, which browsers treat as slashes.
func isPlainText(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return r == '\\' || unicode.IsControl(r) })
}

// escapeQuery escapes the bytes that are not allowed in a header, and only those.
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
