package main

import (
	"bytes"
	"encoding/json"
	"maps"
	"net/http"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/binder-project/binder-deploy-kubernetes/internal/admin"
	"github.com/binder-project/binder-deploy-kubernetes/internal/admission"
	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/preload"
	"github.com/binder-project/binder-deploy-kubernetes/internal/protocol"
)

// These tests compare docs/openapi.json with the code. The end-to-end tests compare it
// with what the service answers.

func TestOpenAPIIsServed(t *testing.T) {
	api := newTestAPI(nil, nil)
	api.AllowOrigins = []string{"https://pages.example"}
	get := ask(api.Routes(), "GET", "/openapi.json", "", "Origin", "https://pages.example")
	if get.Code != http.StatusOK || !bytes.Equal(get.Body.Bytes(), []byte(readDoc(t, "docs/openapi.json"))) {
		t.Errorf("got %d and %d bytes", get.Code, get.Body.Len())
	}
	wantEqual(t, "Content-Type", get.Header().Get("Content-Type"), "application/json")
	wantEqual(t, "Access-Control-Allow-Origin", get.Header().Get("Access-Control-Allow-Origin"), "https://pages.example")
	for method, code := range map[string]int{"GET": 304, "HEAD": 304, "POST": 405} {
		res := ask(api.Routes(), method, "/openapi.json/", "", "If-None-Match", get.Header().Get("ETag"))
		wantEqual(t, method, res.Code, code)
	}
	wantEqual(t, "HEAD", ask(api.Routes(), "HEAD", "/openapi.json", "").Header().Get("ETag"), get.Header().Get("ETag"))
	wantMetrics(t, api.Metrics, "binder_http_requests_total", `
binder_http_requests_total{code="200",method="get",route="/openapi.json",server="api"} 1
binder_http_requests_total{code="200",method="head",route="/openapi.json",server="api"} 1
binder_http_requests_total{code="304",method="get",route="/openapi.json",server="api"} 1
binder_http_requests_total{code="304",method="head",route="/openapi.json",server="api"} 1
binder_http_requests_total{code="405",method="post",route="/openapi.json",server="api"} 1`)
}

// Every endpoint and method is in the document, and the document has no others.
func TestOpenAPIHasEveryEndpoint(t *testing.T) {
	var served, described []string
	for path, m := range newTestAPI(nil, nil).endpoints() {
		served = append(served, path+" "+strings.ToLower(strings.Join(slices.Sorted(maps.Keys(m)), " ")))
	}
	for path, item := range parseOpenAPI(t).at("paths").all() {
		methods := slices.DeleteFunc(slices.Sorted(slices.Values(item.names)), func(name string) bool {
			return slices.Contains([]string{"summary", "description", "parameters"}, name)
		})
		described = append(described, path+" "+strings.Join(methods, " "))
	}
	slices.Sort(served)
	slices.Sort(described)
	if !slices.Equal(served, described) {
		t.Errorf("the endpoints are\n%s\nand docs/openapi.json has\n%s", strings.Join(served, "\n"), strings.Join(described, "\n"))
	}
}

// The properties of every schema are those of its struct, in the same order, and those
// that are always there are required.
func TestOpenAPIHasEveryField(t *testing.T) {
	schemas := parseOpenAPI(t).at("components", "schemas")
	for schema, value := range map[*node]any{
		schemas.at("Status"):                                    protocol.StatusResponse{},
		schemas.at("ProgressEvent"):                             protocol.ProgressEvent{},
		schemas.at("PreloadStatus"):                             protocol.PreloadStatus{},
		schemas.at("PreloadTemplate", "properties", "template"): preload.Template{},
		schemas.at("AdminState"):                                admin.State{},
		schemas.at("AdminLimit"):                                admin.Limit{},
		schemas.at("AdminTemplate"):                             admin.Template{},
		schemas.at("AdminPool"):                                 admin.Pool{},
		schemas.at("AdminInstance"):                             admin.Instance{},
	} {
		var names, required []string
		for field := range reflect.TypeOf(value).Fields() {
			if !field.IsExported() {
				continue
			}
			name, options, _ := strings.Cut(field.Tag.Get("json"), ",")
			names = append(names, name)
			if options != "omitempty" {
				required = append(required, name)
			}
		}
		if got := schema.at("properties").names; !slices.Equal(got, names) {
			t.Errorf("%T has the fields %q, and its schema has %q", value, names, got)
		}
		if got := schema.at("required").texts(); !slices.Equal(got, required) {
			t.Errorf("%T always has the fields %q, and its schema requires %q", value, required, got)
		}
	}
}

