package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/mod/modfile"
)

// tool is a program built from one of the Go modules in tools/.
type tool struct {
	path          string   // where the program is installed
	module        string   // directory in tools/ with the go.mod to build from
	pkg           string   // package to build
	versionModule string   // module whose version is the program's version
	versionVars   []string // variables that the linker sets to that version, "v1.2.3"
}

// tools returns all programs of the cluster, the slowest to build first.
func (c *cluster) tools() []tool {
	kubernetes := func(name string) tool {
		return tool{
			path: c.bin(name), module: "kubernetes", pkg: "k8s.io/kubernetes/cmd/" + name,
			versionModule: "k8s.io/kubernetes", versionVars: []string{"k8s.io/component-base/version.gitVersion"},
		}
	}
	containerd := func(name string) tool {
		const owner = "github.com/containerd/containerd/v2"
		return tool{
			path: c.bin(name), module: "containerd", pkg: owner + "/cmd/" + name,
			versionModule: owner, versionVars: []string{owner + "/version.Version"},
		}
	}
	plugin := func(name string) tool {
		const owner = "github.com/containernetworking/plugins"
		return tool{
			path: filepath.Join(c.cniBin(), filepath.Base(name)), module: "containerd", pkg: owner + "/plugins/" + name,
			versionModule: owner, versionVars: []string{owner + "/pkg/utils/buildversion.BuildVersion"},
		}
	}
	return []tool{
		kubernetes("kube-apiserver"), kubernetes("kube-controller-manager"), kubernetes("kube-scheduler"),
		kubernetes("kubelet"), kubernetes("kube-proxy"), kubernetes("kubectl"),
		{path: c.bin("etcd"), module: "kubernetes", pkg: "go.etcd.io/etcd/server/v3", versionModule: "go.etcd.io/etcd/server/v3"},
		containerd("containerd"), containerd("containerd-shim-runc-v2"), containerd("ctr"),
		plugin("main/bridge"), plugin("main/loopback"), plugin("ipam/host-local"),
		{path: c.bin("kwok"), module: "kubernetes", pkg: "sigs.k8s.io/kwok/cmd/kwok", versionModule: "sigs.k8s.io/kwok"},
	}
}

// build builds the programs that are missing or out of date.
func (c *cluster) build(ctx context.Context) error {
	missing := map[string][]tool{} // by module
	for _, t := range c.tools() {
		want, err := c.stamp(t)
		if err != nil {
			return err
		}
		have, err := os.ReadFile(c.stampFile(t))
		if err != nil || string(have) != want || !isFile(t.path) {
			missing[t.module] = append(missing[t.module], t)
		}
	}
	for _, module := range slices.Sorted(maps.Keys(missing)) {
		var names []string
		for _, t := range missing[module] {
			names = append(names, filepath.Base(t.path))
		}
		what := "building " + strings.Join(names, ", ")
		if err := c.progress.step(what, func() error { return c.buildTools(ctx, module, missing[module]) }); err != nil {
			return err
		}
	}
	return c.installSelf()
}

// installSelf copies this program into the cluster's bin directory, from which
// it is started as the load balancer. "go run" deletes its own binary on exit.
func (c *cluster) installSelf() error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	data, err := os.ReadFile(self)
	if err != nil {
		return fmt.Errorf("read this program: %w", err)
	}
	next := c.bin("cluster") + ".next"
	if err := writeFile(next, data, 0o755); err != nil {
		return err
	}
	return replaceIfChanged(next, c.bin("cluster"))
}

// replaceIfChanged renames next to path. If the contents are equal it keeps the
// file at path, so that a process running from it need not be restarted.
func replaceIfChanged(next, path string) error {
	same, err := sameContent(next, path)
	if err != nil {
		return err
	}
	if same {
		return os.Remove(next)
	}
	if err := os.Rename(next, path); err != nil {
		return fmt.Errorf("install %s: %w", filepath.Base(path), err)
	}
	return nil
}

// sameContent reports whether two files have equal contents. It returns false
// if b does not exist.
func sameContent(a, b string) (bool, error) {
	one, err := os.ReadFile(a)
	if err != nil {
		return false, fmt.Errorf("compare files: %w", err)
	}
	other, err := os.ReadFile(b)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("compare files: %w", err)
	}
	return bytes.Equal(one, other), nil
}

