package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/google/go-containerregistry/pkg/compression"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// jupyterSuite is the release of Debian whose packages make the image.
const jupyterSuite = "bookworm"

// debianKeyring has the keys of Debian's own archive, on Debian itself.
const debianKeyring = "/usr/share/keyrings/debian-archive-keyring.gpg"

// interruptPatience is how long mmdebstrap may take to clear up.
const interruptPatience = 30 * time.Second

// jupyterRecipe are mmdebstrap's options that make the image what it is.
func jupyterRecipe() []string {
	return []string{
		"--variant=minbase",
		"--include=jupyter-notebook,python3-ipykernel",
		"--format=tar",
		// The container runtime has its own.
		"--skip=output/dev",
		"--dpkgopt=force-unsafe-io",
		// What no notebook needs; a third of all files.
		"--dpkgopt=path-exclude=/usr/share/doc/*",
		"--dpkgopt=path-exclude=/usr/share/man/*",
		"--dpkgopt=path-exclude=/usr/share/info/*",
		"--dpkgopt=path-exclude=/usr/share/locale/*",
		"--dpkgopt=path-exclude=/usr/share/javascript/mathjax/unpacked/*",
		`--customize-hook=chroot "$1" useradd --uid 1000 --user-group --create-home --shell /bin/bash main`,
		// Those of the machine that the image is built on.
		`--customize-hook=rm -f "$1/etc/resolv.conf" "$1/etc/hostname" "$1/etc/apt/apt.conf.d/99mmdebstrap"`,
	}
}

func jupyterConfig() v1.Config {
	return v1.Config{
		User:       "1000:1000",
		WorkingDir: "/home/main",
		Env: []string{
			"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
			"HOME=/home/main",
			"LANG=C.UTF-8",
		},
		Cmd: []string{"jupyter-notebook"},
	}
}

// jupyterStamp tells what the image is made of: another stamp, another image.
func jupyterStamp() string {
	sum := sha256.New()
	fmt.Fprintf(sum, "%s %s %q %+v\n", runtime.GOARCH, jupyterSuite, jupyterRecipe(), jupyterConfig())
	return fmt.Sprintf("%x\n", sum.Sum(nil))
}

func (c *cluster) imageStampFile(name string) string {
	return filepath.Join(filepath.Dir(c.image(name)), ".stamps", name)
}

// buildJupyterImage makes the image of Debian packages, unless there is one of
// this recipe. It stays then, whatever becomes of the packages.
func (c *cluster) buildJupyterImage(ctx context.Context, i image) error {
	have, err := os.ReadFile(c.imageStampFile(i.name))
	if err == nil && string(have) == jupyterStamp() && isFile(c.image(i.name)) {
		return nil
	}
	if err := c.ensurePackages(ctx, []debianPackage{{"mmdebstrap", "mmdebstrap"}}); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(c.image(i.name)), 0o755); err != nil {
		return fmt.Errorf("make the directory of images: %w", err)
	}
	files := c.image(i.name) + ".files"
	defer os.Remove(files)
	if err := bootstrap(ctx, files); err != nil {
		return err
	}
	// zstd, because it is loaded more often than it is made.
	layer, err := tarball.LayerFromFile(files, tarball.WithCompression(compression.ZStd), tarball.WithMediaType(types.OCILayerZStd))
	if err != nil {
		return fmt.Errorf("make the image's layer: %w", err)
	}
	built, err := makeImage(layer, jupyterConfig())
	if err != nil {
		return err
	}
	if err := writeArchive(c.image(i.name), i.ref, built); err != nil {
		return err
	}
	return writeFile(c.imageStampFile(i.name), []byte(jupyterStamp()), 0o644)
}

// bootstrap makes the archive of a root file system of Debian packages, which
// come from where this machine's own do.
func bootstrap(ctx context.Context, target string) error {
	args := slices.Concat(jupyterRecipe(), aptOptions(ctx))
	if isFile(debianKeyring) {
		args = append(args, "--keyring="+debianKeyring)
	}
	// By root, too: then mounts and processes are out of the machine's sight,
	// and end with mmdebstrap whatever happens.
	args = append(args, "--mode=unshare", jupyterSuite, target)
	cmd := exec.CommandContext(ctx, "mmdebstrap", append(args, aptSources(ctx)...)...)
	// mmdebstrap clears up after a signal if those that it started get it too;
	// and when it fails it sends its whole group one.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = interruptPatience
	out, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		return errors.New("interrupted")
	}
	if err != nil {
		return fmt.Errorf("install Debian packages into the image: %w\n%s", err, tail(string(out), 20))
	}
	return nil
}

// aptOptions are this machine's settings of apt for reaching its mirrors, such
// as a proxy. They do not become part of the image.
func aptOptions(ctx context.Context) []string {
	out, err := exec.CommandContext(ctx, "apt-config", "dump", "Acquire::http", "Acquire::https", "Acquire::ftp",
		"Acquire::Retries", "Acquire::Check-Valid-Until", "Acquire::Check-Date").Output()
	if err != nil {
		return nil // no apt here, and so no settings of it
	}
	var options []string
	for line := range strings.Lines(string(out)) {
		if line = strings.TrimSpace(line); !strings.HasSuffix(line, ` "";`) {
			options = append(options, "--aptopt="+line)
		}
	}
	return options
}

// aptSources are those of this machine's sources that have the suite; none, for
// mmdebstrap's own, if it is of another release.
func aptSources(ctx context.Context) []string {
	out, err := exec.CommandContext(ctx, "apt-get", "indextargets",
		"--format", "$(ORIGIN) $(REPO_URI) $(RELEASE) $(COMPONENT)", "Created-By: Packages").Output()
	if err != nil {
		return nil
	}
	return parseSources(string(out))
}

// parseSources reads what apt-get indextargets prints.
func parseSources(targets string) []string {
	var sources []string
	complete := false
	for line := range strings.Lines(targets) {
		fields := strings.Fields(line)
		if len(fields) != 4 || fields[0] != "Debian" || fields[3] != "main" || !strings.HasPrefix(fields[1], "http") {
			continue
		}
		uri, release := fields[1], fields[2]
		switch release {
		case jupyterSuite:
			complete = true
		case jupyterSuite + "-security", jupyterSuite + "-updates":
		default:
			continue
		}
		if source := fmt.Sprintf("deb %s %s main", uri, release); !slices.Contains(sources, source) {
			sources = append(sources, source)
		}
	}
	if !complete {
		return nil
	}
	return sources
}
