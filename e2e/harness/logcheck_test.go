package harness

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestLogChecker(t *testing.T) {
	const good = `{"time":"2026-11-28T12:00:00Z","level":"INFO","msg":"ready"}` + "\n"
	for _, row := range []struct {
		name, log string
		lines     int
		want      []string // one for each complaint
	}{
		{"nothing", "", 0, nil},
		{"good lines", good + good, 2, nil},
		{"a panic in JSON", good + `{"level":"ERROR","msg":"http: panic serving 10.0.0.1:1: invalid concurrent Body.Read call"}` + "\n", 2, []string{"line 2 is a panic"}},
		{"a panic of the runtime", "panic: runtime error\n\ngoroutine 1 [running]:\n", 3, []string{"line 1 is a panic", "line 2 is no JSON", "line 3 is no JSON"}},
		{"a Panic in another case", `{"msg":"Panic"}` + "\n", 1, []string{"a panic"}},
		{"Go's default logger", "2026/11/28 12:00:00 Unsolicited response received on idle HTTP channel\n", 1, []string{"no JSON"}},
		{"klog's own format", "W1128 12:00:00.000000 1 reflector.go:1] watch ended\n", 1, []string{"no JSON"}},
		{"an id", `{"path":"/user/84b8f9e8d573e73016fa2c14bad86a4d/"}` + "\n", 1, []string{"an id"}},
		{"the name of a pod", `{"pod":"binder-84b8f9e8d573e73016fa2c14bad86a4d"}` + "\n", 1, nil},
		{"JSON that is no object", "1\n\"x\"\n[]\nnull\n", 4, []string{"line 1", "line 2", "line 3", "line 4"}},
		{"an empty line", good + "\n" + good, 3, []string{"line 2 is no JSON"}},
		{"two objects in a line", `{"a":1}{"b":2}` + "\n", 1, []string{"no JSON"}},
		{"a last line without an end", good + "bro", 2, []string{"line 2 is no JSON"}},
		{"a last line with half an object", good + `{"msg"`, 2, []string{"line 2 is no JSON"}},
		{"bytes", "\x00\xff\n", 1, []string{"no JSON"}},
	} {
		for _, cut := range []int{1, 7, 1 << 20} {
			var c logChecker
			for rest := row.log; rest != ""; {
				n := min(cut, len(rest))
				_, _ = c.Write([]byte(rest[:n]))
				rest = rest[n:]
			}
			c.finish()
			assert.Equal(t, row.lines, c.lines, row.name)
			if assert.Len(t, c.complaints, len(row.want), "%s: %q", row.name, c.complaints) {
				for i, want := range row.want {
					assert.Contains(t, c.complaints[i], want, row.name)
				}
			}
		}
	}
	var c logChecker
	_, _ = c.Write([]byte(strings.Repeat("bad\n", maxComplaints+5)))
	assert.Len(t, c.complaints, maxComplaints)
	assert.Equal(t, 5, c.more)
}
