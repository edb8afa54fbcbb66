package openapi

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const path = "../../docs/openapi.json"

// change returns the document after a change of its text.
func change(t *testing.T, from, to string) (*Document, error) {
	t.Helper()
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Contains(t, string(text), from)
	return Parse([]byte(strings.ReplaceAll(string(text), from, to)))
}

func TestDocumentIsValid(t *testing.T) {
	document, err := Load(path)
	require.NoError(t, err)
	_, err = change(t, `"license": {"name"`, `"license": {"title"`)
	assert.ErrorContains(t, err, "not valid OpenAPI")
	_, err = change(t, `"in": "path"`, `"in": "somewhere"`)
	assert.ErrorContains(t, err, "not valid OpenAPI")

	// The library does not look at the body or the header of an answer that describes none.
	for item := range document.model.Paths.PathItems.ValuesFromOldest() {
		for operation := range item.GetOperations().ValuesFromOldest() {
			for code, response := range operation.Responses.Codes.FromOldest() {
				assert.NotZero(t, response.Headers.Len(), "%s: %s", operation.OperationId, code)
				assert.True(t, code == "304" || response.Content.Len() > 0, "%s: %s", operation.OperationId, code)
			}
		}
	}
}

func TestExamples(t *testing.T) {
	document, err := Load(path)
	require.NoError(t, err)
	checked := 0
	for name, schema := range document.model.Components.Schemas.FromOldest() {
		for _, example := range schema.Schema().Examples {
			var value any
			require.NoError(t, example.Decode(&value))
			text, err := json.Marshal(value)
			require.NoError(t, err)
			assert.NoError(t, document.CheckSchema(name, text))
			checked++
		}
	}
	assert.Greater(t, checked, 8)
	assert.Error(t, document.CheckSchema("Status", []byte(`{"id": "1"}`)))
}

