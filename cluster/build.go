package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
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
	var missing []tool
	for _, t := range c.tools() {
		want, err := c.stamp(t)
		if err != nil {
			return err
		}
		have, err := os.ReadFile(c.stampFile(t))
		if err != nil || string(have) != want || !isFile(t.path) {
			missing = append(missing, t)
		}
	}
	for i, t := range missing {
		what := fmt.Sprintf("building %s (%d of %d)", filepath.Base(t.path), i+1, len(missing))
		if err := c.progress.step(what, func() error { return c.buildTool(ctx, t) }); err != nil {
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

// buildTool builds one static program and writes its stamp.
func (c *cluster) buildTool(ctx context.Context, t tool) error {
	version, err := c.version(t)
	if err != nil {
		return err
	}
	want, err := c.stamp(t)
	if err != nil {
		return err
	}
	next := t.path + ".next"
	if err := goBuild(ctx, c.source("tools", t.module), next, ldflags(t, version), t.pkg); err != nil {
		return err
	}
	if err := os.Rename(next, t.path); err != nil {
		return fmt.Errorf("install %s: %w", filepath.Base(t.path), err)
	}
	return writeFile(c.stampFile(t), []byte(want), 0o644)
}

// goBuild builds a package of the module in dir. It disables cgo, so that the
// program depends on no library of the machine.
func goBuild(ctx context.Context, dir, output, ldflags, pkg string, flags ...string) error {
	args := append([]string{"-C", dir, "build", "-o", output, "-ldflags", ldflags}, flags...)
	cmd := exec.CommandContext(ctx, "go", append(args, pkg)...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("build %s: %w\n%s", pkg, err, tail(string(out), 30))
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
