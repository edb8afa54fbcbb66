package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/binder-project/binder-deploy-kubernetes/tools/goimage"
)

// testProgram returns a program with the given source, in its own module.
func testProgram(t *testing.T, source string) goimage.Program {
	t.Helper()
	module := t.TempDir()
	for name, content := range map[string]string{"go.mod": "module example.com/hello\n\ngo 1.26.0\n", "main.go": source} {
		if err := os.WriteFile(filepath.Join(module, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return goimage.Program{Dir: module, Package: ".", Name: "hello", Variables: []string{"main.greeting=hello"}}
}

const helloSource = `package main

var greeting = "none"

func main() { println(greeting) }
`

func buildTestImage(t *testing.T, c *cluster, p goimage.Program) (archive []byte) {
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

// TestProgramImage checks that the same source always gives the same bytes, and that an
// unchanged archive is not written again.
func TestProgramImage(t *testing.T) {
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
