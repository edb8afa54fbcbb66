package proxy

import (
	"net/http"
	"regexp"
	"strings"
	"sync"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
)

const (
	// maxIdlePath is the length in bytes of the longest path that is matched. A
	// longer one counts as use.
	maxIdlePath = 1 << 10
	// maxIdleExpressions is how many compiled expressions are kept.
	maxIdleExpressions = 64
)

// idleExpressions keeps compiled idle-paths expressions. Pods hold them as text, and
// all pods of a template hold the same one.
type idleExpressions struct {
	mu       sync.Mutex
	compiled map[string]*regexp.Regexp // nil for an expression that is not valid
}

// match reports whether a request is not use of an instance: a GET or HEAD of a
// path that, according to its template, pages ask for by themselves. Then the
// answer's bytes do not count either, nor do the frames of a WebSocket that the
// request opens.
func (x *idleExpressions) match(inst instance.Instance, r *http.Request) bool {
	if inst.IdlePaths == "" || r.Method != http.MethodGet && r.Method != http.MethodHead {
		return false
	}
	path := strings.TrimPrefix(r.URL.Path, instance.BaseURL(inst.ID))
	if len(path) > maxIdlePath {
		return false
	}
	expression := x.get(inst.IdlePaths)
	return expression != nil && expression.MatchString(path)
}

// get returns a compiled expression, or nil if it is not valid. An Event on the
// template reports the mistake.
func (x *idleExpressions) get(expression string) *regexp.Regexp {
	x.mu.Lock()
	defer x.mu.Unlock()
	compiled, known := x.compiled[expression]
	if !known && len(expression) <= instance.MaxIdlePathsLength {
		compiled, _ = instance.CompileIdlePaths(expression)
		if x.compiled == nil || len(x.compiled) >= maxIdleExpressions {
			x.compiled = map[string]*regexp.Regexp{}
		}
		x.compiled[expression] = compiled
	}
	return compiled
}
