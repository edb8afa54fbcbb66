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
)

// requestTimeout bounds every request to the API.
const requestTimeout = 15 * time.Second

// API is the Binder deploy API at one address: the Service's, or one replica's.
type API struct {
	base string
	key  string
	http *http.Client
}

// NewAPI makes a client for a base URL without a trailing slash.
func NewAPI(base, key string) API {
	// A connection per request: each may go to another replica.
	return API{base: base, key: key, http: &http.Client{
		Timeout:   requestTimeout,
		Transport: &http.Transport{DisableKeepAlives: true},
	}}
}

// At is the same API at another address.
func (a API) At(base string) API { return NewAPI(base, a.key) }

// Patient is the same API for requests that are held for some time.
func (a API) Patient(held time.Duration) API {
	client := *a.http
	client.Timeout += held
	a.http = &client
	return a
}

// Base is the URL that every path is appended to.
func (a API) Base() string { return a.base }

// Key is the API key.
func (a API) Key() string { return a.key }

// Answer is what came back.
type Answer struct {
	Code   int
	Header http.Header
	Body   []byte
}

// Error is the JSON object that every answer but a success must be.
type Error struct {
	Type  string `json:"type"`
	Error string `json:"error"`
}

// Status is an instance in the protocol's words.
type Status struct {
	ID           string `json:"id"`
	TemplateName string `json:"template-name"`
	Location     string `json:"location,omitempty"`
	Status       string `json:"status"`
	Reason       string `json:"reason,omitempty"`
	Message      string `json:"message,omitempty"`

	LastActivity       time.Time `json:"last-activity,omitzero"`
	LastActivitySource string    `json:"last-activity-source,omitempty"`
	CullAt             time.Time `json:"cull-at,omitzero"`
}

// Do sends a request. header is names and values in turn.
func (a API) Do(t testing.TB, method, path, body string, header ...string) Answer {
	t.Helper()
	answer, err := a.do(t.Context(), method, path, body, header...)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	return answer
}

func (a API) do(ctx context.Context, method, path, body string, header ...string) (Answer, error) {
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
		return Answer{}, fmt.Errorf("read the answer: %w", err)
	}
	return Answer{response.StatusCode, response.Header, data}, nil
}

// Status asks for an instance; the answer must be a success.
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
	answer, err := a.do(ctx, http.MethodGet, path, "")
	if err != nil {
		return Status{}, fmt.Errorf("GET %s: %w", path, err)
	}
	if answer.Code != http.StatusOK {
		return Status{}, fmt.Errorf("GET %s answers %d: %s", path, answer.Code, answer.Body)
	}
	var status Status
	if err := json.Unmarshal(answer.Body, &status); err != nil {
		return Status{}, fmt.Errorf("GET %s answers what is no status: %w: %s", path, err, answer.Body)
	}
	return status, nil
}

// List asks for all instances of a template, or of all for "".
func (a API) List(t testing.TB, template string) []Status {
	t.Helper()
	answer := a.Do(t, http.MethodGet, "/applications/"+template, "", "Authorization", a.key)
	var list []Status
	answer.Decode(t, &list)
	return list
}

// Decode reads a successful answer.
func (a Answer) Decode(t testing.TB, into any) {
	t.Helper()
	if a.Code != http.StatusOK {
		t.Fatalf("answered %d and not 200: %s", a.Code, a.Body)
	}
	if err := json.Unmarshal(a.Body, into); err != nil {
		t.Fatalf("answered no JSON of the kind expected: %v: %s", err, a.Body)
	}
}

// WantError checks that an answer is an error as the protocol has it, and
// returns it.
func (a Answer) WantError(t testing.TB, code int, kind string) Error {
	t.Helper()
	var body Error
	if err := json.Unmarshal(a.Body, &body); err != nil {
		t.Fatalf("answered %d with what is no JSON object: %v: %q", a.Code, err, a.Body)
	}
	if a.Code != code || body.Type != kind || body.Error == "" {
		t.Fatalf("answered %d %+v; want %d with type %q and an error", a.Code, body, code, kind)
	}
	return body
}
