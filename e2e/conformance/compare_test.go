package conformance

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/binder-project/binder-deploy-kubernetes/e2e/rawapp"
)

// TestComparisonFindsDifferences checks that the comparison lets pass what the table of
// allowed differences names, and nothing else.
func TestComparisonFindsDifferences(t *testing.T) {
	target := Target{Base: "/user/1", APIKey: "secret"}
	const request, answered = "GET /a?b HTTP/1.1\r\nHost: h\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-A: 1\r\nX-A: 2\r\n\r\nhi"
	made := func(answer, request string) outcome {
		answers, used := parseAnswers([]byte(answer), []string{"GET"}, true)
		o := outcome{answers: answers, ended: endOpen, kept: used == len(answer), raw: []byte(answer)}
		if request != "" {
			o.seen = []rawapp.Record{{Head: []byte(request), Whole: true}}
		}
		return o
	}
	for _, row := range []struct {
		name            string
		answer, request string // that came through the proxy
		same            bool
	}{
		{"nothing", answered, request, true},
		{"a Date", "HTTP/1.1 200 OK\r\nDate: x\r\nContent-Length: 2\r\nX-A: 1\r\nX-A: 2\r\n\r\nhi", request, true},
		{"the reason, the case and the order", "HTTP/1.1 200 Fine\r\nx-a: 1\r\nX-A: 2\r\ncontent-length: 2\r\n\r\nhi", request, true},
		{"X-Forwarded", answered, "GET /a?b HTTP/1.1\r\nX-Forwarded-For: c\r\nHost: h\r\n\r\n", true},
		{"the status", "HTTP/1.1 201 OK\r\nContent-Length: 2\r\nX-A: 1\r\nX-A: 2\r\n\r\nhi", request, false},
		{"the body", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-A: 1\r\nX-A: 2\r\n\r\nho", request, false},
		{"the order of equal names", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-A: 2\r\nX-A: 1\r\n\r\nhi", request, false},
		{"a merged field", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-A: 1, 2\r\n\r\nhi", request, false},
		{"a guessed type", "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\nX-A: 1\r\nX-A: 2\r\n\r\nhi", request, false},
		{"chunks in place of a length", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-A: 1\r\nX-A: 2\r\n\r\n2\r\nhi\r\n0\r\n\r\n", request, false},
		{"a trailer", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-A: 1\r\nX-A: 2\r\n\r\n2\r\nhi\r\n0\r\nX: y\r\n\r\n", request, false},
		{"an interim answer", "HTTP/1.1 103 Early\r\n\r\n" + answered, request, false},
		{"bytes behind the answer", answered + "x", request, false},
		{"the path", answered, "GET /A?b HTTP/1.1\r\nHost: h\r\n\r\n", false},
		{"the method", answered, "get /a?b HTTP/1.1\r\nHost: h\r\n\r\n", false},
		{"the query", answered, "GET /a HTTP/1.1\r\nHost: h\r\n\r\n", false},
		{"a field of the request", answered, "GET /a?b HTTP/1.1\r\nHost: h\r\nUser-Agent: go\r\n\r\n", false},
		{"no request", answered, "", false},
	} {
		err := new(test).compare(target, made(answered, request), made(row.answer, row.request), NewCounter())
		assert.Equal(t, row.same, err == nil, "%s: %v", row.name, err)
	}
}

// TestDifferencesAreExplained checks that each allowed difference has its reason, and
// that the names of cases are unique.
func TestDifferencesAreExplained(t *testing.T) {
	for _, d := range Differences() {
		assert.NotEmpty(t, d.What)
		assert.NotEmpty(t, d.Why, d.What)
		assert.NotEmpty(t, d.Source, d.What)
	}
	names := map[string]bool{}
	for _, c := range Cases() {
		assert.False(t, names[c.String()], c)
		names[c.String()] = true
	}
	for _, c := range WebSocketCases() {
		assert.False(t, names[c.String()], c)
		names[c.String()] = true
	}
}
