// Package protocol is the Binder deploy protocol on the wire: it reads requests,
// turns errors into answers, and holds or streams answers for waiting clients. It
// also computes locations, and answers browsers that ask for CORS.
//
// It must never know routes or how instances are stored. Of Kubernetes it knows one
// object: the proxy's Service, whose address becomes the host of locations.
package protocol

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"math"
	"net/http"
	"path"
	"strings"
	"time"
	"unicode"
)

// MaxBody is the largest body of a request, in bytes.
const MaxBody = 64 << 10

// The shortest and the longest Idempotency-Key header, in bytes. A short one would be
// chosen by several clients, or guessed: who repeats it gets the first one's instance.
const (
	minIdempotencyKey = 16
	maxIdempotencyKey = 255
)

// DeployRequest is the body of a deploy request.
type DeployRequest struct {
	// TemplateName is "" if the body has none.
	TemplateName string
	// CullTimeout is 0 if the body has none.
	CullTimeout time.Duration
}

// ReadDeployRequest reads a deploy request. inPath is the template that its path names, or "":
// then the body must. shortest and longest are the cull timeouts that a client may ask for.
// Every error is an *Error.
func ReadDeployRequest(w http.ResponseWriter, r *http.Request, inPath string, shortest, longest time.Duration) (DeployRequest, error) {
	req, err := readBody(w, r, shortest, longest)
	switch {
	case err != nil:
		return DeployRequest{}, err
	case inPath == "" && req.TemplateName == "":
		return DeployRequest{}, Malformed("template-name is missing: give it in the body, or in the path as /applications/<template-name>")
	case inPath == "":
		return req, nil
	case req.TemplateName != "" && req.TemplateName != inPath:
		return DeployRequest{}, Malformed("template-name is %q in the path and %q in the body", inPath, req.TemplateName)
	}
	req.TemplateName = inPath
	return req, nil
}

// ReadKeepAlive reads a request to keep an instance alive, and returns the cull timeout that
// it asks for; 0 if it asks for none. shortest and longest are those that it may ask for. Every
// error is an *Error.
func ReadKeepAlive(w http.ResponseWriter, r *http.Request, shortest, longest time.Duration) (time.Duration, error) {
	req, err := readBody(w, r, shortest, longest)
	return req.CullTimeout, err
}

// readBody reads the body of a request about one instance. No body is the same as an empty
// object.
func readBody(w http.ResponseWriter, r *http.Request, shortest, longest time.Duration) (DeployRequest, error) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, MaxBody))
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
		return DeployRequest{}, &Error{
			Code: http.StatusRequestEntityTooLarge, Type: TypeMalformedRequest,
			Message: "the body is larger than 64 KiB",
		}
	}
	if err != nil {
		return DeployRequest{}, Malformed("the body could not be read")
	}
	return parseDeployRequest(body, shortest, longest)
}

// parseDeployRequest reads {"template-name": …, "cull-timeout": …}. It converts keys
// to kebab-case first, as the original server in Node.js did, so templateName and
// template_name mean the same. Other keys are ignored: clients send more. A field that
// is given twice is an error, in one spelling or in two: RFC 8259, section 4, leaves
// open which value counts.
func parseDeployRequest(body []byte, shortest, longest time.Duration) (DeployRequest, error) {
	if len(strings.TrimSpace(string(body))) == 0 {
		return DeployRequest{}, nil
	}
	members, err := parseMembers(body)
	if err != nil {
		return DeployRequest{}, err
	}
	var req DeployRequest
	seen := map[string]string{}
	for _, m := range members {
		key := kebabCase(m.name)
		switch key {
		case "template-name":
			req.TemplateName, err = parseTemplateName(m.value)
		case "cull-timeout":
			req.CullTimeout, err = parseCullTimeout(m.value, shortest, longest)
		default:
			continue
		}
		if err != nil {
			return DeployRequest{}, err
		}
		switch other, twice := seen[key]; {
		case twice && other == m.name:
			return DeployRequest{}, Malformed("%s is given twice", key)
		case twice:
			return DeployRequest{}, Malformed("%s is given twice, as %.40q and as %.40q", key, other, m.name)
		}
		seen[key] = m.name
	}
	return req, nil
}

// member is one name and value of a JSON object.
type member struct {
	name  string
	value json.RawMessage
}

