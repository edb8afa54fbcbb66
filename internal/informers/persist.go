package informers

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
)

// A reflector of client-go waits for up to a minute before it tries again what has failed a few
// times, and for that long its picture stays old though the API server is back. These waits are
// shorter. A read that takes long to fail is a burden: its wait is at least as long.
const (
	firstWait   = 500 * time.Millisecond
	longestWait = 5 * time.Second
	waitFactor  = 1.5
	waitJitter  = 0.5 // so that replicas do not ask at the same time
)

// persist reads until that succeeds, or fails for a reason that no other attempt would change,
// or ctx is done. It logs each failure, so log should hold repetitions back.
func persist[T any](ctx context.Context, log *slog.Logger, resource string, read func() (T, error)) (T, error) {
	waits := wait.Backoff{Duration: firstWait, Cap: longestWait, Factor: waitFactor, Jitter: waitJitter, Steps: 10}
	log = log.With("resource", resource)
	for failed := false; ; failed = true {
		began := time.Now()
		result, err := read()
		switch {
		case err == nil && failed:
			log.InfoContext(ctx, "the cluster is read again")
			return result, nil
		case err == nil, ctx.Err() != nil:
			return result, err
		case apierrors.IsForbidden(err), apierrors.IsUnauthorized(err):
			log.WarnContext(ctx, "the API server refuses a read, will be tried again: do the Roles allow it?", "error", err)
		case mayPass(err):
			log.WarnContext(ctx, "the cluster cannot be read, will be tried again", "error", err)
		default:
			return result, err // the reflector knows what to do
		}
		select {
		case <-ctx.Done():
			return result, ctx.Err()
		case <-time.After(max(waits.Step(), time.Since(began))):
		}
	}
}

// mayPass reports whether a request that failed can succeed later as it is. One that goes on
// from a version that the API server no longer has, or does not have yet, cannot.
func mayPass(err error) bool {
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		return true // not answered
	}
	code := status.Status().Code
	return code == http.StatusTooManyRequests || code >= http.StatusInternalServerError &&
		!apierrors.HasStatusCause(err, metav1.CauseTypeResourceVersionTooLarge)
}
