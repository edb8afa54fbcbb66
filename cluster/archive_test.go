package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// writeTestArchive writes an archive with one image and returns the image's id.
func writeTestArchive(t *testing.T, path, ref, content string) (id string) {
	t.Helper()
	built, err := makeImage(static.NewLayer([]byte(content), types.DockerLayer), v1.Config{User: "1:1"})
	if err != nil {
		t.Fatal(err)
	}
	if err := writeArchive(path, ref, built); err != nil {
		t.Fatal(err)
	}
	name, err := built.ConfigName()
	if err != nil {
		t.Fatal(err)
	}
	return name.String()
}

func TestReadArchive(t *testing.T) {
	path := filepath.Join(t.TempDir(), "images", "x.tar")
	for _, content := range []string{"one", "two"} {
		id := writeTestArchive(t, path, "localhost/x:dev", content)
		got, err := readArchive(path)
		if want := []archivedImage{{ref: "localhost/x:dev", id: id}}; err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: got %v, %v; want %v", content, got, err, want)
		}
	}
}

// TestReadArchiveRejectsOtherFiles checks that readArchive rejects files that
// are not image archives.
func TestReadArchiveRejectsOtherFiles(t *testing.T) {
	dir := t.TempDir()
	whole := filepath.Join(dir, "whole.tar")
	writeTestArchive(t, whole, "localhost/x:dev", strings.Repeat("x", 4096))
	data, err := os.ReadFile(whole)
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{
		"empty": nil,
		"text":  []byte("apiVersion: v1\n"),
		"half":  data[:len(data)/2],
	} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := readArchive(path); err == nil {
			t.Errorf("%s: got %v", name, got)
		}
	}
	for name, path := range map[string]string{"directory": dir, "missing": filepath.Join(dir, "missing")} {
		if got, err := readArchive(path); err == nil {
			t.Errorf("%s: got %v", name, got)
		}
	}
}

func TestWriteArchiveRejectsInvalidName(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.tar")
	if err := writeArchive(path, "not a name", nil); err == nil || isFile(path) {
		t.Errorf("got %v, want an error and no file", err)
	}
}
