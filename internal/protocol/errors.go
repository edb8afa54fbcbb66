package protocol

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/binder-project/binder-deploy-kubernetes/internal/admission"
	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/launch"
	"github.com/binder-project/binder-deploy-kubernetes/internal/podtemplate"
)

// The names of errors in the Binder deploy protocol. binder-client expects
// registryError when a launch fails and noRecord when a status is not found.
const (
	typeRegistryError = "registryError"
	typeNoRecord      = "noRecord"
	// TypeBadKubeRequest means that the cluster refused the request or did not answer.
	TypeBadKubeRequest = "badKubeRequest"
	// limitKeepAlive is the Limit of changes of one instance that follow too soon.
	limitKeepAlive = "keep-alive"
	// typeLimitReached means that a launch is over a limit, which Error.Limit names. The
	// protocol has no name for that.
	typeLimitReached = "limitReached"
	// TypeUnauthorized means that the request does not carry the API key.
	TypeUnauthorized = "unauthorized"
	// TypeMalformedRequest means that the client made a mistake, which Error.Message
	// names.
	TypeMalformedRequest = "malformedRequest"
)

const (
	// retryShortly is for outages of the API server or the registry.
	retryShortly = 5 * time.Second
	// retryWhenFull is for launches beyond a ResourceQuota: places become free only as
	// instances end.
	retryWhenFull = time.Minute
)

// Error is an answer that reports an error. It is sent as a JSON object with the
// keys "type" and "error", which binder-client reads on any code but 200 and 403, and "limit".
type Error struct {
	// Code is the HTTP status code.
	Code int
	// Type is the protocol's name of the error.
	Type string
	// Message is for the client. It names the field and the values it may have.
	Message string
	// Limit is the name of the limit that the request is over; "" sends nothing.
	Limit string
	// RetryAfter is the time after which the same request can succeed. It is sent in
	// whole seconds; 0 sends nothing.
	RetryAfter time.Duration
}

// Error implements error.
func (e *Error) Error() string { return e.Message }

// Malformed returns a 422 answer of TypeMalformedRequest, with a formatted message.
func Malformed(format string, args ...any) *Error {
	return &Error{Code: http.StatusUnprocessableEntity, Type: TypeMalformedRequest, Message: fmt.Sprintf(format, args...)}
}

// OtherSite returns the answer to a request that a page of another site made a browser send.
func OtherSite() *Error {
	return &Error{
		Code: http.StatusForbidden, Type: TypeUnauthorized,
		Message: "a page of another site sent this request: only pages of the origins in --cors-allow-origin may",
	}
}

// NotAllowed returns the answer to a request whose method a path does not have, and sets the
// field Allow. A path without methods does not exist.
func NotAllowed(w http.ResponseWriter, path string, methods []string) *Error {
	if len(methods) == 0 {
		return &Error{Code: http.StatusNotFound, Type: TypeMalformedRequest, Message: "there is no such endpoint: " + path}
	}
	order := []string{http.MethodGet, http.MethodPost, http.MethodDelete}
	slices.SortFunc(methods, func(a, b string) int { return cmp.Compare(slices.Index(order, a), slices.Index(order, b)) })
	allow := strings.Join(methods, ", ")
	w.Header().Set("Allow", allow)
	return &Error{Code: http.StatusMethodNotAllowed, Type: TypeMalformedRequest, Message: "the method must be one of " + allow}
}

// AnswerFor returns the answer to a request that failed with err. Texts of the API
// server are not in it: clients are not told about the cluster.
func AnswerFor(err error) *Error {
	var answer *Error
	var template *podtemplate.Error
	var refusal *admission.Refusal
	switch {
	case errors.As(err, &answer):
		return answer
	case errors.Is(err, podtemplate.ErrUnknown):
		return &Error{Code: http.StatusNotFound, Type: typeRegistryError, Message: err.Error()}
	case errors.Is(err, podtemplate.ErrUnavailable):
		return &Error{
			Code: http.StatusServiceUnavailable, Type: typeRegistryError, RetryAfter: retryShortly,
			Message: noRegistryText(),
		}
	case errors.Is(err, launch.ErrNoRecord):
		return &Error{Code: http.StatusNotFound, Type: typeNoRecord, Message: err.Error()}
	case errors.Is(err, instance.ErrEnded):
		return &Error{Code: http.StatusGone, Type: typeNoRecord, Message: err.Error()}
	case errors.Is(err, instance.ErrTooSoon):
		return &Error{Code: http.StatusTooManyRequests, Type: typeLimitReached, Limit: limitKeepAlive, RetryAfter: retryShortly, Message: err.Error()}
	case errors.Is(err, launch.ErrUnsure):
		return &Error{Code: http.StatusServiceUnavailable, Type: TypeBadKubeRequest, RetryAfter: retryShortly, Message: err.Error()}
	case errors.As(err, &refusal):
		return &Error{
			Code: http.StatusTooManyRequests, Type: typeLimitReached, Limit: refusal.Limit, RetryAfter: refusal.RetryAfter,
			Message: refusal.Error(),
		}
	case errors.Is(err, launch.ErrBusy):
		return &Error{
			Code: http.StatusServiceUnavailable, Type: TypeBadKubeRequest, RetryAfter: retryShortly,
			Message: busyText,
		}
	case errors.Is(err, launch.ErrCapacity):
		return &Error{
			Code: http.StatusServiceUnavailable, Type: TypeBadKubeRequest, RetryAfter: retryWhenFull,
			Message: admission.AllTaken,
		}
	case errors.As(err, &template):
		return &Error{
			Code: http.StatusInternalServerError, Type: TypeBadKubeRequest,
			Message: template.Summary() + "; the server's log says why",
		}
	}
	// All other errors are the API server's: it is away, overloaded or refuses.
	return &Error{
		Code: http.StatusServiceUnavailable, Type: TypeBadKubeRequest, RetryAfter: retryShortly,
		Message: noClusterText,
	}
}

// LogFailure logs the error of a request, unless the fault is the client's, the client has
// gone, a limit works as it should, or this replica is behind: anybody can cause those at any rate. The path has
// the name of the pod in place of an id. answer is what AnswerFor returned for err.
func LogFailure(r *http.Request, log *slog.Logger, answer *Error, err error) {
	expected := errors.Is(err, launch.ErrCapacity) || errors.Is(err, launch.ErrBusy) || errors.Is(err, launch.ErrUnsure)
	if answer.Code >= http.StatusInternalServerError && !expected && !errors.Is(err, r.Context().Err()) {
		path := r.URL.Path
		if id := r.PathValue("id"); instance.ValidID(id) {
			path = strings.Replace(path, id, instance.PodName(id), 1)
		}
		log.ErrorContext(r.Context(), "request failed", "method", r.Method, "path", path, "code", answer.Code, "error", err)
	}
}

// WriteError answers a request that failed with err. It also logs err, by LogFailure.
func WriteError(w http.ResponseWriter, r *http.Request, log *slog.Logger, err error) {
	answer := AnswerFor(err)
	LogFailure(r, log, answer, err)
	if answer.RetryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(answer.RetryAfter.Seconds())))
	}
	WriteJSON(w, answer.Code, struct {
		Type  string `json:"type"`
		Error string `json:"error"`
		Limit string `json:"limit,omitempty"`
	}{answer.Type, answer.Message, answer.Limit})
}

// WriteJSON answers with an HTTP status code and a JSON body. Writing fails only
// when the client has gone, so the error is ignored.
func WriteJSON(w http.ResponseWriter, code int, body any) {
	setJSON(w.Header())
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(body)
}
