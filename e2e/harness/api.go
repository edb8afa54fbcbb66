package harness

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/binder-project/binder-deploy-kubernetes/e2e/openapi"
)

// requestTimeout bounds every request to the API.
const requestTimeout = 15 * time.Second

// API is a client of the Binder deploy API, at the Service or at one replica. It compares
// every request and answer with the document that describes them.
type API struct {
	base string
	key  string
	http *http.Client
}

// newAPI returns a client for a base URL without a trailing slash.
func newAPI(base, key string, document *openapi.Document) API {
	return API{base: base, key: key, http: &http.Client{
		Timeout: requestTimeout,
		// One connection per request, so that each can reach any replica.
		Transport: &openapi.Transport{Document: document, Next: &http.Transport{DisableKeepAlives: true}},
	}}
}

// At returns a client of the same API at another base URL.
func (a API) At(base string) API {
	a.base = base
	return a
}

// WithKey returns a client with another key.
func (a API) WithKey(key string) API {
	a.key = key
	return a
}

// Document returns the document that describes the API.
func (a API) Document() *openapi.Document { return a.http.Transport.(*openapi.Transport).Document }

// Sending returns a client whose requests have these parameters and properties on purpose,
// although the document does not have them.
func (a API) Sending(undescribed ...string) API {
	client, transport := *a.http, *a.http.Transport.(*openapi.Transport)
	transport.Undescribed = undescribed
	client.Transport = &transport
	a.http = &client
	return a
}

// OfOtherVersion returns a client of a service whose answers may be other than the document
// says. It compares nothing.
func (a API) OfOtherVersion() API {
	a.http = &http.Client{Timeout: requestTimeout, Transport: &http.Transport{DisableKeepAlives: true}}
	return a
}

// WithExtraTimeout returns a client with a longer timeout, for requests that the
// server holds.
func (a API) WithExtraTimeout(extra time.Duration) API {
	client := *a.http
	client.Timeout += extra
	a.http = &client
	return a
}

// Base returns the base URL, to which paths are appended.
func (a API) Base() string { return a.base }

// Key returns the API key.
func (a API) Key() string { return a.key }

// Answer is an HTTP response.
type Answer struct {
	Code   int
	Header http.Header
	Body   []byte
}

// Error is the JSON body of every answer that is not a success.
type Error struct {
	Type  string `json:"type"`
	Error string `json:"error"`
}

// Status is an instance's status in the protocol.
type Status struct {
	ID           string `json:"id"`
	TemplateName string `json:"template-name"`
	Location     string `json:"location,omitempty"`
	Status       string `json:"status"`
	Reason       string `json:"reason,omitempty"`
	Message      string `json:"message,omitempty"`
	Fault        string `json:"fault,omitempty"`
	Detail       string `json:"detail,omitempty"` // only with the key

	Restarts      int    `json:"restarts,omitempty"`
	RestartReason string `json:"restart-reason,omitempty"`

	LastActivity       time.Time `json:"last-activity,omitzero"`
	LastActivitySource string    `json:"last-activity-source,omitempty"`
	CullAt             time.Time `json:"cull-at,omitzero"`
}

// Do sends a request. header has alternating names and values.
func (a API) Do(t testing.TB, method, path, body string, header ...string) Answer {
	t.Helper()
	answer, err := a.Try(t.Context(), method, path, body, header...)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	return answer
}

func (a API) Try(ctx context.Context, method, path, body string, header ...string) (Answer, error) {
	request, err := http.NewRequestWithContext(ctx, method, a.base+path, strings.NewReader(body))
	if err != nil {
		return Answer{}, err
	}
	if body != "" {
		request.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(header); i += 2 {
		request.Header.Set(header[i], header[i+1])
	}
	response, err := a.http.Do(request)
	if err != nil {
		return Answer{}, err
	}
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	if err != nil {
		return Answer{}, fmt.Errorf("read the response: %w", err)
	}
	return Answer{response.StatusCode, response.Header, data}, nil
}

// Status returns an instance's status. It fails the test if there is none.
func (a API) Status(t testing.TB, template, id string) Status {
	t.Helper()
	status, err := a.status(t.Context(), template, id)
	if err != nil {
		t.Fatal(err)
	}
	return status
}

func (a API) status(ctx context.Context, template, id string) (Status, error) {
	path := "/applications/" + template + "/" + id
	answer, err := a.Try(ctx, http.MethodGet, path, "")
	if err != nil {
		return Status{}, fmt.Errorf("GET %s: %w", path, err)
	}
	if answer.Code != http.StatusOK {
		return Status{}, fmt.Errorf("GET %s returned %d: %s", path, answer.Code, answer.Body)
	}
	var status Status
	if err := json.Unmarshal(answer.Body, &status); err != nil {
		return Status{}, fmt.Errorf("GET %s returned an invalid status: %w: %s", path, err, answer.Body)
	}
	return status, nil
}

// StatusWithKey is Status for holders of the API key.
func (a API) StatusWithKey(t testing.TB, template, id string) (status Status) {
	t.Helper()
	a.Do(t, http.MethodGet, "/applications/"+template+"/"+id, "", "Authorization", a.key).Decode(t, &status)
	return status
}

// List returns all instances of a template, or of all templates if template is "".
func (a API) List(t testing.TB, template string) []Status {
	t.Helper()
	answer := a.Do(t, http.MethodGet, "/applications/"+template, "", "Authorization", a.key)
	var list []Status
	answer.Decode(t, &list)
	return list
}

// Decode parses the JSON body of a successful answer.
func (a Answer) Decode(t testing.TB, into any) {
	t.Helper()
	if a.Code != http.StatusOK {
		t.Fatalf("got %d, want 200: %s", a.Code, a.Body)
	}
	if err := json.Unmarshal(a.Body, into); err != nil {
		t.Fatalf("unexpected JSON: %v: %s", err, a.Body)
	}
}

// WantError checks that an answer is an error of the protocol with the given
// status code and type, and returns it.
func (a Answer) WantError(t testing.TB, code int, kind string) Error {
	t.Helper()
	var body Error
	if err := json.Unmarshal(a.Body, &body); err != nil {
		t.Fatalf("got %d with a body that is not a JSON object: %v: %q", a.Code, err, a.Body)
	}
	if a.Code != code || body.Type != kind || body.Error == "" {
		t.Fatalf("got %d %+v; want %d with type %q and an error", a.Code, body, code, kind)
	}
	return body
}
