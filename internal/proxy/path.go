package proxy

import (
	"net/http"
	"strings"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
)

// EscapedPath returns the path of a request as the client sent it. Bytes that are
// not allowed in a path (RFC 3986, section 3.3) are escaped, and nothing else is
// changed: an application may tell %2F from /, and %7C from a byte that it was sent
// unescaped. URL.EscapedPath encodes the whole path again if a single byte of it is
// not allowed.
func EscapedPath(r *http.Request) string {
	path, _ := splitTarget(r)
	return path
}

// splitTarget returns the escaped path of a request, and its query with the question
// mark, as it was sent.
func splitTarget(r *http.Request) (path, query string) {
	target := r.RequestURI
	if !strings.HasPrefix(target, "/") {
		// The absolute form (RFC 9112, section 3.2.2), or none that has a path.
		_, rest, _ := strings.Cut(target, "://")
		slash := strings.IndexAny(rest, "/?")
		if slash < 0 {
			return "", ""
		}
		target = rest[slash:]
	}
	path = target
	if mark := strings.IndexByte(target, '?'); mark >= 0 {
		path, query = target[:mark], target[mark:]
	}
	return escapeForbidden(path), query
}

// escapeForbidden escapes the bytes that a path cannot have.
func escapeForbidden(path string) string {
	forbidden := 0
	for i := range len(path) {
		if !allowedInPath(path[i]) {
			forbidden++
		}
	}
	if forbidden == 0 {
		return path
	}
	const hex = "0123456789ABCDEF"
	var escaped strings.Builder
	escaped.Grow(len(path) + 2*forbidden)
	for i := range len(path) {
		c := path[i]
		if allowedInPath(c) {
			escaped.WriteByte(c)
			continue
		}
		escaped.WriteByte('%')
		escaped.WriteByte(hex[c>>4])
		escaped.WriteByte(hex[c&15])
	}
	return escaped.String()
}

// allowedInPath reports whether a byte can stand in a path: pchar, the slash, and the
// percent sign of an escape. Square brackets are forbidden by RFC 3986, but the WHATWG
// URL standard, and so every browser, sends them as they are.
func allowedInPath(c byte) bool {
	switch {
	case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '/' <= c && c <= ':': // the digits are between
		return true
	}
	return strings.IndexByte("-._~!$&'()*+,;=@%[]", c) >= 0
}

// splitUserPath splits /user/<id>/rest. The rest keeps its leading slash, and is
// empty if the path ends with the id.
func splitUserPath(escaped string) (id, rest string, ok bool) {
	after, ok := strings.CutPrefix(escaped, instance.UserPrefix)
	if !ok {
		return "", "", false
	}
	id = after
	if slash := strings.IndexByte(after, '/'); slash >= 0 {
		id, rest = after[:slash], after[slash:]
	}
	return id, rest, instance.ValidID(id)
}
