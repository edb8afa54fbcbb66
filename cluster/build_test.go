package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestToolVersions checks that the go.mod of each program requires a version of
// it.
func TestToolVersions(t *testing.T) {
	c := testCluster(t)
	c.root, _ = filepath.Abs("..")
	for _, tool := range c.tools() {
		version, err := c.version(tool)
		if err != nil || !strings.HasPrefix(version, "v") {
			t.Errorf("%s: version %q, %v", filepath.Base(tool.path), version, err)
		}
	}
}

// TestStampDependsOnVersion checks that the stamp changes with the version only.
func TestStampDependsOnVersion(t *testing.T) {
	c := testCluster(t)
	c.root = t.TempDir()
	dir := filepath.Join(c.root, "cluster", "tools", "a")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	write := func(version string) {
		t.Helper()
		for name, content := range map[string]string{
			"go.mod": "module a\n\nrequire example.com/x " + version + "\n", "go.sum": "",
		} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	x := tool{path: c.bin("x"), module: "a", pkg: "example.com/x/cmd", versionModule: "example.com/x", versionVars: []string{"example.com/x.Version"}}
	write("v1.0.0")
	one, err := c.stamp(x)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := c.stamp(x); err != nil || again != one {
		t.Errorf("the stamp is %q, then %q (%v); want the same", one, again, err)
	}
	write("v1.0.1")
	if other, err := c.stamp(x); err != nil || other == one {
		t.Errorf("the stamp is still %q (%v)", other, err)
	}
	if got, want := ldflags(x, "v1.0.1"), "-s -w -X example.com/x.Version=v1.0.1"; got != want {
		t.Errorf("ldflags are %q, want %q", got, want)
	}
	x.versionModule = "example.com/y"
	if _, err := c.stamp(x); err == nil || !strings.Contains(err.Error(), "does not require example.com/y") {
		t.Errorf("module missing from go.mod: got %v", err)
	}
}

// TestBuildTools builds two small programs at once, one of them with a path that ends in a
// version, and sets the version of one.
func TestBuildTools(t *testing.T) {
	c := testCluster(t)
	c.root = t.TempDir()
	for name, content := range map[string]string{
		"go.mod": "module example.com/x\n\ngo 1.26\n\nrequire example.com/y v1.2.3\n\nreplace example.com/y => ./y\n", "go.sum": "",
		"y/go.mod":        "module example.com/y\n",
		"cmd/one/main.go": "package main\n\nvar Version string\n\nfunc main() { print(Version) }\n",
		"two/v2/main.go":  "package main\n\nfunc main() { print(2) }\n",
	} {
		path := filepath.Join(c.root, "cluster", "tools", "x", name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o750), os.WriteFile(path, []byte(content), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	one := tool{path: c.bin("first"), module: "x", pkg: "example.com/x/cmd/one", versionModule: "example.com/y", versionVars: []string{"main.Version"}}
	two := tool{path: c.bin("second"), module: "x", pkg: "example.com/x/two/v2", versionModule: "example.com/y"}
	if err := c.buildTools(t.Context(), "x", []tool{one, two}); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{one.path: "v1.2.3", two.path: "2"} {
		if out, err := exec.CommandContext(t.Context(), path).CombinedOutput(); err != nil || string(out) != want {
			t.Errorf("%s printed %q, %v; want %q", filepath.Base(path), out, err, want)
		}
	}
	for _, tool := range []tool{one, two} {
		if !isFile(c.stampFile(tool)) {
			t.Errorf("%s has no stamp", filepath.Base(tool.path))
		}
	}
}

func TestLogsErrorListsParts(t *testing.T) {
	root := newCommand()
	root.SetArgs([]string{"logs", "nothing"})
	err := root.ExecuteContext(t.Context())
	if err == nil || !strings.Contains(err.Error(), "kubelet") || !strings.Contains(err.Error(), "etcd") {
		t.Errorf("got %v, want an error that lists the parts", err)
	}
}