// buildTools builds static programs of a module, and writes their stamps. One command builds
// them all: while it links one, which keeps one processor busy, it compiles for the next.
func (c *cluster) buildTools(ctx context.Context, module string, tools []tool) error {
	dir, err := os.MkdirTemp(c.dir, "build-")
	if err != nil {
		return fmt.Errorf("build programs: %w", err)
	}
	defer os.RemoveAll(dir)
	var packages, flags []string
	for _, t := range tools {
		version, err := c.version(t)
		if err != nil {
			return err
		}
		packages = append(packages, t.pkg)
		// A variable that a program does not have is left out by the linker.
		if f := ldflags(t, version); !slices.Contains(flags, f) {
			flags = append(flags, f)
		}
	}
	if err := goBuild(ctx, c.source("tools", module), dir, strings.Join(flags, " "), packages...); err != nil {
		return err
	}
	for _, t := range tools {
		if err := os.MkdirAll(filepath.Dir(t.path), 0o755); err != nil {
			return fmt.Errorf("install %s: %w", filepath.Base(t.path), err)
		}
		if err := os.Rename(filepath.Join(dir, executable(t.pkg)), t.path); err != nil {
			return fmt.Errorf("install %s: %w", filepath.Base(t.path), err)
		}
		stamp, err := c.stamp(t)
		if err != nil {
			return err
		}
		if err := writeFile(c.stampFile(t), []byte(stamp), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// executable returns the name that "go build" gives to the program of a package: the last
// element of its path, without that of a major version.
func executable(pkg string) string {
	if name := path.Base(pkg); !majorVersion.MatchString(name) {
		return name
	}
	return path.Base(path.Dir(pkg))
}

var majorVersion = regexp.MustCompile(`^v[2-9][0-9]*$`)

// goBuild builds packages of the module in dir into a folder. It disables cgo, so that the
// programs depend on no library of the machine. The compiler need not write debug information,
// which the linker's flags omit.
func goBuild(ctx context.Context, dir, output, ldflags string, packages ...string) error {
	args := append([]string{"-C", dir, "build", "-o", output + "/", "-ldflags", ldflags, "-gcflags=all=-dwarf=false"}, packages...)
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("build %s: %w\n%s", strings.Join(packages, " "), err, tail(string(out), 30))
	}
	return nil
}

// ldflags returns the linker flags of a tool. They omit the symbol tables, which
// halves the link time, and set the version, which the Kubernetes components
// report to each other.
func ldflags(t tool, version string) string {
	flags := []string{"-s", "-w"}
	for _, variable := range t.versionVars {
		flags = append(flags, "-X", variable+"="+version)
	}
	return strings.Join(flags, " ")
}

// version returns a tool's version, as its go.mod requires it.
func (c *cluster) version(t tool) (string, error) {
	path := c.source("tools", t.module, "go.mod")
	data, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("read the versions of the tools: %w", err)
	}
	file, err := modfile.Parse(path, data, nil)
	if err != nil {
		return "", fmt.Errorf("read the versions of the tools: %w", err)
	}
	for _, require := range file.Require {
		if require.Mod.Path == t.versionModule {
			return require.Mod.Version, nil
		}
	}
	return "", fmt.Errorf("%s does not require %s", path, t.versionModule)
}

// stamp returns a hash of what a tool is built from. A tool whose stamp changed
// is built again.
func (c *cluster) stamp(t tool) (string, error) {
	version, err := c.version(t)
	if err != nil {
		return "", err
	}
	sum := sha256.New()
	fmt.Fprintln(sum, runtime.Version(), t.pkg, ldflags(t, version))
	for _, name := range []string{"go.mod", "go.sum"} {
		data, err := os.ReadFile(c.source("tools", t.module, name))
		if err != nil {
			return "", fmt.Errorf("read the versions of the tools: %w", err)
		}
		sum.Write(data)
	}
	return fmt.Sprintf("%x\n", sum.Sum(nil)), nil
}

func (c *cluster) stampFile(t tool) string {
	return filepath.Join(c.dir, "bin", ".stamps", filepath.Base(t.path))
}

// tail returns the last n lines of a text.
func tail(text string, n int) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
