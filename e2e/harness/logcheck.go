package harness

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
)

// maxComplaints is how many bad lines of one log are quoted.
const maxComplaints = 10

// logChecker checks lines of the service's log as they are written to it. Every line
// must be a JSON object, and none may tell of a panic: both are what an application or a
// visitor must not bring about. None may have an instance's id: anyone who reads it can visit
// the instance.
type logChecker struct {
	rest       []byte // a line that has not ended yet
	lines      int
	complaints []string
	more       int // complaints that are not quoted
}

// Write checks the lines that p completes.
func (c *logChecker) Write(p []byte) (int, error) {
	c.rest = append(c.rest, p...)
	for {
		line, after, found := bytes.Cut(c.rest, []byte("\n"))
		if !found {
			return len(p), nil
		}
		c.check(line)
		c.rest = append(c.rest[:0:0], after...)
	}
}

// finish checks a last line that has no end.
func (c *logChecker) finish() {
	if len(c.rest) > 0 {
		c.check(c.rest)
		c.rest = nil
	}
}

func (c *logChecker) check(line []byte) {
	c.lines++
	var object map[string]json.RawMessage
	switch {
	case bytes.Contains(bytes.ToLower(line), []byte("panic")):
		c.complain("a panic", line)
	case hasID(line):
		c.complain("one with an id", line)
	case json.Unmarshal(line, &object) != nil || object == nil:
		c.complain("no JSON", line)
	}
}

// longHex matches ids, and the hashes in the names of pods.
var longHex = regexp.MustCompile(`(binder-)?\b[0-9a-f]{32}\b`)

func hasID(line []byte) bool {
	return slices.ContainsFunc(longHex.FindAll(line, -1), func(word []byte) bool { return !bytes.HasPrefix(word, []byte("binder-")) })
}

func (c *logChecker) complain(what string, line []byte) {
	if len(c.complaints) == maxComplaints {
		c.more++
		return
	}
	c.complaints = append(c.complaints, fmt.Sprintf("line %d is %s: %.600q", c.lines, what, line))
}
