package main

import (
	"archive/tar"
	"bytes"
	"debug/elf"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"runtime"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// testProgram returns a program with the given source, in its own module.
func testProgram(t *testing.T, source string) program {
	t.Helper()
	module := t.TempDir()
	for name, content := range map[string]string{"go.mod": "module example.com/hello\n\ngo 1.26.0\n", "main.go": source} {
		if err := os.WriteFile(filepath.Join(module, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return program{module: module, pkg: ".", name: "hello", variables: []string{"main.greeting=hello"}}
}

const helloSource = `package main

var greeting = "none"

func main() { println(greeting) }
`

func buildTestImage(t *testing.T, c *cluster, p program) (archive []byte) {
	t.Helper()
	i := image{name: "hello", ref: "localhost/binder-hello:dev"}
	if err := c.buildProgramImage(t.Context(), i, p); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(c.image("hello"))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// TestProgramImage checks that the image has one static binary and an
// unprivileged user.
func TestProgramImage(t *testing.T) {
	c := testCluster(t)
	buildTestImage(t, c, testProgram(t, helloSource))
	built, err := tarball.ImageFromPath(c.image("hello"), nil)
	if err != nil {
		t.Fatal(err)
	}

	file, err := built.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if file.OS != "linux" || file.Architecture != runtime.GOARCH {
		t.Errorf("the image is for %s/%s", file.OS, file.Architecture)
	}
	want := v1.Config{User: "65532:65532", Entrypoint: []string{"/hello"}}
	if !reflect.DeepEqual(file.Config, want) {
		t.Errorf("the configuration is %+v, want %+v", file.Config, want)
	}

	files := mutate.Extract(built)
	defer files.Close()
	archive := tar.NewReader(files)
	header, err := archive.Next()
	if err != nil {
		t.Fatal(err)
	}
	if header.Name != "hello" || header.FileInfo().Mode() != 0o755 || header.Uid != 0 || header.ModTime.Unix() > 0 {
		t.Errorf("got file %+v", header)
	}
	binary, err := io.ReadAll(archive)
	if err != nil {
		t.Fatal(err)
	}
	checkStatic(t, binary)
	if header, err := archive.Next(); !errors.Is(err, io.EOF) {
		t.Errorf("unexpected file %+v (%v)", header, err)
	}
	out, err := exec.Command(filepath.Join(c.dir, "images", "bin", "hello")).CombinedOutput()
	if err != nil || string(out) != "hello\n" {
		t.Errorf("the program prints %q, %v", out, err)
	}
}

func checkStatic(t *testing.T, binary []byte) {
	t.Helper()
	file, err := elf.NewFile(bytes.NewReader(binary))
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range file.Progs {
		if part.Type == elf.PT_INTERP || part.Type == elf.PT_DYNAMIC {
			t.Errorf("the program is not static: it has %s", part.Type)
		}
	}
}

// TestProgramImageIsReproducible checks that the same source always gives the
// same bytes, and that an unchanged archive is not written again.
func TestProgramImageIsReproducible(t *testing.T) {
	c := testCluster(t)
	one := buildTestImage(t, c, testProgram(t, helloSource))
	before, err := os.Stat(c.image("hello"))
	if err != nil {
		t.Fatal(err)
	}
	if again := buildTestImage(t, c, testProgram(t, helloSource)); !bytes.Equal(one, again) {
		t.Error("the image depends on the source's directory")
	}
	after, err := os.Stat(c.image("hello"))
	if err != nil {
		t.Fatal(err)
	}
	if !os.SameFile(before, after) || !before.ModTime().Equal(after.ModTime()) {
		t.Error("an identical archive was written again")
	}
	if elsewhere := buildTestImage(t, testCluster(t), testProgram(t, helloSource)); !bytes.Equal(one, elsewhere) {
		t.Error("the image depends on the cluster's directory")
	}
	if other := buildTestImage(t, c, testProgram(t, helloSource+"\nfunc init() { greeting += \"!\" }\n")); bytes.Equal(one, other) {
		t.Error("another source gives the same image")
	}
	left, err := filepath.Glob(filepath.Join(c.dir, "images", "*.next"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %q, %v", left, err)
	}
}

// TestProgramThatDoesNotCompile checks that a failed build keeps the archive.
func TestProgramThatDoesNotCompile(t *testing.T) {
	c := testCluster(t)
	one := buildTestImage(t, c, testProgram(t, helloSource))
	err := c.buildProgramImage(t.Context(), image{name: "hello", ref: "localhost/binder-hello:dev"}, testProgram(t, "package main\n\nfunc main() { broken }\n"))
	if err == nil || !bytes.Contains([]byte(err.Error()), []byte("undefined: broken")) {
		t.Errorf("got %v, want the compiler's output", err)
	}
	if data, err := os.ReadFile(c.image("hello")); err != nil || !bytes.Equal(data, one) {
		t.Errorf("the archive has changed (%v)", err)
	}
}

// TestServiceVersion checks the version from git, and "dev" outside a git
// repository.
func TestServiceVersion(t *testing.T) {
	c := testCluster(t)
	c.root = t.TempDir()
	t.Setenv("GIT_CEILING_DIRECTORIES", filepath.Dir(c.root))
	if got := c.serviceVersion(t.Context()); got != "dev" {
		t.Errorf("got %q, want dev", got)
	}
	for _, args := range [][]string{
		{"init", "--quiet"},
		{"-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "commit.gpgSign=false", "commit", "--quiet", "--allow-empty", "--message=x"},
		{"-c", "tag.gpgSign=false", "tag", "v1.2.3"},
	} {
		if out, err := exec.Command("git", append([]string{"-C", c.root}, args...)...).CombinedOutput(); err != nil {
			t.Fatalf("git %q: %v\n%s", args, err, out)
		}
	}
	if got := c.serviceVersion(t.Context()); got != "v1.2.3" {
		t.Errorf("got %q, want v1.2.3", got)
	}
}
