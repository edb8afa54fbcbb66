package protocol

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"github.com/binder-project/binder-deploy-kubernetes/internal/podtemplate"

	"github.com/binder-project/binder-deploy-kubernetes/internal/launch"
)

// The error names of the Binder deploy protocol that this service answers with.
// binder-client knows registryError on deploy and noRecord on status.
const (
	typeRegistryError    = "registryError"
	typeNoRecord         = "noRecord"
	TypeBadKubeRequest   = "badKubeRequest"
	TypeUnauthorized     = "unauthorized"
	TypeMalformedRequest = "malformedRequest"
)

// Error is an answer that is not what was asked for. Every one is sent as a
// JSON object with the protocol's type and error, for binder-client reads both
// on any code other than 200 and 403.
type Error struct {
	Code int    // HTTP status
	Type string // the protocol's name
	// Message is for the client: it names the field and the allowed values.
	Message string
	// RetryAfter, where it is not 0, tells when the same request may succeed.
	RetryAfter time.Duration
}

func (e *Error) Error() string { return e.Message }

func Malformed(format string, args ...any) *Error {
	return &Error{Code: http.StatusUnprocessableEntity, Type: TypeMalformedRequest, Message: fmt.Sprintf(format, args...)}
}

// AnswerFor says how an error is answered. Texts of the API server stay in the
// log: the client is not told how the cluster is made.
func AnswerFor(err error) *Error {
	var answer *Error
	var template *podtemplate.Error
	switch {
	case errors.As(err, &answer):
		return answer
	case errors.Is(err, podtemplate.ErrUnknown):
		return &Error{Code: http.StatusNotFound, Type: typeRegistryError, Message: err.Error()}
	case errors.Is(err, podtemplate.ErrUnavailable):
		return &Error{
			Code: http.StatusServiceUnavailable, Type: typeRegistryError, RetryAfter: 5 * time.Second,
			Message: podtemplate.ErrUnavailable.Error() + "; try again shortly",
		}
	case errors.Is(err, launch.ErrNoRecord):
		return &Error{Code: http.StatusNotFound, Type: typeNoRecord, Message: err.Error()}
	case errors.Is(err, launch.ErrCapacity):
		return &Error{
			Code: http.StatusServiceUnavailable, Type: TypeBadKubeRequest, RetryAfter: time.Minute,
			Message: "all places are taken; try again in a minute",
		}
	case errors.As(err, &template):
		return &Error{
			Code: http.StatusInternalServerError, Type: TypeBadKubeRequest,
			Message: template.Summary() + "; the server's log says why",
		}
	}
	// What is left is the API server's: away, overloaded, or refusing us.
	return &Error{
		Code: http.StatusServiceUnavailable, Type: TypeBadKubeRequest, RetryAfter: 5 * time.Second,
		Message: "the cluster does not take requests at the moment; try again shortly",
	}
}

// WriteError is the one place where an error becomes an answer, and where it is
// logged if it is ours and not the client's.
func WriteError(w http.ResponseWriter, r *http.Request, log *slog.Logger, err error) {
	answer := AnswerFor(err)
	if answer.Code >= http.StatusInternalServerError && !errors.Is(err, r.Context().Err()) {
		log.ErrorContext(r.Context(), "request failed", "method", r.Method, "path", r.URL.Path, "code", answer.Code, "error", err)
	}
	if answer.RetryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(answer.RetryAfter.Seconds())))
	}
	WriteJSON(w, answer.Code, struct {
		Type  string `json:"type"`
		Error string `json:"error"`
	}{answer.Type, answer.Message})
}

// WriteJSON sends a body. A client that has gone is all that can fail here, and
// nobody is left to be told.
func WriteJSON(w http.ResponseWriter, code int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(body)
}
