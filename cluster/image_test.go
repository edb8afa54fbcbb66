package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestImageNamesAreChecked: a name that is none is answered with those there are.
func TestImageNamesAreChecked(t *testing.T) {
	for _, args := range [][]string{{"image"}, {"image", "nothing"}, {"image", "pause", "nothing"}, {"image", "all", ""}} {
		root := newCommand()
		root.SetArgs(append(args, "--dir="+t.TempDir()))
		err := root.ExecuteContext(t.Context())
		if err == nil {
			t.Errorf("%q: no error", args)
			continue
		}
		for _, name := range []string{"pause", "service", "echo", "jupyter", "all"} {
			if !strings.Contains(err.Error(), name) {
				t.Errorf("%q: %v, which does not name %s", args, err, name)
			}
		}
	}
}

func TestSelectImages(t *testing.T) {
	c := testCluster(t)
	for _, test := range []struct{ names, want []string }{
		{[]string{"service"}, []string{"service"}},
		{[]string{"echo", "pause", "echo"}, []string{"pause", "echo"}},
		{[]string{"all"}, []string{"pause", "service", "echo", "jupyter"}},
		{[]string{"echo", "all"}, []string{"pause", "service", "echo", "jupyter"}},
	} {
		selected, err := c.selectImages(test.names)
		var got []string
		for _, i := range selected {
			got = append(got, i.name)
		}
		if err != nil || !slices.Equal(got, test.want) {
			t.Errorf("%q: got %q, %v; want %q", test.names, got, err, test.want)
		}
	}
}

// TestImagesAreThoseThatTheManifestsName: what is built here is what pods ask for.
func TestImagesAreThoseThatTheManifestsName(t *testing.T) {
	files := map[string]string{
		"jupyter": "manifests/components/local-images/template-jupyter.yaml",
		"echo":    "e2e/manifests/instances/template-echo.yaml",
		"service": "manifests/components/local-images/kustomization.yaml",
	}
	for _, i := range testCluster(t).images() {
		path, found := files[i.name]
		if !found {
			continue
		}
		data, err := os.ReadFile(filepath.Join("..", path))
		if err != nil {
			t.Fatal(err)
		}
		name, tag, _ := strings.Cut(i.ref, ":")
		manifest := strings.ReplaceAll(string(data), "newName: "+name+"\n    newTag: "+tag, i.ref)
		if !strings.Contains(manifest, i.ref+"\n") {
			t.Errorf("%s does not name %s", path, i.ref)
		}
	}
}
