package proxy

import (
	"net/http"
	"regexp"
	"strings"
	"sync"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
)

const (

	// MaxIdlePath is the longest path that is matched; a longer one counts as use.
	MaxIdlePath = 1 << 10
	// MaxIdleExpressions bounds how many are kept compiled.
	MaxIdleExpressions = 64
)

// IdleExpressions are compiled expressions of paths whose requests are no use of
// an instance. Pods hold them as text, and few different ones.
type IdleExpressions struct {
	mu       sync.Mutex
	Compiled map[string]*regexp.Regexp // nil for one that is not valid
}

// IsIdle reports whether a request is no use of an instance: a GET or HEAD of a
// path that its template says pages ask for by themselves. Nor then are the
// bytes of its answer, and the frames of a WebSocket that it opens.
func (x *IdleExpressions) IsIdle(inst instance.Instance, r *http.Request) bool {
	if inst.IdlePaths == "" || r.Method != http.MethodGet && r.Method != http.MethodHead {
		return false
	}
	path := strings.TrimPrefix(r.URL.Path, instance.BaseURL(inst.ID))
	if len(path) > MaxIdlePath {
		return false
	}
	expression := x.Get(inst.IdlePaths)
	return expression != nil && expression.MatchString(path)
}

// Get returns a compiled expression; nil for one that is not valid.
func (x *IdleExpressions) Get(expression string) *regexp.Regexp {
	x.mu.Lock()
	defer x.mu.Unlock()
	compiled, known := x.Compiled[expression]
	if !known && len(expression) <= instance.MaxIdlePathsLength {
		compiled, _ = instance.CompileIdlePaths(expression) // who wrote it has been told
		if x.Compiled == nil || len(x.Compiled) >= MaxIdleExpressions {
			x.Compiled = map[string]*regexp.Regexp{}
		}
		x.Compiled[expression] = compiled
	}
	return compiled
}
