package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/binder-project/binder-deploy-kubernetes/tools/goimage"
)

// TestSBOM checks a bill of materials against the schema of CycloneDX, and against what
// go version -m prints.
func TestSBOM(t *testing.T) {
	source := goimage.Source{Version: "v1.2.3", Revision: "abc", Created: time.Unix(0, 0).UTC()}
	info := ownInfo(t)
	info.GoVersion = "go1.2.3"
	var bill bytes.Buffer
	noError(t, writeSBOM(&bill, info, [32]byte{1}, source))
	decoded, err := jsonschema.UnmarshalJSON(bytes.NewReader(bill.Bytes()))
	noError(t, err)
	if err := cyclonedxSchema(t).Validate(decoded); err != nil {
		t.Errorf("the bill of materials is not valid: %v", err)
	}
	noError(t, checkSBOM(bytes.NewReader(bill.Bytes()), info))

	self, err := os.Executable()
	noError(t, err)
	out, err := exec.Command("go", "version", "-m", self).Output()
	noError(t, err)
	modules := regexp.MustCompile(`(?m)^\tdep\t(\S+)\t(\S+)\t`).FindAllSubmatch(out, -1)
	if len(modules) != len(info.Deps) {
		t.Fatalf("go version -m lists %d modules, and the build information %d", len(modules), len(info.Deps))
	}
	for _, module := range modules {
		purl := "pkg:golang/" + string(module[1]) + "@" + strings.ReplaceAll(string(module[2]), "+", "%2B")
		if !strings.Contains(bill.String(), `"purl": "`+purl+`"`) {
			t.Errorf("the bill of materials does not have %s", purl)
		}
	}
	for _, want := range []string{"pkg:golang/std@1.2.3", "1970-01-01T00:00:00Z", `"specVersion": "1.6"`} {
		if !strings.Contains(bill.String(), want) {
			t.Errorf("the bill of materials does not have %s", want)
		}
	}
	info.Deps = info.Deps[1:]
	wantError(t, checkSBOM(bytes.NewReader(bill.Bytes()), info), "go version -m says")
}

// cyclonedxSchema returns the schema of CycloneDX 1.6, which its library brings along.
func cyclonedxSchema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/CycloneDX/cyclonedx-go").Output()
	noError(t, err)
	compiler := jsonschema.NewCompiler()
	for file, name := range map[string]string{
		"bom-1.6.schema.json":   "bom-1.6.schema.json",
		"spdx.schema.json":      "spdx.schema.json",
		"jsf-0.82.schemax.json": "jsf-0.82.schema.json",
	} {
		data, err := os.Open(filepath.Join(strings.TrimSpace(string(out)), "schema", file))
		noError(t, err)
		defer data.Close()
		schema, err := jsonschema.UnmarshalJSON(data)
		noError(t, err)
		noError(t, compiler.AddResource("http://cyclonedx.org/schema/"+name, schema))
	}
	compiler.AssertFormat()
	schema, err := compiler.Compile("http://cyclonedx.org/schema/bom-1.6.schema.json")
	noError(t, err)
	return schema
}