// Every closed set of values is the code's.
func TestOpenAPIHasEveryValue(t *testing.T) {
	schemas := parseOpenAPI(t).at("components", "schemas")
	property := func(schema, name string) *node { return schemas.at(schema, "properties", name, "enum") }
	for _, row := range []struct {
		what string
		got  *node
		want []string
	}{
		{"statuses", schemas.at("InstanceStatus", "enum"), texts(instance.Statuses())},
		{"faults", schemas.at("Fault", "enum"), texts([]instance.Fault{instance.FaultTemplate, instance.FaultCluster, instance.FaultVisitor, instance.FaultChance})},
		{"sources", property("Status", "last-activity-source"), texts([]instance.Source{instance.SourceLaunch, instance.SourceHTTP, instance.SourceWebSocket, instance.SourceProbe, instance.SourceKeepAlive, instance.SourceQueue})},
		{"sources in events", property("ProgressEvent", "last-activity-source"), property("Status", "last-activity-source").texts()},
		{"sources of the admin page", property("AdminInstance", "last-activity-source"), property("Status", "last-activity-source").texts()},
		{"preload statuses", property("PreloadStatus", "status"), texts([]preload.Status{preload.Loading, preload.Completed, preload.Failed})},
		{"limits", property("LimitError", "limit"), admission.LimitNames()},
	} {
		if got := row.got.texts(); !slices.Equal(got, row.want) {
			t.Errorf("the %s are %q, and docs/openapi.json has %q", row.what, row.want, got)
		}
	}
	for _, reason := range append(texts(instance.EndReasons()), instance.ReasonDeleting) {
		if !strings.Contains(schemas.at("Reason").text("description"), "`"+reason+"`") {
			t.Errorf("docs/openapi.json does not name the reason %s", reason)
		}
	}
}

// docs/api.md has the same errors as the document, and names the same version.
func TestDocsHaveEveryError(t *testing.T) {
	document := parseOpenAPI(t)
	page := readDoc(t, "docs/api.md")
	if version := document.at("info").text("version"); !strings.Contains(page, "Binder deploy protocol "+version+".") {
		t.Errorf("docs/api.md does not say that the protocol's version is %s", version)
	}
	listed, described := map[string]bool{}, map[string]bool{}
	for _, match := range regexp.MustCompile("(?m)^\\| (\\d{3}) \\| `(\\w+)` \\|").FindAllStringSubmatch(page, -1) {
		listed[match[1]+" "+match[2]] = true
	}
	described["405 malformedRequest"] = true // for methods that have no operation
	described["404 malformedRequest"] = true // for paths that have none
	for _, item := range document.at("paths").all() {
		for _, operation := range item.all() {
			for code, response := range operation.at("responses").all() {
				for _, kind := range document.errorTypes(response) {
					described[code+" "+kind] = true
				}
			}
		}
	}
	if !maps.Equal(listed, described) {
		t.Errorf("docs/api.md lists the errors\n%q\nand docs/openapi.json has\n%q", slices.Sorted(maps.Keys(listed)), slices.Sorted(maps.Keys(described)))
	}
}

// errorTypes are the types of error that a response can have.
func (n *node) errorTypes(response *node) []string {
	schema := n.resolve(n.resolve(response).at("content", "application/json", "schema"))
	kind := schema.at("properties", "type")
	if all := schema.at("allOf").items; len(all) == 2 {
		kind = all[1].at("properties", "type")
	}
	if only := kind.text("const"); only != "" {
		return []string{only}
	}
	return kind.at("enum").texts()
}

// node is a JSON value that keeps the order of an object's members.
type node struct {
	names   []string // of the members of an object
	members map[string]*node
	items   []*node // of an array
	value   any     // of everything else
	raw     json.RawMessage
}

func parseOpenAPI(t testing.TB) *node {
	t.Helper()
	var document node
	noError(t, json.Unmarshal(openAPI, &document))
	return &document
}

// UnmarshalJSON reads a value.
func (n *node) UnmarshalJSON(text []byte) error {
	n.raw = slices.Clone(text)
	switch text[0] {
	case '[':
		return json.Unmarshal(text, &n.items)
	case '{':
		n.members = map[string]*node{}
		decoder := json.NewDecoder(bytes.NewReader(text))
		_, err := decoder.Token()
		for err == nil && decoder.More() {
			var name json.Token
			if name, err = decoder.Token(); err == nil {
				member := &node{}
				err = decoder.Decode(member)
				n.names, n.members[name.(string)] = append(n.names, name.(string)), member
			}
		}
		return err
	}
	return json.Unmarshal(text, &n.value)
}

// at returns the value at a path of names. It is empty if there is none.
func (n *node) at(path ...string) *node {
	for _, name := range path {
		if n = n.members[name]; n == nil {
			return &node{}
		}
	}
	return n
}

// all yields the members of an object in their order.
func (n *node) all() func(yield func(string, *node) bool) {
	return func(yield func(string, *node) bool) {
		for _, name := range n.names {
			if !yield(name, n.members[name]) {
				return
			}
		}
	}
}

// text returns the string that a member is, or "".
func (n *node) text(name string) string {
	text, _ := n.at(name).value.(string)
	return text
}

// texts returns the strings of an array.
func (n *node) texts() (all []string) {
	for _, item := range n.items {
		text, _ := item.value.(string)
		all = append(all, text)
	}
	return all
}

// resolve follows a reference within the document n.
func (n *node) resolve(value *node) *node {
	path, ok := strings.CutPrefix(value.text("$ref"), "#/")
	if !ok {
		return value
	}
	return n.at(strings.Split(path, "/")...)
}
