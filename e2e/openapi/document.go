// Package openapi compares requests to the API, and the answers, with the document that
// describes them, docs/openapi.json. It refuses what the document does not have: paths and
// methods, parameters, codes, media types, header fields and properties.
package openapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/pb33f/libopenapi"
	validator "github.com/pb33f/libopenapi-validator"
	"github.com/pb33f/libopenapi-validator/config"
	problem "github.com/pb33f/libopenapi-validator/errors"
	"github.com/pb33f/libopenapi-validator/responses"
	"github.com/pb33f/libopenapi-validator/router"
	v3 "github.com/pb33f/libopenapi/datamodel/high/v3"
)

// Document is an OpenAPI document.
type Document struct {
	text    []byte
	mu      sync.Mutex // the library completes its model while it is used
	model   *v3.Document
	routes  router.Router
	checker validator.Validator
	// besides checks what no operation describes: see otherPaths.
	besides validator.Validator
}

// Load reads a document from a file. It returns an error if it is not valid OpenAPI.
func Load(path string) (*Document, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	d, err := Parse(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return d, nil
}

// Parse reads a document. It returns an error if it is not valid OpenAPI, by the
// specification's own schema.
func Parse(text []byte) (*Document, error) {
	d := &Document{text: text}
	var err error
	if d.model, d.checker, err = newValidator(text); err != nil {
		return nil, err
	}
	if ok, problems := d.checker.ValidateDocument(); !ok {
		return nil, describe("it is not valid OpenAPI", problems)
	}
	d.routes = router.NewRouter(d.model, router.WithPathOnlyMatching())
	var parts map[string]any
	if err := json.Unmarshal(text, &parts); err != nil {
		return nil, err
	}
	parts["paths"] = otherPaths(d.Schemas())
	if text, err = json.Marshal(parts); err != nil {
		return nil, err
	}
	_, d.besides, err = newValidator(text)
	return d, err
}

func newValidator(text []byte) (*v3.Document, validator.Validator, error) {
	document, err := libopenapi.NewDocument(text)
	if err != nil {
		return nil, nil, err
	}
	model, err := document.BuildV3Model()
	if err != nil {
		return nil, nil, err
	}
	v, errs := validator.NewValidator(document, options()...)
	return &model.Model, v, errors.Join(errs...)
}

// options make the library refuse all that the document does not have. The header fields
// are HTTP's own: they are of the message or the connection, and OpenAPI describes Accept
// and Content-Type by media types.
func options() []config.Option {
	return []config.Option{
		config.WithStrictMode(), config.WithFormatAssertions(),
		config.WithStrictIgnoredHeaders("Host", "User-Agent", "Accept", "Content-Type", "Content-Length", "Transfer-Encoding", "Connection", "Date"),
	}
}

// documentPath is where the service has the document.
const documentPath = "/openapi.json"

// Addresses in a document of its own, for what the document describes outside of its
// operations.
const (
	otherPath   = "/other-path"
	otherMethod = "/other-method"
	schemas     = "/schemas/"
)

// otherPaths are operations whose answers are those to paths and methods that the document
// does not have, and one for each schema.
func otherPaths(names []string) map[string]any {
	answers := func(responses map[string]string) map[string]any {
		described := map[string]any{}
		for code, name := range responses {
			described[code] = map[string]any{"$ref": "#/components/responses/" + name}
		}
		return map[string]any{"get": map[string]any{"responses": described}}
	}
	paths := map[string]any{
		otherPath:   answers(map[string]string{"404": "NoSuchEndpoint", "204": "Preflight", "403": "Unauthorized", "421": "Misdirected"}),
		otherMethod: answers(map[string]string{"405": "MethodNotAllowed", "204": "Preflight", "403": "Unauthorized", "421": "Misdirected"}),
	}
	for _, name := range names {
		paths[schemas+name] = map[string]any{"get": map[string]any{"responses": map[string]any{"200": map[string]any{
			"description": name,
			"content":     map[string]any{"application/json": map[string]any{"schema": map[string]any{"$ref": "#/components/schemas/" + name}}},
		}}}}
	}
	return paths
}

// Schemas returns the names of the schemas.
func (d *Document) Schemas() []string {
	return slices.Collect(d.model.Components.Schemas.KeysFromOldest())
}

// Operations returns the codes that each operation can be answered with.
func (d *Document) Operations() map[string][]string {
	all := map[string][]string{}
	for item := range d.model.Paths.PathItems.ValuesFromOldest() {
		for operation := range item.GetOperations().ValuesFromOldest() {
			all[operation.OperationId] = slices.Collect(operation.Responses.Codes.KeysFromOldest())
		}
	}
	return all
}

// Operation returns the name of the operation that a request is for, or "".
func (d *Document) Operation(method, target string) string {
	address, err := url.Parse(target)
	if err != nil {
		return ""
	}
	route, err := d.find(&http.Request{Method: method, URL: address})
	if err != nil {
		return ""
	}
	return route.Operation.OperationId
}

// find returns the operation that a request is for. A path with a slash at the end is the
// same as without, and HEAD is answered like GET.
func (d *Document) find(r *http.Request) (*router.Route, error) {
	r = r.Clone(r.Context())
	r.URL.Path, r.URL.RawPath = "/"+strings.Trim(r.URL.Path, "/"), ""
	if r.Method == http.MethodHead {
		r.Method = http.MethodGet
	}
	return d.routes.FindRoute(r)
}

// Check compares a request and its answer with the document. The request's values must be
// valid only if the service has accepted them; but no test sends a parameter or property
// that the document does not have, unless undescribed names it.
func (d *Document) Check(r *http.Request, sent []byte, answer *http.Response, received []byte, undescribed ...string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	route, err := d.find(r)
	switch {
	case errors.Is(err, router.ErrMethodNotAllowed) && route.Path != "/":
		return d.checkBesides(otherMethod, r.Method, answer, received)
	case err != nil:
		return d.checkBesides(otherPath, r.Method, answer, received)
	}
	request, err := http.NewRequest(route.Method, "http://api"+strings.TrimSuffix(r.URL.EscapedPath(), "/"), bytes.NewReader(sent))
	if err != nil {
		return err
	}
	request.URL.RawQuery, request.Header = r.URL.RawQuery, r.Header
	if err := d.checkRequest(route, request, answer.StatusCode < http.StatusBadRequest, undescribed); err != nil {
		return err
	}
	isDocument := route.Path == documentPath && answer.StatusCode == http.StatusOK
	if r.Method == http.MethodHead || isDocument {
		if r.Method != http.MethodHead && !bytes.Equal(received, d.text) {
			return errors.New("the answer: it is another document")
		}
		return checkHeader(route, request, answer)
	}
	ok, problems := d.checker.ValidateHttpResponse(request, withBody(answer, received))
	if !ok {
		return describe(fmt.Sprintf("the answer %d", answer.StatusCode), problems)
	}
	if strings.HasPrefix(answer.Header.Get("Content-Type"), "text/event-stream") {
		return d.checkEvents(string(received))
	}
	return nil
}

func (d *Document) checkRequest(route *router.Route, r *http.Request, accepted bool, undescribed []string) error {
	_, problems := d.checker.ValidateHttpRequestSync(r)
	problems = slices.DeleteFunc(problems, func(p *problem.ValidationError) bool {
		unknown := p.ValidationType == problem.StrictValidationType
		return unknown && slices.Contains(undescribed, p.ParameterName) || !unknown && !accepted
	})
	if len(problems) > 0 {
		return describe("the request", problems)
	}
	for accepted := range strings.SplitSeq(r.Header.Get("Accept"), ",") {
		mediaType, _, _ := strings.Cut(strings.TrimSpace(accepted), ";")
		if mediaType != "" && !strings.Contains(mediaType, "*") && !produces(route.Operation, mediaType) {
			return fmt.Errorf("the request: the document has no answer of the media type %s", mediaType)
		}
	}
	return nil
}

func produces(operation *v3.Operation, mediaType string) bool {
	for response := range operation.Responses.Codes.ValuesFromOldest() {
		if _, ok := response.Content.Get(mediaType); ok {
			return true
		}
	}
	return false
}

// checkHeader checks an answer but for its body.
func checkHeader(route *router.Route, r *http.Request, answer *http.Response) error {
	code := fmt.Sprint(answer.StatusCode)
	response, ok := route.Operation.Responses.Codes.Get(code)
	if !ok {
		return fmt.Errorf("the answer: the code %s is not described", code)
	}
	if ok, problems := responses.ValidateResponseHeaders(r, answer, response.Headers, route.Path, code, options()...); !ok {
		return describe("the answer "+code, problems)
	}
	return nil
}

// checkBesides checks an answer that no operation describes.
func (d *Document) checkBesides(path, method string, answer *http.Response, body []byte) error {
	request, err := http.NewRequest(http.MethodGet, "http://api"+path, http.NoBody)
	if err != nil {
		return err
	}
	if method == http.MethodHead {
		return nil // its header is that of the answer to a GET, which the tests send too
	}
	if ok, problems := d.besides.ValidateHttpResponse(request, withBody(answer, body)); !ok {
		return describe(fmt.Sprintf("the answer %d, as to %s", answer.StatusCode, strings.Trim(path, "/")), problems)
	}
	return nil
}

// CheckSchema compares a JSON value with a schema of the document.
func (d *Document) CheckSchema(name string, value []byte) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.checkSchema(name, value)
}

