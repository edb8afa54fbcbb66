package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"

	"github.com/google/go-containerregistry/pkg/compression"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// jupyterSuite is the release of Debian whose packages make the image.
const jupyterSuite = "trixie"

// jupyterRecipe are mmdebstrap's options that make the image what it is.
func jupyterRecipe() []string {
	return []string{
		"--variant=minbase",
		"--include=jupyter-notebook,python3-ipykernel,python3-async-lru,python3-jupyterlab-server,python3-notebook-shim",
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
		// JupyterLab's package depends on all that its pages are built of, more
		// than a gigabyte. What serves the pages that are built is Python.
		`--customize-hook=cd "$1/tmp" && APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" apt-get download jupyterlab`,
		`--customize-hook=dpkg-deb --fsys-tarfile "$1"/tmp/jupyterlab_*.deb | tar --extract --directory="$1" ` +
			`--exclude=./usr/share/nodejs --exclude=./usr/share/doc --exclude="*.map"`,
		`--customize-hook=rm "$1"/tmp/jupyterlab_*.deb`,
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
func (c *cluster) buildJupyterImage(ctx context.Context, i image) (err error) {
	have, err := os.ReadFile(c.imageStampFile(i.name))
	if err == nil && string(have) == jupyterStamp() && isFile(c.image(i.name)) {
		return nil
	}
	if os.Geteuid() != 0 {
		return errors.New("it is made of Debian packages, which needs root: run this as root, or by sudo")
	}
	if err := c.ensurePackages(ctx, []debianPackage{{"mmdebstrap", "mmdebstrap"}}); err != nil {
		return err
	}
	// Known by its name, so that what a crash left is cleared away next time.
	work := c.image(i.name) + ".work"
	if err := makeEmpty(work); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, removeTree(work)) }()
	files := filepath.Join(work, "files")
	if err := bootstrap(ctx, jupyterSuite, jupyterRecipe(), files, work); err != nil {
		return err
	}
	// zstd, because it is loaded more often than it is made.
	layer, err := tarball.LayerFromOpener(openFor(ctx, files),
		tarball.WithCompression(compression.ZStd), tarball.WithMediaType(types.OCILayerZStd))
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

// makeEmpty makes a directory with nothing in it.
func makeEmpty(dir string) error {
	if err := removeTree(dir); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make a directory to work in: %w", err)
	}
	return nil
}

// removeTree removes a directory, but nothing that is mounted in it.
func removeTree(dir string) error {
	if err := unmountBelow(dir); err != nil {
		return err
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("clear up: %w", err)
	}
	return nil
}

// openFor opens a file to be read until ctx is done.
func openFor(ctx context.Context, path string) tarball.Opener {
	return func() (io.ReadCloser, error) {
		file, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		return &interruptible{ctx, file}, nil
	}
}

type interruptible struct {
	ctx  context.Context
	file *os.File
}

func (r *interruptible) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.file.Read(p)
}

func (r *interruptible) Close() error { return r.file.Close() }
