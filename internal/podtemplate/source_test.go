package podtemplate_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
	"github.com/binder-project/binder-deploy-kubernetes/internal/podtemplate"
)

// source has one template, or fails.
type source struct {
	name string
	err  error
}

func (s source) Template(_ context.Context, name string) (*corev1.PodTemplate, error) {
	switch {
	case s.err != nil:
		return nil, s.err
	case name != s.name:
		return nil, fmt.Errorf("%w: %q", podtemplate.ErrUnknown, name)
	}
	return kubetest.Template(name), nil
}

func TestChain(t *testing.T) {
	broken := errors.New("broken")
	one, two, fails := source{name: "one"}, source{name: "two"}, source{err: broken}
	for _, test := range []struct {
		name  string
		chain podtemplate.Chain
		err   error
	}{
		{"one", podtemplate.Chain{one, fails}, nil},
		{"two", podtemplate.Chain{one, two}, nil},
		{"three", podtemplate.Chain{one, two}, podtemplate.ErrUnknown},
		{"two", podtemplate.Chain{one, fails, two}, broken},
		{"one", podtemplate.Chain{}, podtemplate.ErrUnknown},
	} {
		template, err := test.chain.Template(t.Context(), test.name)
		if !errors.Is(err, test.err) || (err == nil) != (template != nil) || err == nil && template.Name != test.name {
			t.Errorf("%s of %v: got %v, %v, want error %v", test.name, test.chain, template, err, test.err)
		}
	}
}

func TestError(t *testing.T) {
	cause := errors.New("it has no container")
	for _, test := range []struct{ use, want string }{
		{"", `template "jupyter" cannot be launched: it has no container`},
		{"preloaded", `template "jupyter" cannot be preloaded: it has no container`},
	} {
		var err error = &podtemplate.Error{Template: "jupyter", Use: test.use, Err: cause}
		if !errors.Is(err, cause) || err.Error() != test.want {
			t.Errorf("got %v, want %s and the cause", err, test.want)
		}
	}
}

func TestResult(t *testing.T) {
	seen := map[string]bool{}
	for want, err := range map[string]error{
		"ok": nil, "unknown_template": fmt.Errorf("x: %w", podtemplate.ErrUnknown),
		"bad_template": fmt.Errorf("x: %w", &podtemplate.Error{Err: errors.New("y")}), "error": podtemplate.ErrUnavailable,
	} {
		got := podtemplate.Result(err)
		if seen[got] = true; got != want {
			t.Errorf("%v is %q, want %q", err, got, want)
		}
	}
	for _, result := range podtemplate.Results() {
		if !seen[result] {
			t.Errorf("no error has result %q", result)
		}
	}
}
