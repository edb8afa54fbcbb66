package instance

import (
	"errors"
	"fmt"
	"regexp"
	"regexp/syntax"
)

// What an expression may be at most: it is matched against paths that anybody
// chooses, in every replica, and Go's expressions take time and memory in
// proportion to their size with all repetitions written out.
const MaxIdlePathsLength = 1 << 10

const maxIdlePathsSize = 2000

// CompileIdlePaths makes an expression that matches whole paths only.
func CompileIdlePaths(expression string) (*regexp.Regexp, error) {
	if len(expression) > MaxIdlePathsLength {
		return nil, fmt.Errorf("it has %d bytes: it may have at most %d", len(expression), MaxIdlePathsLength)
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