// parseMembers returns the members of a JSON object in their order. Unlike a map, it
// keeps members of the same name.
func parseMembers(body []byte) ([]member, error) {
	notObject := Malformed("the body is not a JSON object")
	if !json.Valid(body) { // the decoder would not see what follows the object
		return nil, notObject
	}
	decoder := json.NewDecoder(bytes.NewReader(body))
	if first, err := decoder.Token(); err != nil || first != json.Delim('{') {
		return nil, notObject
	}
	var members []member
	for decoder.More() {
		name, err := decoder.Token()
		if err != nil {
			return nil, notObject
		}
		m := member{name: name.(string)} // it is valid JSON, so this is a name
		if err := decoder.Decode(&m.value); err != nil {
			return nil, notObject
		}
		members = append(members, m)
	}
	return members, nil
}

func parseTemplateName(value json.RawMessage) (string, error) {
	var name string
	if err := json.Unmarshal(value, &name); err != nil {
		return "", Malformed("template-name must be a string")
	}
	return name, nil
}

// parseCullTimeout reads milliseconds, from shortest to longest. The value is a number or
// a string that holds one, because binder-client's command line sends strings. null
// means that there is none, because binder-client requires the key.
//
// What is too short is refused like what is too long. The protocol has no bounds; but who
// sends 60 most likely means another unit than milliseconds, and would wonder at an
// instance with another timeout than the one asked for.
func parseCullTimeout(value json.RawMessage, shortest, longest time.Duration) (time.Duration, error) {
	text := string(value)
	if text == "null" {
		return 0, nil
	}
	var quoted string
	if json.Unmarshal(value, &quoted) == nil {
		text = strings.TrimSpace(quoted)
	}
	// JSON's syntax of numbers has no "Infinity", "0x10" or "1_000".
	var millis float64
	if err := json.Unmarshal([]byte(text), &millis); err != nil || text == "null" || millis <= 0 || math.IsInf(millis, 0) {
		return 0, Malformed("cull-timeout must be a positive number of milliseconds, from %d (%s) to %d (%s)",
			shortest.Milliseconds(), shortest, longest.Milliseconds(), longest)
	}
	switch {
	case millis > float64(longest)/float64(time.Millisecond):
		return 0, Malformed("cull-timeout must be at most %d milliseconds (%s)", longest.Milliseconds(), longest)
	case millis < float64(shortest)/float64(time.Millisecond):
		return 0, Malformed("cull-timeout must be at least %d milliseconds (%s)", shortest.Milliseconds(), shortest)
	}
	return max(time.Duration(millis*float64(time.Millisecond)), time.Millisecond), nil
}

// ReadIdempotencyKey reads the header Idempotency-Key, which identifies a repeated
// request; "" if there is none. The error is an *Error.
func ReadIdempotencyKey(r *http.Request) (string, error) {
	values := r.Header.Values("Idempotency-Key")
	if len(values) == 0 {
		return "", nil
	}
	key := values[0]
	invisible := func(c rune) bool { return c <= ' ' || c > '~' }
	if len(values) > 1 || len(key) < minIdempotencyKey || len(key) > maxIdempotencyKey || strings.ContainsFunc(key, invisible) {
		return "", Malformed("the header Idempotency-Key must hold %d to %d visible ASCII characters, once", minIdempotencyKey, maxIdempotencyKey)
	}
	return key, nil
}

// kebabCase converts camelCase, snake_case and separate words to kebab-case.
func kebabCase(s string) string {
	var b strings.Builder
	dash := false // a dash is due before the next letter
	for _, r := range s {
		if r == '_' || r == '-' || r == ' ' {
			dash = true
			continue
		}
		if (dash || unicode.IsUpper(r)) && b.Len() > 0 {
			b.WriteByte('-')
		}
		b.WriteRune(unicode.ToLower(r))
		dash = false
	}
	return b.String()
}

// IsPlainPath reports whether path.Clean leaves a path as it is: it has no // and no dots as
// segments, and does not end with a slash, unless it is /.
func IsPlainPath(escaped string) bool {
	// Without these, there is nothing to clean.
	if strings.HasPrefix(escaped, "/") && !strings.HasSuffix(escaped, "/") && !strings.Contains(escaped, "//") && !strings.Contains(escaped, "/.") {
		return true
	}
	return escaped == path.Clean(escaped)
}

// TrimSlash makes /x/ the same path as /x. It does not redirect: a client that posts
// would not follow.
func TrimSlash(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if short := strings.TrimRight(r.URL.Path, "/"); short != "" && short != r.URL.Path {
			trimmed := r.Clone(r.Context())
			trimmed.URL.Path = short
			trimmed.URL.RawPath = strings.TrimRight(r.URL.RawPath, "/")
			r = trimmed
		}
		next.ServeHTTP(w, r)
	})
}
