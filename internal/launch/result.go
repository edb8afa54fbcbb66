package launch

import (
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
)

// Results are the results of a launch, as a label of a metric.
func Results() []string {
	results := append(podtemplate.Results(), resultNoCapacity, resultBusy)
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
	}
	return podtemplate.Result(err)
}