func (d *Document) checkSchema(name string, value []byte) error {
	answer := &http.Response{StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {"application/json"}}}
	return d.checkBesides(schemas+name, http.MethodGet, answer, value)
}

// checkEvents checks a stream of server-sent events.
func (d *Document) checkEvents(stream string) error {
	for block := range strings.SplitSeq(strings.TrimSuffix(stream, "\n\n"), "\n\n") {
		data, ok := strings.CutPrefix(block, "event: progress\ndata: ")
		if !ok {
			data, ok = strings.CutPrefix(block, "event: warning\ndata: ")
		}
		if !ok && block != ":" {
			return fmt.Errorf("the answer: %q is not described", block)
		}
		if ok {
			if err := d.checkSchema("ProgressEvent", []byte(data)); err != nil {
				return err
			}
		}
	}
	return nil
}

// withBody returns an answer with the body that was read from it.
func withBody(answer *http.Response, body []byte) *http.Response {
	copied := *answer
	copied.Body = http.NoBody
	if len(body) > 0 {
		copied.Body = readCloser(body)
	}
	return &copied
}

// describe returns problems as one error.
func describe(what string, problems []*problem.ValidationError) error {
	var all []string
	for _, p := range problems {
		text := p.Message + ": " + p.Reason
		for _, failure := range p.SchemaValidationErrors {
			text += "; " + failure.Reason + " at " + failure.FieldPath
		}
		all = append(all, text)
	}
	return fmt.Errorf("%s: %s", what, strings.Join(all, "\n\t"))
}
