package protocol

import (
	"encoding/json"
	"errors"
	"io"
	"math"
	"net/http"
	"strings"
	"time"
	"unicode"
)

// MaxBody bounds the body of every API request.
const MaxBody = 64 << 10

// maxIdempotencyKey bounds the Idempotency-Key header, in bytes.
const maxIdempotencyKey = 255

// DeployRequest is the body of a deploy request, read.
type DeployRequest struct {
	TemplateName string        // "" when the body has none
	CullTimeout  time.Duration // 0 when the body has none
}

// ReadDeployRequest reads the body of a deploy request; none at all is an empty
// one. Parameters come from nowhere else: the query string is not looked at.
func ReadDeployRequest(w http.ResponseWriter, r *http.Request, maxTimeout time.Duration) (DeployRequest, error) {
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
	return ParseDeployRequest(body, maxTimeout)
}

// ParseDeployRequest reads {"template-name": …, "cull-timeout": …}. Keys are
// brought to kebab-case first, as the Node server did, so that templateName and
// template_name mean the same; others are ignored, for clients send more.
func ParseDeployRequest(body []byte, maxTimeout time.Duration) (DeployRequest, error) {
	var req DeployRequest
	if len(strings.TrimSpace(string(body))) == 0 {
		return req, nil
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(body, &fields); err != nil || fields == nil {
		return req, Malformed("the body is not a JSON object")
	}
	seen := map[string]string{}
	for name, value := range fields {
		key := KebabCase(name)
		var err error
		switch key {
		case "template-name":
			req.TemplateName, err = parseTemplateName(value)
		case "cull-timeout":
			req.CullTimeout, err = ParseCullTimeout(value, maxTimeout)
		default:
			continue
		}
		if err != nil {
			return DeployRequest{}, err
		}
		if other, twice := seen[key]; twice {
			return DeployRequest{}, Malformed("%s is given twice, as %q and as %q", key, min(other, name), max(other, name))
		}
		seen[key] = name
	}
	return req, nil
}

func parseTemplateName(value json.RawMessage) (string, error) {
	var name string
	if err := json.Unmarshal(value, &name); err != nil {
		return "", Malformed("template-name must be a string")
	}
	return name, nil
}

// ParseCullTimeout reads milliseconds from a number, or from a string that is
// one: the client's command line sends strings. null is as good as absent,
// because binder-client insists on the key being there.
func ParseCullTimeout(value json.RawMessage, most time.Duration) (time.Duration, error) {
	text := string(value)
	if text == "null" {
		return 0, nil
	}
	var quoted string
	if json.Unmarshal(value, &quoted) == nil {
		text = strings.TrimSpace(quoted)
	}
	// JSON's own number syntax, so that "Infinity", "0x10" and "1_000" are none.
	var millis float64
	if err := json.Unmarshal([]byte(text), &millis); err != nil || text == "null" || millis <= 0 || math.IsInf(millis, 0) {
		return 0, Malformed("cull-timeout must be a positive number of milliseconds, at most %d (%s)", most.Milliseconds(), most)
	}
	if millis > float64(most)/float64(time.Millisecond) {
		return 0, Malformed("cull-timeout must be at most %d milliseconds (%s)", most.Milliseconds(), most)
	}
	return max(time.Duration(millis*float64(time.Millisecond)), time.Millisecond), nil
}

// ReadIdempotencyKey reads the header by which a repeated request is known; ""
// for none.
func ReadIdempotencyKey(r *http.Request) (string, error) {
	values := r.Header.Values("Idempotency-Key")
	if len(values) == 0 {
		return "", nil
	}
	key := values[0]
	invisible := func(c rune) bool { return c <= ' ' || c > '~' }
	if len(values) > 1 || key == "" || len(key) > maxIdempotencyKey || strings.ContainsFunc(key, invisible) {
		return "", Malformed("the header Idempotency-Key must hold 1 to %d visible ASCII characters, once", maxIdempotencyKey)
	}
	return key, nil
}

// KebabCase brings camelCase, snake_case and words apart to kebab-case.
func KebabCase(s string) string {
	var b strings.Builder
	dash := false // a dash is due before the next letter
	for i, r := range s {
		switch {
		case r == '_' || r == '-' || r == ' ':
			dash = b.Len() > 0
			continue
		case unicode.IsUpper(r):
			dash = dash || i > 0 && !strings.HasSuffix(b.String(), "-") && b.Len() > 0
		}
		if dash {
			b.WriteByte('-')
			dash = false
		}
		b.WriteRune(unicode.ToLower(r))
	}
	return b.String()
}
