package launch

import (
	"context"
	"errors"
	"strings"

	"github.com/binder-project/binder-deploy-kubernetes/internal/admission"
	"github.com/binder-project/binder-deploy-kubernetes/internal/podtemplate"
)

// The results of a launch, as a label of a metric, besides podtemplate.Results and the
// limits.
const (
	resultNoCapacity = "no_capacity"
	resultBusy       = "busy"
	resultRepeated   = "repeated" // another request with the same key has launched it
	resultCanceled   = "canceled" // the client has gone
)

// Results are the results of a launch, as a label of a metric.
func Results() []string {
	results := append(podtemplate.Results(), resultNoCapacity, resultBusy, resultRepeated, resultCanceled)
	for _, limit := range admission.LimitNames() {
		results = append(results, limitResult(limit))
	}
	return results
}

// limitResult is the result of a launch that a limit refused.
func limitResult(limit string) string { return strings.ReplaceAll(limit, "-", "_") }

// result names the result of a launch that ended with err.
func result(err error) string {
	refusal := (*admission.Refusal)(nil)
	switch {
	case errors.As(err, &refusal):
		return limitResult(refusal.Limit)
	case errors.Is(err, ErrCapacity):
		return resultNoCapacity
	case errors.Is(err, ErrBusy):
		return resultBusy
	case errors.Is(err, context.Canceled):
		return resultCanceled
	}
	return podtemplate.Result(err)
}
