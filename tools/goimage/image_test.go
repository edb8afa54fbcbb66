package goimage

import (
	"archive/tar"
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
)

func noError(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// writeFiles writes files into a new directory and returns it.
func writeFiles(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		noError(t, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600))
	}
	return dir
}

// TestCompile checks that a binary is static and for its platform, and does not depend on
// its directory or on flags in the environment.
func TestCompile(t *testing.T) {
	files := map[string]string{
		"go.mod":  "module example.com/hello\n\ngo 1.26.0\n",
		"main.go": "package main\n\nvar greeting = \"none\"\n\nfunc main() { println(greeting) }\n",
		"loud.go": "//go:build loud\n\npackage main\n\nfunc init() { greeting += \"!\" }\n",
	}
	compile := func(platform v1.Platform) (path string, binary []byte) {
		path = filepath.Join(t.TempDir(), "hello")
		program := Program{Dir: writeFiles(t, files), Package: ".", Name: "hello", Variables: []string{"main.greeting=hello"}}
		noError(t, program.Compile(t.Context(), platform, path))
		binary, err := os.ReadFile(path)
		noError(t, err)
		return path, binary
	}
	for architecture, machine := range map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64} {
		_, binary := compile(v1.Platform{OS: "linux", Architecture: architecture})
		file, err := elf.NewFile(bytes.NewReader(binary))
		noError(t, err)
		if file.Machine != machine {
			t.Errorf("the binary for %s is for %s", architecture, file.Machine)
		}
		for _, part := range file.Progs {
			if part.Type == elf.PT_INTERP || part.Type == elf.PT_DYNAMIC {
				t.Errorf("the binary for %s is not static: it has %s", architecture, part.Type)
			}
		}
	}
	here := v1.Platform{OS: "linux", Architecture: "amd64"}
	_, one := compile(here)
	t.Setenv("GOFLAGS", "-tags=loud")
	path, other := compile(here)
	if !bytes.Equal(one, other) {
		t.Error("the binary depends on its source's directory or on GOFLAGS")
	}
	out, err := exec.Command("go", "version", "-m", path).Output()
	noError(t, err)
	for _, want := range []string{"CGO_ENABLED=0", "-trimpath=true", "path\texample.com/hello"} {
		if !bytes.Contains(out, []byte(want)) {
			t.Errorf("go version -m does not say %s:\n%s", want, out)
		}
	}

	files["main.go"] = "package main\n\nfunc main() { broken }\n"
	err = Program{Dir: writeFiles(t, files), Package: ".", Name: "hello"}.Compile(t.Context(), here, filepath.Join(t.TempDir(), "hello"))
	if err == nil || !bytes.Contains([]byte(err.Error()), []byte("undefined: broken")) {
		t.Errorf("got %v, want the compiler's output", err)
	}
}

// TestNew checks an image, byte for byte where that matters.
func TestNew(t *testing.T) {
	created := time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)
	spec := Spec{
		Platform: v1.Platform{OS: "linux", Architecture: "arm64"},
		Name:     "hello",
		Binary:   filepath.Join(writeFiles(t, map[string]string{"x": "program"}), "x"),
		Files:    map[string][]byte{"etc/b": []byte("b"), "etc/deep/a": []byte("a")},
		Ports:    []string{"80/tcp"},
		Labels:   map[string]string{"key": "value"},
		Created:  created,
	}
	image, err := New(spec)
	noError(t, err)

	file, err := image.ConfigFile()
	noError(t, err)
	want := v1.Config{
		User: "65532:65532", Entrypoint: []string{"/hello"}, Labels: spec.Labels,
		ExposedPorts: map[string]struct{}{"80/tcp": {}},
	}
	if file.OS != "linux" || file.Architecture != "arm64" || !file.Created.Equal(created) || !reflect.DeepEqual(file.Config, want) {
		t.Errorf("the configuration is %+v", file)
	}
	manifest, err := image.Manifest()
	noError(t, err)
	if !maps.Equal(manifest.Annotations, spec.Labels) || len(manifest.Layers) != 1 ||
		manifest.MediaType != "application/vnd.oci.image.manifest.v1+json" ||
		manifest.Config.MediaType != "application/vnd.oci.image.config.v1+json" ||
		manifest.Layers[0].MediaType != "application/vnd.oci.image.layer.v1.tar+gzip" {
		t.Errorf("the manifest is %+v", manifest)
	}
	var listing []string
	files := mutate.Extract(image)
	defer files.Close()
	for archive := tar.NewReader(files); ; {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		noError(t, err)
		content, err := io.ReadAll(archive)
		noError(t, err)
		listing = append(listing, fmt.Sprintf("%s %d:%d %d %s %s", header.FileInfo().Mode(), header.Uid, header.Gid, header.ModTime.Unix(), header.Name, content))
	}
	slices.Sort(listing)
	wantListing := []string{
		"-rw-r--r-- 0:0 0 etc/b b",
		"-rw-r--r-- 0:0 0 etc/deep/a a",
		"-rwxr-xr-x 0:0 0 hello program",
		"drwxr-xr-x 0:0 0 etc ",
		"drwxr-xr-x 0:0 0 etc/deep ",
	}
	if !slices.Equal(listing, wantListing) {
		t.Errorf("the image has\n%q, want\n%q", listing, wantListing)
	}

	again, err := New(spec)
	noError(t, err)
	one, err := image.Digest()
	noError(t, err)
	if other, err := again.Digest(); err != nil || one != other {
		t.Errorf("the same input gave %s and %s (%v)", one, other, err)
	}
}
