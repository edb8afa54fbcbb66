package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write docs/api-reference.md")

// docs/api-reference.md is docs/openapi.json in words. To accept a change:
//
//	go test -run TestAPIReference . -update
func TestAPIReference(t *testing.T) {
	const page = "docs/api-reference.md"
	r := reference{document: parseOpenAPI(t)}
	r.write()
	if *update {
		noError(t, os.WriteFile(page, r.Bytes(), 0o644))
	}
	if readDoc(t, page) != r.String() {
		t.Errorf("%s is not what docs/openapi.json says: run this test with -update", page)
	}
}

// reference is the page as it is written.
type reference struct {
	bytes.Buffer
	document *node
	common   []string // the header fields that every answer in JSON can have
	every    []string // references to the parameters that every request can have
}

func (r *reference) line(format string, args ...any) { fmt.Fprintf(r, format+"\n", args...) }

func (r *reference) write() {
	info := r.document.at("info")
	r.findCommon()
	r.line("# API reference\n")
	r.line("<!-- Generated from openapi.json: go test -run TestAPIReference . -update -->\n")
	r.line("This page has every request, answer and field of the API. It is [openapi.json](openapi.json) in words, which the service serves at `/openapi.json`. [api.md](api.md) explains the API.\n")
	r.line("%s\n", info.text("description"))
	r.line("Every request can have these parameters. The tables below name the others.")
	var every []*node
	for _, name := range r.every {
		every = append(every, r.document.at(strings.Split(strings.TrimPrefix(name, "#/"), "/")...))
	}
	r.parameters(every)
	r.line("\nEvery answer in JSON can have the [header fields](#header-fields) %s. The tables name the others.", codes(r.common))
	for _, tag := range r.document.at("tags").items {
		r.line("\n## %s\n\n%s", tag.text("name"), tag.text("description"))
		for path, item := range r.document.at("paths").all() {
			for method, operation := range item.all() {
				if slices.Contains(operation.at("tags").texts(), tag.text("name")) {
					r.operation(strings.ToUpper(method), path, item, operation)
				}
			}
		}
	}
	r.line("\n## Other requests\n\n| response | code | when |\n|---|---|---|")
	for _, other := range []struct{ name, code string }{{"NoSuchEndpoint", "404"}, {"MethodNotAllowed", "405"}, {"Preflight", "204"}} {
		r.line("| `%s` | %s | %s |", other.name, other.code, r.document.at("components", "responses", other.name).text("description"))
	}
	r.headers()
	r.line("\n## Schemas")
	for name, schema := range r.document.at("components", "schemas").all() {
		r.schema(name, schema)
	}
}

// operation writes one request with its answers.
func (r *reference) operation(method, path string, item, operation *node) {
	r.line("\n### %s %s\n\n%s. %s\n", method, path, operation.text("summary"), operation.text("description"))
	r.line("- Name: `%s`", operation.text("operationId"))
	r.line("- API key: %s", keyNeeded(operation))
	if body := operation.at("requestBody"); len(body.names) > 0 {
		optional := "optional"
		if body.at("required").value == true {
			optional = "required"
		}
		r.line("- Body: %s, %s. %s", r.kind(body.at("content", "application/json", "schema")), optional, body.text("description"))
	}
	parameters := slices.Concat(item.at("parameters").items, operation.at("parameters").items)
	parameters = slices.DeleteFunc(parameters, func(p *node) bool { return slices.Contains(r.every, p.text("$ref")) })
	if len(parameters) > 0 {
		r.parameters(parameters)
	}
	r.line("\n| code | when | header fields | body |\n|---|---|---|---|")
	for code, response := range operation.at("responses").all() {
		answer := r.document.resolve(response)
		var fields, bodies []string
		for _, name := range answer.at("headers").names {
			if !slices.Contains(r.common, name) {
				fields = append(fields, name)
			}
		}
		for mediaType, content := range answer.at("content").all() {
			bodies = append(bodies, r.content(mediaType, content.at("schema")))
		}
		r.line("| %s | %s | %s | %s |", code, answer.text("description"), cmp.Or(codes(fields), "–"), cmp.Or(strings.Join(bodies, "; or "), "–"))
	}
}

// parameters writes a table.
func (r *reference) parameters(parameters []*node) {
	r.line("\n| parameter | in | value | meaning |\n|---|---|---|---|")
	for _, parameter := range parameters {
		p := r.document.resolve(parameter)
		r.line("| `%s` | %s | %s | %s |", p.text("name"), p.text("in"), r.kind(p.at("schema")), p.text("description"))
	}
}

// keyNeeded says whether a request needs the API key.
func keyNeeded(operation *node) string {
	schemes := operation.at("security").items
	switch {
	case len(schemes) == 0:
		return "not used"
	case len(schemes[0].names) == 0:
		return "optional"
	}
	return "required"
}

// content describes the body of an answer.
func (r *reference) content(mediaType string, schema *node) string {
	if mediaType == "application/json" {
		return r.kind(schema)
	}
	return strings.TrimSuffix("`"+mediaType+"`: "+schema.text("description"), ": ")
}

