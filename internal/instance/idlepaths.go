package instance

import (
	"errors"
	"fmt"
	"regexp"
	"regexp/syntax"
	"strconv"
	"strings"
)

// Limits of an expression. It is matched in every replica, against paths that anybody
// can choose, and Go's expressions take time and memory in proportion to their size
// with all repetitions written out.
const (
	// MaxIdlePathsLength is the longest valid expression, in bytes.
	MaxIdlePathsLength = 1 << 10

	maxIdlePathsSize = 2000 // by expressionSize
)

// CompileIdlePaths compiles the value of IdlePathsAnnotation, in the syntax of package
// regexp. The result matches whole paths only: relative to the base URL, unescaped,
// without the query.
func CompileIdlePaths(expression string) (*regexp.Regexp, error) {
	if len(expression) > MaxIdlePathsLength {
		return nil, fmt.Errorf("it has %d bytes; at most %d are allowed", len(expression), MaxIdlePathsLength)
	}
	parsed, err := syntax.Parse(expression, syntax.Perl) // without the group below, which a parenthesis could close
	if err != nil {
		return nil, err
	}
	if expressionSize(parsed) > maxIdlePathsSize {
		return nil, errors.New("it is too large with its repetitions written out")
	}
	return regexp.Compile(`\A(?:` + expression + `)\z`)
}

// MaxHeartbeatFrame is the largest size in bytes that ParseHeartbeatFrames accepts.
// What is larger is hardly a heartbeat.
const MaxHeartbeatFrame = 1 << 10

// ParseHeartbeatFrames parses the value of HeartbeatFramesAnnotation: the largest size
// of a heartbeat in bytes, a space, and an expression of paths, as CompileIdlePaths
// takes it. An example is "1 socket\.io/".
func ParseHeartbeatFrames(value string) (most int, paths *regexp.Regexp, err error) {
	size, expression, found := strings.Cut(value, " ")
	most, err = strconv.Atoi(size)
	if !found || err != nil || most < 0 || most > MaxHeartbeatFrame {
		return 0, nil, fmt.Errorf("it does not begin with a size from 0 to %d and a space", MaxHeartbeatFrame)
	}
	if paths, err = CompileIdlePaths(expression); err != nil {
		return 0, nil, err
	}
	return most, paths, nil
}

// expressionSize returns roughly how large an expression is with its repetitions
// written out. It stops counting above maxIdlePathsSize.
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
