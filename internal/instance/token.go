package instance

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/textproto"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

const (
	// TokenVariable is the environment variable that has an instance's token.
	TokenVariable = "BINDER_TOKEN"
	// tokenReference stands for the token in a TokenHeaderAnnotation, as it does in
	// command and args.
	tokenReference = "$(" + TokenVariable + ")"
	// DefaultTokenHeader is the value of a TokenHeaderAnnotation that is absent.
	DefaultTokenHeader = "X-Binder-Token: " + tokenReference
	// MaxTokenHeader is the longest valid TokenHeaderAnnotation, in bytes.
	MaxTokenHeader = 256
)

// NewToken returns a random token for an instance: 16 bytes in hex. With it, an
// application tells requests that come by the proxy from all others. Anybody in the
// cluster can try the latter if no NetworkPolicy stops them.
func NewToken(random io.Reader) (string, error) {
	token, err := randomHex(random)
	if err != nil {
		return "", fmt.Errorf("read random bytes for a token: %w", err)
	}
	return token, nil
}

// ParseTokenHeader parses the value of TokenHeaderAnnotation, a header field in which
// $(BINDER_TOKEN) stands for the token, such as "Authorization: token $(BINDER_TOKEN)". It
// returns the field's name in its canonical form, and its value.
func ParseTokenHeader(annotation string) (name, value string, err error) {
	if len(annotation) > MaxTokenHeader {
		return "", "", fmt.Errorf("it has %d bytes; at most %d are allowed", len(annotation), MaxTokenHeader)
	}
	name, value, found := strings.Cut(annotation, ":")
	value = strings.TrimSpace(value)
	switch {
	case !found || !isFieldName(name):
		return "", "", errors.New("it must be the name of a header field, a colon and a value")
	case strings.Count(value, tokenReference) != 1:
		return "", "", errors.New("the value must have " + tokenReference + " in it, once")
	case strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r > '~' }):
		return "", "", errors.New("the value must be printable ASCII")
	}
	name = textproto.CanonicalMIMEHeaderKey(name)
	if isReserved(name) {
		return "", "", fmt.Errorf("%s has a meaning of its own for the proxy", name)
	}
	return name, value, nil
}

// isFieldName reports whether s is a token (RFC 9110, section 5.6.2).
func isFieldName(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return r <= ' ' || r > '~' || strings.ContainsRune(`"(),/:;<=>?@[\]{}`, r)
	})
}

// isReserved reports whether a field frames, routes or negotiates a request, so that it
// cannot carry a token. name is in its canonical form.
func isReserved(name string) bool {
	switch name {
	case "Connection", "Content-Length", "Cookie", "Expect", "Forwarded", "Host", "Keep-Alive", "Proxy-Connection", "Referer",
		"Te", "Trailer", "Transfer-Encoding", "Upgrade":
		return true
	}
	return strings.HasPrefix(name, "X-Forwarded-") || strings.HasPrefix(name, "Sec-")
}

// Token is the header field by which the proxy shows the application of an instance that a
// request comes from it. The zero value is for a pod that has no token.
type Token struct{ Name, Value string }

// TokenOf returns the field for a pod. Its annotation is invalid only if somebody has
// changed the pod; then the default applies.
func TokenOf(pod *corev1.Pod) Token {
	token := pod.Annotations[TokenAnnotation]
	if token == "" || strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return Token{}
	}
	name, value, err := ParseTokenHeader(pod.Annotations[TokenHeaderAnnotation])
	if err != nil {
		name, value, _ = ParseTokenHeader(DefaultTokenHeader)
	}
	return Token{name, strings.Replace(value, tokenReference, token, 1)}
}

// OfJupyter returns the token itself if the application takes it as Jupyter does, which
// clients of Jupyter then send; else "".
func (t Token) OfJupyter() string {
	token, found := strings.CutPrefix(t.Value, "token ")
	if !found || t.Name != "Authorization" {
		return ""
	}
	return token
}

// Set sets the field in the header of a request. What a visitor sent in it is gone.
func (t Token) Set(h http.Header) {
	if t != (Token{}) {
		h[t.Name] = []string{t.Value}
	}
}