// headers writes what the header fields of answers mean.
func (r *reference) headers() {
	r.line("\n## Header fields\n\n| field | value | meaning |\n|---|---|---|")
	seen := map[string]bool{}
	row := func(name string, header *node) {
		header = r.document.resolve(header)
		text := fmt.Sprintf("| `%s` | %s | %s |", name, r.kind(header.at("schema")), header.text("description"))
		if !seen[text] {
			r.line("%s", text)
		}
		seen[text] = true
	}
	for response := range r.responses() {
		for name, header := range response.at("headers").all() {
			row(name, header)
		}
	}
}

// responses yields every response: those with a name, and those of operations.
func (r *reference) responses() func(yield func(*node) bool) {
	return func(yield func(*node) bool) {
		for _, response := range r.document.at("components", "responses").all() {
			if !yield(response) {
				return
			}
		}
		for _, item := range r.document.at("paths").all() {
			for _, operation := range item.all() {
				for _, response := range operation.at("responses").all() {
					if response.text("$ref") == "" && !yield(response) {
						return
					}
				}
			}
		}
	}
}

// findCommon finds the header fields that every answer in JSON has, and the parameters
// that every request has.
func (r *reference) findCommon() {
	var fields, parameters [][]string
	for response := range r.responses() {
		if len(response.at("content", "application/json").names) > 0 {
			fields = append(fields, response.at("headers").names)
		}
	}
	for path, item := range r.document.at("paths").all() {
		var names []string
		for _, parameter := range item.at("parameters").items {
			names = append(names, parameter.text("$ref"))
		}
		if path != "/" { // it has no requests
			parameters = append(parameters, names)
		}
	}
	r.common, r.every = shared(fields), shared(parameters)
}

// shared returns what is in all lists.
func shared(lists [][]string) []string {
	return slices.DeleteFunc(slices.Clone(lists[0]), func(name string) bool {
		return slices.ContainsFunc(lists, func(list []string) bool { return !slices.Contains(list, name) })
	})
}

// schema writes the section of a schema with a name.
func (r *reference) schema(name string, schema *node) {
	r.line("\n### %s\n", name)
	if properties := schema.at("properties"); len(properties.names) == 0 {
		r.line("%s: %s", r.kind(schema), schema.text("description"))
	} else {
		if text := schema.text("description"); text != "" {
			r.line("%s\n", text)
		}
		r.line("| property | required | value | meaning |\n|---|---|---|---|")
		r.properties("", schema)
	}
	for _, example := range schema.at("examples").items {
		if len(example.names) > 0 {
			var indented bytes.Buffer
			_ = json.Indent(&indented, example.raw, "", "  ") // it was parsed before
			r.line("\n```json\n%s\n```", &indented)
		}
	}
}

// properties writes the rows of a schema's properties, and of the objects in them.
func (r *reference) properties(prefix string, schema *node) {
	for name, property := range schema.at("properties").all() {
		required := "no"
		if slices.Contains(schema.at("required").texts(), name) {
			required = "yes"
		}
		description := cmp.Or(property.text("description"), r.document.resolve(property).text("description"))
		r.line("| `%s` | %s | %s | %s |", prefix+name, required, r.kind(property), description)
		r.properties(prefix+name+".", property)
	}
}

// kind says what values a schema allows.
func (r *reference) kind(schema *node) string {
	alternatives := func(items []*node, separator string) string {
		var kinds []string
		for _, item := range items {
			if len(item.names) == 1 && item.names[0] == "required" {
				kinds = append(kinds, "with "+codes(item.at("required").texts()))
			} else if kind := item.at("properties", "type", "enum").texts(); len(kind) > 0 {
				kinds = append(kinds, "with the type "+strings.Join(strings.Split(codes(kind), ", "), " or "))
			} else {
				kinds = append(kinds, r.kind(item))
			}
		}
		return strings.Join(kinds, separator)
	}
	kind := strings.Join(append(schema.at("type").texts(), schema.text("type")), " or ")
	kind = strings.TrimSuffix(kind, " or ")
	switch {
	case schema.text("$ref") != "":
		name := schema.text("$ref")[strings.LastIndex(schema.text("$ref"), "/")+1:]
		return fmt.Sprintf("[%s](#%s)", name, strings.ToLower(name))
	case len(schema.at("anyOf").items) > 0:
		return alternatives(schema.at("anyOf").items, " or ")
	case len(schema.at("oneOf").items) > 0:
		return alternatives(schema.at("oneOf").items, " or ")
	case len(schema.at("allOf").items) > 0:
		return alternatives(schema.at("allOf").items, " ")
	case schema.text("const") != "":
		return "`" + schema.text("const") + "`"
	case len(schema.at("enum").items) > 0:
		return codes(schema.at("enum").texts())
	case kind == "array":
		return "array of " + r.kind(schema.at("items"))
	case schema.text("format") != "":
		return kind + " (" + schema.text("format") + ")"
	case schema.text("pattern") != "":
		return kind + " (`" + schema.text("pattern") + "`)"
	}
	return kind
}

// codes returns words as code, with commas between them.
func codes(words []string) string {
	var quoted []string
	for _, word := range words {
		quoted = append(quoted, "`"+word+"`")
	}
	return strings.Join(quoted, ", ")
}
