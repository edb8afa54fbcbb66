package informers

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
)

var pods = schema.GroupResource{Resource: "pods"}

func tooLarge() error {
	err := apierrors.NewTimeoutError("too large resource version", 1)
	err.ErrStatus.Details.Causes = []metav1.StatusCause{{Type: metav1.CauseTypeResourceVersionTooLarge}}
	return err
}

// What can pass by itself is tried again until it has, and the log tells of it. All else is
// for the reflector, which knows of it at once.
func TestPersist(t *testing.T) {
	refused := errors.New("connection refused")
	for name, test := range map[string]struct {
		err   error
		again bool
	}{
		"no connection":           {refused, true},
		"too many requests":       {apierrors.NewTooManyRequests("slow down", 1), true},
		"internal error":          {apierrors.NewInternalError(refused), true},
		"unavailable":             {apierrors.NewServiceUnavailable("starting"), true},
		"timeout":                 {apierrors.NewTimeoutError("slow", 1), true},
		"rights are not read yet": {apierrors.NewForbidden(pods, "", nil), true},
		"unauthorized":            {apierrors.NewUnauthorized("unknown token"), true},
		"expired":                 {apierrors.NewResourceExpired("too old"), false},
		"a version to come":       {tooLarge(), false},
		"streaming not supported": {apierrors.NewInvalid(schema.GroupKind{}, "", nil), false},
		"bad request":             {apierrors.NewBadRequest("no"), false},
		"no such resource":        {apierrors.NewNotFound(pods, ""), false},
	} {
		synctest.Test(t, func(t *testing.T) {
			log, lines := kubetest.RecordLog()
			attempts := 0
			got, err := persist(t.Context(), log, "pods", func() (int, error) {
				if attempts++; attempts > 20 {
					return 7, nil
				}
				return 0, test.err
			})
			logged := strings.Count(lines.String(), "\n")
			switch {
			case test.again && (err != nil || got != 7 || logged != 21):
				t.Errorf("%s: got %d, %v, want to read in the end; logged %d lines, want 21", name, got, err, logged)
			case !test.again && (!errors.Is(err, test.err) || attempts != 1 || logged > 0):
				t.Errorf("%s: got %v after %d attempts", name, err, attempts)
			}
		})
	}
}

// The waits grow, but not beyond what visitors would notice, unless the attempts take long
// themselves. The end of ctx ends them.
func TestPersistWaits(t *testing.T) {
	for _, takes := range []time.Duration{0, 30 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			log, _ := kubetest.RecordLog()
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
			defer cancel()
			var began []time.Time
			_, err := persist(ctx, log, "pods", func() (*http.Response, error) {
				began = append(began, time.Now())
				time.Sleep(takes)
				return nil, errors.New("no answer")
			})
			if err == nil || ctx.Err() == nil || len(began) < 10 {
				t.Errorf("got %v after %d attempts, before the end: %t", err, len(began), ctx.Err() == nil)
			}
			for i := 1; i < len(began); i++ {
				least, most := max(firstWait, takes), max(longestWait*3/2, takes)
				if wait := began[i].Sub(began[i-1]) - takes; wait < least || wait > most {
					t.Errorf("waited %s after attempt %d, want between %s and %s", wait, i, least, most)
				}
			}
		})
	}
}
