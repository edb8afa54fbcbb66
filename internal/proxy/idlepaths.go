package proxy

import (
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"sync"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
)

const (
	// maxIdlePath is the length in bytes of the longest path, or method and path, that is
	// matched. A longer one counts as use.
	maxIdlePath = 1 << 10
	// maxIdleExpressions is how many compiled expressions are kept.
	maxIdleExpressions = 256
)

// idleExpressions keeps the compiled expressions that say what is not use. Pods hold
// them as text, and all pods of a template hold the same ones.
type idleExpressions struct {
	mu       sync.Mutex
	compiled map[string]*regexp.Regexp // nil for an expression that is not valid
}

// match reports whether a request is not use of an instance: one that, according to
// its template, pages send by themselves. Then its bytes and those of its answer do
// not count either, nor do the frames of a WebSocket that the request opens.
func (x *idleExpressions) match(inst instance.Instance, r *http.Request) bool {
	path := strings.TrimPrefix(r.URL.Path, instance.BaseURL(inst.ID))
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		if x.matches(inst.IdlePaths, path) {
			return true
		}
	}
	return x.matches(inst.IdleRequests, r.Method+" "+path)
}

// counted returns the size in bytes of the smallest WebSocket message that counts as
// use, on the connection that a request opens. Smaller ones are heartbeats, according
// to the instance's template.
func (x *idleExpressions) counted(inst instance.Instance, r *http.Request) int {
	size, paths, _ := strings.Cut(inst.HeartbeatFrames, " ") // see instance.ParseHeartbeatFrames
	most, err := strconv.Atoi(size)
	if err != nil || most < 0 || most > instance.MaxHeartbeatFrame || !x.matches(paths, strings.TrimPrefix(r.URL.Path, instance.BaseURL(inst.ID))) {
		return 0
	}
	return most + 1
}

// matches reports whether a text matches an expression of a pod. An expression that is
// empty or invalid matches nothing, and nothing matches a text that is too long.
func (x *idleExpressions) matches(expression, text string) bool {
	if expression == "" || len(text) > maxIdlePath {
		return false
	}
	compiled := x.get(expression)
	return compiled != nil && compiled.MatchString(text)
}

// get returns a compiled expression, or nil if it is not valid. An Event on the
// template reports the mistake.
func (x *idleExpressions) get(expression string) *regexp.Regexp {
	x.mu.Lock()
	defer x.mu.Unlock()
	compiled, known := x.compiled[expression]
	if !known && len(expression) <= instance.MaxIdlePathsLength {
		compiled, _ = instance.CompileIdlePaths(expression)
		if x.compiled == nil {
			x.compiled = map[string]*regexp.Regexp{}
		}
		for other := range x.compiled { // any one makes room
			if len(x.compiled) < maxIdleExpressions {
				break
			}
			delete(x.compiled, other)
		}
		x.compiled[expression] = compiled
	}
	return compiled
}
