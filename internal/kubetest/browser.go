package kubetest

import "strings"

// Browse returns the host and the path that a browser asks when a page at
// http://host/path refers to an address. It follows the URL standard
// (https://url.spec.whatwg.org), which forgives more than RFC 3986: white space and
// control characters around an address and line breaks and tabs in it are dropped, a
// backslash is a slash, any number of slashes leads to a host, and %2e is a dot. For an
// address that is not of HTTP, host is its scheme with the colon.
func Browse(host, path, address string) (toHost, toPath string) {
	address = strings.TrimFunc(address, func(c rune) bool { return c <= ' ' })
	address = strings.NewReplacer("\t", "", "\n", "", "\r", "").Replace(address)
	if end := strings.IndexAny(address, "?#"); end >= 0 {
		address = address[:end]
	}
	scheme, rest, found := cutScheme(address)
	rest = strings.ReplaceAll(rest, `\`, "/")
	switch {
	case found && scheme != "http" && scheme != "https":
		return scheme + ":", rest
	case strings.HasPrefix(rest, "//"), scheme == "https": // else http: may stand before a path
		authority, below, _ := strings.Cut(strings.TrimLeft(rest, "/"), "/")
		authority = strings.ToLower(authority[strings.LastIndexByte(authority, '@')+1:])
		port := ":80"
		if scheme == "https" {
			port = ":443"
		}
		return strings.TrimSuffix(authority, port), resolve("/" + below)
	case rest == "":
		return host, resolve(path)
	case strings.HasPrefix(rest, "/"):
		return host, resolve(rest)
	}
	return host, resolve(path[:strings.LastIndexByte(path, '/')+1] + rest)
}

// cutScheme returns the scheme of an address in small letters, and what follows the colon.
func cutScheme(address string) (scheme, rest string, found bool) {
	scheme, rest, found = strings.Cut(address, ":")
	letter := func(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' }
	if !found || scheme == "" || !letter(scheme[0]) {
		return "", address, false
	}
	for i := range len(scheme) {
		if c := scheme[i]; !letter(c) && (c < '0' || c > '9') && strings.IndexByte("+-.", c) < 0 {
			return "", address, false
		}
	}
	return strings.ToLower(scheme), rest, true
}

// resolve takes the dot segments out of an absolute path.
func resolve(path string) string {
	segments := strings.Split(path[1:], "/")
	var kept []string
	for i, segment := range segments {
		dots := strings.ReplaceAll(strings.ToLower(segment), "%2e", ".")
		if dots != "." && dots != ".." {
			kept = append(kept, segment)
			continue
		}
		if dots == ".." && len(kept) > 0 {
			kept = kept[:len(kept)-1]
		}
		if i == len(segments)-1 {
			kept = append(kept, "")
		}
	}
	return "/" + strings.Join(kept, "/")
}
