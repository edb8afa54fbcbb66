package main

import (
	"net/http"
	"regexp"
	"strings"
	"sync"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
)

const (

	// maxIdlePath is the longest path that is matched; a longer one counts as use.
	maxIdlePath = 1 << 10
	// maxIdleExpressions bounds how many are kept compiled.
	maxIdleExpressions = 64
)

// idleExpressions are compiled expressions of paths whose requests are no use of
// an instance. Pods hold them as text, and few different ones.
type idleExpressions struct {
	mu       sync.Mutex
	compiled map[string]*regexp.Regexp // nil for one that is not valid
}

// isIdle reports whether a request is no use of an instance: a GET or HEAD of a
// path that its template says pages ask for by themselves. Nor then are the
// bytes of its answer, and the frames of a WebSocket that it opens.
func (x *idleExpressions) isIdle(inst instance.Instance, r *http.Request) bool {
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

// get returns a compiled expression; nil for one that is not valid.
func (x *idleExpressions) get(expression string) *regexp.Regexp {
	x.mu.Lock()
	defer x.mu.Unlock()
	compiled, known := x.compiled[expression]
	if !known && len(expression) <= instance.MaxIdlePathsLength {
		compiled, _ = instance.CompileIdlePaths(expression) // who wrote it has been told
		if x.compiled == nil || len(x.compiled) >= maxIdleExpressions {
			x.compiled = map[string]*regexp.Regexp{}
		}
		x.compiled[expression] = compiled
	}
	return compiled
}