// The check finds everything that the document does not have.
func TestCheckFindsDifferences(t *testing.T) {
	const (
		id     = "84b8f9e8d573e73016fa2c14bad86a4d"
		status = `{"id": "` + id + `", "template-name": "echo", "status": "deployed"}`
		one    = "/applications/echo/" + id
		denied = `{"type": "unauthorized", "error": "no"}`
	)
	document, err := Load(path)
	require.NoError(t, err)
	key := []string{"Authorization", "key"}
	for _, test := range []struct {
		name, method, path, body string
		header                   []string
		code                     int
		answer                   string
		answerHeader             []string // in addition to those of every JSON answer
		undescribed              []string
		finds                    string // "" for nothing
	}{
		{name: "a status", method: "GET", path: one, code: 200, answer: status},
		{name: "a slash at the end", method: "GET", path: one + "/", code: 200, answer: status},
		{name: "a status by HEAD", method: "HEAD", path: one, code: 200},
		{name: "an id", method: "POST", path: "/applications", body: `{"template-name": "echo", "cull-timeout": "600000"}`, code: 200, answer: `{"id": "` + id + `"}`},
		{name: "a launch that waits", method: "POST", path: "/applications/echo", header: []string{"Prefer", "wait=1"}, code: 200, answer: status, answerHeader: []string{"Preference-Applied", "wait=1"}},
		{name: "a list", method: "GET", path: "/applications/", header: key, code: 200, answer: "[" + status + "]"},
		{name: "a bearer", method: "GET", path: "/applications/", header: []string{"Authorization", "Bearer key"}, code: 200, answer: "[]"},
		{name: "no preload", method: "GET", path: "/preload/echo", header: key, code: 200, answer: `{}`},
		{name: "an error", method: "GET", path: "/applications", code: 403, answer: denied},
		{name: "a refused body", method: "POST", path: "/applications", body: `[`, code: 422, answer: `{"type": "malformedRequest", "error": "no"}`},
		{name: "another path", method: "GET", path: "/nowhere", code: 404, answer: `{"type": "malformedRequest", "error": "no"}`},
		{name: "the root", method: "GET", path: "/", code: 404, answer: `{"type": "malformedRequest", "error": "no"}`},
		{name: "another method", method: "PUT", path: one, code: 405, answer: `{"type": "malformedRequest", "error": "no"}`, answerHeader: []string{"Allow", "GET"}},
		{name: "a parameter that is named", method: "GET", path: one + "?x=1", code: 200, answer: status, undescribed: []string{"x"}},
		{name: "events", method: "GET", path: one, header: []string{"Accept", "text/event-stream"}, code: 200,
			answer: "event: progress\ndata: {\"phase\": \"pending\", \"message\": \"m\"}\n\n:\n\n", answerHeader: []string{"Content-Type", "text/event-stream"}},

		{name: "another document", method: "GET", path: "/openapi.json", code: 200, answer: `{}`, answerHeader: []string{"Cache-Control", "no-cache", "ETag", `"0"`}, finds: "another document"},
		{name: "code", method: "GET", path: one, code: 418, answer: denied, finds: "418"},
		{name: "code by HEAD", method: "HEAD", path: one, code: 418, finds: "418"},
		{name: "code of another operation", method: "GET", path: one, code: 403, answer: denied, finds: "403"},
		{name: "media type", method: "GET", path: one, code: 200, answer: status, answerHeader: []string{"Content-Type", "text/plain"}, finds: "text/plain"},
		{name: "not JSON", method: "GET", path: one, code: 200, answer: "ok", finds: "cannot be decoded"},
		{name: "no body", method: "GET", path: one, code: 200, finds: "body"},
		{name: "property", method: "GET", path: one, code: 200, answer: strings.Replace(status, "{", `{"node": "n", `, 1), finds: "'node'"},
		{name: "property in a list", method: "GET", path: "/applications", header: key, code: 200, answer: "[" + strings.Replace(status, "{", `{"node": "n", `, 1) + "]", finds: "'node'"},
		{name: "property of a launch", method: "POST", path: "/applications/echo", code: 200, answer: `{"id": "` + id + `", "node": "n"}`, finds: "'node'"},
		{name: "property of an error", method: "GET", path: "/applications", code: 403, answer: `{"type": "unauthorized", "error": "no", "limit": "x"}`, finds: "'limit'"},
		{name: "property of an empty object", method: "GET", path: "/preload/echo", header: key, code: 200, answer: `{"x": 1}`, finds: "maxProperties"},
		{name: "property of an error on another path", method: "GET", path: "/nowhere", code: 404, answer: `{"type": "malformedRequest", "error": "no", "x": 1}`, finds: "'x'"},
		{name: "missing property", method: "GET", path: one, code: 200, answer: `{"id": "` + id + `"}`, finds: "template-name"},
		{name: "wrong value", method: "GET", path: one, code: 200, answer: strings.Replace(status, "deployed", "ready", 1), finds: "value must be one of"},
		{name: "wrong time", method: "GET", path: one, code: 200, answer: strings.Replace(status, "{", `{"cull-at": "soon", `, 1), finds: "date-time"},
		{name: "another type of error", method: "GET", path: "/applications", code: 403, answer: `{"type": "noRecord", "error": "no"}`, finds: "value must be"},
		{name: "header field", method: "GET", path: one, code: 200, answer: status, answerHeader: []string{"X-Node", "n"}, finds: "X-Node"},
		{name: "header field by HEAD", method: "HEAD", path: one, code: 200, answerHeader: []string{"X-Node", "n"}, finds: "X-Node"},
		{name: "header field on another path", method: "GET", path: "/nowhere", code: 404, answer: `{"type": "malformedRequest", "error": "no"}`, answerHeader: []string{"X-Node", "n"}, finds: "X-Node"},
		{name: "header field's value", method: "GET", path: one, code: 200, answer: status, answerHeader: []string{"Preference-Applied", "no"}, finds: "preference-applied"},
		{name: "missing header field", method: "PUT", path: one, code: 405, answer: `{"type": "malformedRequest", "error": "no"}`, finds: "Allow"},
		{name: "path", method: "GET", path: "/nowhere", code: 200, answer: status, finds: "200"},
		{name: "method", method: "PUT", path: one, code: 200, answer: status, finds: "200"},
		{name: "query parameter", method: "GET", path: one + "?x=1", code: 200, answer: status, finds: "'x'"},
		{name: "query parameter of a refused request", method: "GET", path: "/applications?x=1", code: 403, answer: denied, finds: "'x'"},
		{name: "header parameter", method: "GET", path: one, header: []string{"X-Wish", "1"}, code: 200, answer: status, finds: "X-Wish"},
		{name: "body property", method: "POST", path: "/applications/echo", body: `{"colour": 1}`, code: 200, answer: status, finds: "'colour'"},
		{name: "media type that is asked for", method: "GET", path: "/applications", header: []string{"Accept", "text/html", "Authorization", "key"}, code: 200, answer: "[]", finds: "text/html"},
		{name: "wrong body that is accepted", method: "POST", path: "/applications", body: `{}`, code: 200, answer: status, finds: "template-name"},
		{name: "wrong parameter that is accepted", method: "POST", path: "/applications/echo", header: []string{"Idempotency-Key", "short"}, code: 200, answer: status, finds: "Idempotency-Key"},
		{name: "no key, and accepted", method: "GET", path: "/applications", code: 200, answer: "[]", finds: "Authorization"},
		{name: "event's property", method: "GET", path: one, header: []string{"Accept", "text/event-stream"}, code: 200,
			answer: "event: progress\ndata: {\"phase\": \"pending\", \"message\": \"m\", \"node\": \"n\"}\n\n", answerHeader: []string{"Content-Type", "text/event-stream"}, finds: "'node'"},
		{name: "another event", method: "GET", path: one, header: []string{"Accept", "text/event-stream"}, code: 200,
			answer: "event: news\ndata: {}\n\n", answerHeader: []string{"Content-Type", "text/event-stream"}, finds: "news"},
	} {
		t.Run(test.name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", "application/json")
				w.Header().Set("Cache-Control", "no-store")
				for i := 0; i < len(test.answerHeader); i += 2 {
					w.Header().Set(test.answerHeader[i], test.answerHeader[i+1])
				}
				w.WriteHeader(test.code)
				_, _ = w.Write([]byte(test.answer))
			}))
			defer server.Close()
			request, err := http.NewRequestWithContext(t.Context(), test.method, server.URL+test.path, strings.NewReader(test.body))
			require.NoError(t, err)
			if test.body != "" {
				request.Header.Set("Content-Type", "application/json")
			}
			for i := 0; i < len(test.header); i += 2 {
				request.Header.Set(test.header[i], test.header[i+1])
			}
			client := &http.Client{Transport: &Transport{Document: document, Next: server.Client().Transport, Undescribed: test.undescribed}}
			answer, err := client.Do(request)
			if test.finds != "" {
				require.ErrorContains(t, err, test.finds)
				return
			}
			require.NoError(t, err)
			defer answer.Body.Close()
			body, err := io.ReadAll(answer.Body)
			require.NoError(t, err)
			if test.method != http.MethodHead {
				assert.Equal(t, test.answer, string(body), "the answer is passed on")
			}
		})
	}
}
