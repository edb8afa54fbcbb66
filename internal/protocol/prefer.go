package protocol

import (
	"context"
	"fmt"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
)

// longestWait is the longest time for which a request is held. The write timeout of
// the API's server must be longer.
const longestWait = 60 * time.Second

// Awaiter waits for changes of instances.
type Awaiter interface {
	// Await returns what is known of an id as soon as good accepts it, or when ctx is
	// done. known is false if nothing is known of the id.
	Await(ctx context.Context, id string, good func(inst instance.Instance, known bool) bool) (inst instance.Instance, known bool)
}

// AwaitSettled holds a request until the launch of an instance has ended, in success
// or failure, or until wait has passed. It returns early when the client goes or
// draining is done; a status that is not final is an answer too. It adds the header
// Preference-Applied to the answer.
func AwaitSettled(w http.ResponseWriter, r *http.Request, instances Awaiter, id string,
	wait time.Duration, draining context.Context) (inst instance.Instance, known bool) {
	ctx, cancel := context.WithTimeout(r.Context(), wait)
	defer cancel()
	defer context.AfterFunc(draining, cancel)()
	inst, known = instances.Await(ctx, id, func(inst instance.Instance, known bool) bool {
		return known && inst.Status.Settled()
	})
	w.Header().Set("Preference-Applied", fmt.Sprintf("wait=%d", int(wait.Seconds())))
	return inst, known
}

// ReadWatch reads whether the parameter watch asks for a stream that goes on until the
// instance ends, as Kubernetes' parameter of that name does. The error is an *Error.
func ReadWatch(r *http.Request) (bool, error) {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return false, Malformed("the query is not a list of parameters")
	}
	if !query.Has("watch") {
		return false, nil
	}
	watch, err := strconv.ParseBool(query.Get("watch"))
	if err != nil || len(query["watch"]) > 1 {
		return false, Malformed("watch is %.40q: it must be true or false, once", query.Get("watch"))
	}
	return watch, nil
}

// PreferredWait reads from Prefer headers (RFC 7240) how long a client is willing to
// wait for an answer, at most longestWait. If a preference occurs twice, the first
// counts. A preference that is unknown or malformed is ignored.
func PreferredWait(headers []string) (wait time.Duration, given bool) {
	for _, header := range headers {
		for preference := range splitUnquoted(header, ',') {
			for first := range splitUnquoted(preference, ';') { // its parameters follow
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

// parseSeconds reads delta-seconds (RFC 9111, section 1.2.2): digits only.
func parseSeconds(digits string) (time.Duration, bool) {
	if digits == "" || strings.Trim(digits, "0123456789") != "" {
		return 0, false
	}
	seconds, err := strconv.Atoi(digits)
	if err != nil || seconds > int(longestWait.Seconds()) { // err: too large for an int
		return longestWait, true
	}
	return time.Duration(seconds) * time.Second, true
}

// splitUnquoted yields the parts of s between separators that are outside quoted
// strings. A quoted string that is not closed is dropped, with all that follows.
func splitUnquoted(s string, separator byte) iter.Seq[string] {
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

// unquote returns the content of a quoted string (RFC 9110, section 5.6.4) that
// splitUnquoted has yielded, or word itself if it does not begin with a quote. A quoted
// string with text after it becomes "".
func unquote(word string) string {
	if !strings.HasPrefix(word, `"`) {
		return word
	}
	var b strings.Builder
	for i := 1; i < len(word)-1; i++ {
		switch word[i] {
		case '"':
			return ""
		case '\\':
			i++
		}
		b.WriteByte(word[i])
	}
	return b.String()
}
