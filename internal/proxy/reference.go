package proxy

import (
	"net/url"
	"strings"
)

// Browsers read a URI reference by the URL standard (https://url.spec.whatwg.org, section
// 4.4), which forgives more than RFC 3986. What decides where a visitor goes must read it
// as they do: a backslash is a slash, %2e is a dot, and tabs and line breaks are ignored.

// withoutIgnored drops the characters of a reference that browsers ignore. All other bytes
// stay, also those that are not UTF-8.
func withoutIgnored(value string) string {
	if !strings.ContainsAny(value, "\t\r\n") {
		return value
	}
	return strings.NewReplacer("\t", "", "\r", "", "\n", "").Replace(value)
}

// beginsWithHost reports whether a browser takes the beginning of a reference for a host.
func beginsWithHost(value string) bool {
	return len(value) >= 2 && isSlash(rune(value[0])) && isSlash(rune(value[1]))
}

func isSlash(c rune) bool { return c == '/' || c == '\\' }

// pathOnly returns the reference of a path and what follows it, of which no part is taken
// for a host: /.//x leads to the path //x.
func pathOnly(path string) string {
	if beginsWithHost(path) {
		return "/." + path
	}
	return path
}

// withoutDots resolves the dot segments of a reference that begins with a path. At the
// root of an application they lead nowhere, but below its base URL they would lead out of
// it. A reference without any stays as it is.
func withoutDots(value string) string {
	end := strings.IndexAny(value, "?#")
	if end < 0 {
		end = len(value)
	}
	segments := strings.Split(strings.ReplaceAll(value[:end], `\`, "/"), "/")[1:]
	var kept []string
	changed := false
	for i, segment := range segments {
		dots := segment
		if len(dots) <= len("%2e%2e") {
			dots = strings.ReplaceAll(strings.ToLower(dots), "%2e", ".")
		}
		if dots != "." && dots != ".." {
			kept = append(kept, segment)
			continue
		}
		changed = true
		if dots == ".." && len(kept) > 0 {
			kept = kept[:len(kept)-1]
		}
		if i == len(segments)-1 {
			kept = append(kept, "")
		}
	}
	if !changed {
		return value
	}
	return "/" + strings.Join(kept, "/") + value[end:]
}

// maxUnescaped is how often an application is expected to unescape a path. Each further
// round would cost as much as the path is long, and a path can have thousands.
const maxUnescaped = 3

// beginsWithTwoSlashes reports whether a path does so to a browser, once an application has
// unescaped it up to maxUnescaped times.
func beginsWithTwoSlashes(path string) bool {
	for range maxUnescaped {
		unescaped, err := url.PathUnescape(path)
		if beginsWithHost(withoutIgnored(path)) || err != nil || unescaped == path {
			break
		}
		path = unescaped
	}
	return beginsWithHost(withoutIgnored(path))
}
