package main

import (
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"regexp/syntax"
	"strings"
	"sync"
)

const (
	// What an expression may be at most: it is matched against paths that anybody
	// chooses, in every replica, and Go's expressions take time and memory in
	// proportion to their size with all repetitions written out.
	maxIdlePathsLength = 1 << 10
	maxIdlePathsSize   = 2000
	// maxIdlePath is the longest path that is matched; a longer one counts as use.
	maxIdlePath = 1 << 10
	// maxIdleExpressions bounds how many are kept compiled.
	maxIdleExpressions = 64
)

// jupyterIdlePaths is what Jupyter's own pages ask for by themselves, every few
// seconds to a minute: the tree of the classic Notebook 6 asks for sessions and
// terminals; JupyterLab and Notebook 7 for these, kernels, kernelspecs, the user,
// workspaces, and the listing of the directory that is shown; the extension for
// resource usage for metrics. JupyterLab and Notebook 7 also keep a WebSocket open
// by which the server tells of events, and of each listing that they ask for.
// Of contents all: a directory and a file look alike there, and who opens a file
// does more, such as to start a kernel, or have the layout of the page saved. Not
// the usage of kernels: to answer that changes what a kernel says of itself.
const jupyterIdlePaths = `api/((kernels|sessions|terminals)(/[^/]+)?|kernelspecs|me|status|events/subscribe|metrics/v1|contents(/.*)?)` +
	`|metrics|lab/api/workspaces/?`

// compileIdlePaths makes an expression that matches whole paths only.
func compileIdlePaths(expression string) (*regexp.Regexp, error) {
	if len(expression) > maxIdlePathsLength {
		return nil, fmt.Errorf("it has %d bytes: it may have at most %d", len(expression), maxIdlePathsLength)
	}
	parsed, err := syntax.Parse(expression, syntax.Perl) // by itself, so that no parenthesis leaves the group below
	if err != nil {
		return nil, err
	}
	if expressionSize(parsed) > maxIdlePathsSize {
		return nil, errors.New("it is too large with its repetitions written out")
	}
	return regexp.Compile(`\A(?:` + expression + `)\z`)
}

// expressionSize is about how large an expression is with its repetitions
// written out. It stops counting once that is too much.
func expressionSize(e *syntax.Regexp) int {
	size := 1 + len(e.Rune)/2
	for _, sub := range e.Sub {
		if size += expressionSize(sub); size > maxIdlePathsSize {
			break
		}
	}
	if e.Op == syntax.OpRepeat {
		size *= max(e.Min, e.Max, 1)
	}
	return size
}

// idleExpressions are compiled expressions of paths whose requests are no use of
// an instance. Pods hold them as text, and few different ones.
type idleExpressions struct {
	mu       sync.Mutex
	compiled map[string]*regexp.Regexp // nil for one that is not valid
}

// isIdle reports whether a request is no use of an instance: a GET or HEAD of a
// path that its template says pages ask for by themselves. Nor then are the
// bytes of its answer, and the frames of a WebSocket that it opens.
func (x *idleExpressions) isIdle(inst Instance, r *http.Request) bool {
	if inst.IdlePaths == "" || r.Method != http.MethodGet && r.Method != http.MethodHead {
		return false
	}
	path := strings.TrimPrefix(r.URL.Path, baseURL(inst.ID))
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
	if !known && len(expression) <= maxIdlePathsLength {
		compiled, _ = compileIdlePaths(expression) // who wrote it has been told
		if x.compiled == nil || len(x.compiled) >= maxIdleExpressions {
			x.compiled = map[string]*regexp.Regexp{}
		}
		x.compiled[expression] = compiled
	}
	return compiled
}
