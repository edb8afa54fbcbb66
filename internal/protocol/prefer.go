package protocol

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
)

// longestWait is for how long a request may be held at most. The API server's
// write timeout (shortRequests) leaves room for it.
const longestWait = 60 * time.Second

// AwaitSettled holds a request until the launch of an instance has come to
// something, or the time is up. It ends early with the client, or when draining
// is done: a status that is not final is an answer too.
func AwaitSettled(w http.ResponseWriter, r *http.Request, instances Awaiter, id string,
	wait time.Duration, draining context.Context) (instance.Instance, bool) {
	ctx, cancel := context.WithTimeout(r.Context(), wait)
	defer cancel()
	defer context.AfterFunc(draining, cancel)()
	inst, known := instances.Await(ctx, id, func(inst instance.Instance, known bool) bool {
		return known && instance.Settled(inst.Status)
	})
	w.Header().Set("Preference-Applied", fmt.Sprintf("wait=%d", int(wait.Seconds())))
	return inst, known
}

// PreferredWait reads for how long a client is willing to wait for an answer,
// from its Prefer headers (RFC 7240). Where a preference is given twice, the
// first one counts; what is unknown or malformed is as good as absent.
func PreferredWait(headers []string) (wait time.Duration, given bool) {
	for _, header := range headers {
		for preference := range splitUnquoted(header, ',') {
			for first := range splitUnquoted(preference, ';') { // the rest are its parameters
				name, value, _ := strings.Cut(first, "=")
				if strings.EqualFold(strings.Trim(name, " \t"), "wait") {
					return parseSeconds(unquote(strings.Trim(value, " \t")))
				}
				break
			}
		}
	}
	return 0, false
}

// parseSeconds reads delta-seconds, which are digits and nothing else.
func parseSeconds(digits string) (time.Duration, bool) {
	if digits == "" || strings.Trim(digits, "0123456789") != "" {
		return 0, false
	}
	seconds, err := strconv.Atoi(digits)
	if err != nil || seconds > int(longestWait.Seconds()) { // err: more than an int can hold
		return longestWait, true
	}
	return time.Duration(seconds) * time.Second, true
}

// splitUnquoted yields the parts between separators that are in no quoted
// string. A quoted string that does not end takes the rest with it.
func splitUnquoted(s string, separator byte) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		start, quoted := 0, false
		for i := 0; i < len(s); i++ {
			switch {
			case quoted && s[i] == '\\':
				i++
			case s[i] == '"':
				quoted = !quoted
			case s[i] == separator && !quoted:
				if !yield(s[start:i]) {
					return
				}
				start = i + 1
			}
		}
		if !quoted {
			yield(s[start:])
		}
	}
}

// unquote takes a quoted string for what it says; "" for one that is broken.
func unquote(word string) string {
	if !strings.HasPrefix(word, `"`) {
		return word
	}
	var b strings.Builder
	for i := 1; i < len(word); i++ {
		switch word[i] {
		case '"':
			if i == len(word)-1 {
				return b.String()
			}
			return ""
		case '\\':
			if i++; i == len(word) {
				return ""
			}
		}
		b.WriteByte(word[i])
	}
	return ""
}

// Awaiter waits for a change of an instance.
type Awaiter interface {
	Await(ctx context.Context, id string, good func(inst instance.Instance, known bool) bool) (instance.Instance, bool)
}
