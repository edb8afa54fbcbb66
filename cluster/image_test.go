package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestImageRejectsUnknownNames checks that the error lists the known images.
func TestImageRejectsUnknownNames(t *testing.T) {
	for _, args := range [][]string{{"image"}, {"image", "nothing"}, {"image", "pause", "nothing"}, {"image", "all", ""}} {
		root := newCommand()
		root.SetArgs(append(args, "--dir="+t.TempDir()))
		err := root.ExecuteContext(t.Context())
		if err == nil {
			t.Errorf("%q: no error", args)
			continue
		}
		for _, name := range []string{"pause", "service", "echo", "apps", "jupyter", "all"} {
			if !strings.Contains(err.Error(), name) {
				t.Errorf("%q: error %v does not contain %s", args, err, name)
			}
		}
	}
}

func TestSelectImages(t *testing.T) {
	c := testCluster(t)
	for _, test := range []struct{ names, want []string }{
		{[]string{"service"}, []string{"service"}},
		{[]string{"echo", "pause", "echo"}, []string{"pause", "echo"}},
		{[]string{"all"}, []string{"pause", "service", "echo", "apps", "jupyter"}},
		{[]string{"echo", "all"}, []string{"pause", "service", "echo", "apps", "jupyter"}},
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

// TestImagesMatchManifests checks that the manifests use the images built here.
func TestImagesMatchManifests(t *testing.T) {
	files := map[string]string{
		"jupyter": "manifests/components/local-images/template-jupyter.yaml",
		"apps":    "e2e/manifests/instances/template-app.yaml",
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
			t.Errorf("%s does not use %s", path, i.ref)
		}
	}
}
