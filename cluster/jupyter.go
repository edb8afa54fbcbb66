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

// jupyterSuite is the Debian release that the image is built from.
const jupyterSuite = "trixie"

// jupyterRecipe returns the mmdebstrap options that define the image's content.
func jupyterRecipe() []string {
	return []string{
		"--variant=minbase",
		"--include=jupyter-notebook,python3-ipykernel,python3-async-lru,python3-jupyterlab-server,python3-notebook-shim",
		"--format=tar",
		// The container runtime provides /dev.
		"--skip=output/dev",
		"--dpkgopt=force-unsafe-io",
		// No notebook needs these files, which are a third of all.
		"--dpkgopt=path-exclude=/usr/share/doc/*",
		"--dpkgopt=path-exclude=/usr/share/man/*",
		"--dpkgopt=path-exclude=/usr/share/info/*",
		"--dpkgopt=path-exclude=/usr/share/locale/*",
		"--dpkgopt=path-exclude=/usr/share/javascript/mathjax/unpacked/*",
		// The jupyterlab package depends on more than a gigabyte of packages that
		// build its pages. Serving the built pages takes Python only.
		`--customize-hook=cd "$1/tmp" && APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" apt-get download jupyterlab`,
		`--customize-hook=dpkg-deb --fsys-tarfile "$1"/tmp/jupyterlab_*.deb | tar --extract --directory="$1" ` +
			`--exclude=./usr/share/nodejs --exclude=./usr/share/doc --exclude="*.map"`,
		`--customize-hook=rm "$1"/tmp/jupyterlab_*.deb`,
		`--customize-hook=chroot "$1" useradd --uid 1000 --user-group --create-home --shell /bin/bash main`,
		// mmdebstrap copies these from the build machine.
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

// jupyterStamp returns a hash of the recipe. The image is built again when its
// stamp changes.
func jupyterStamp() string {
	sum := sha256.New()
	fmt.Fprintf(sum, "%s %s %q %+v\n", runtime.GOARCH, jupyterSuite, jupyterRecipe(), jupyterConfig())
	return fmt.Sprintf("%x\n", sum.Sum(nil))
}

func (c *cluster) imageStampFile(name string) string {
	return filepath.Join(filepath.Dir(c.image(name)), ".stamps", name)
}

// buildJupyterImage builds the image from Debian packages. It keeps an image of
// the same recipe, even if newer packages are available.
func (c *cluster) buildJupyterImage(ctx context.Context, i image) (err error) {
	have, err := os.ReadFile(c.imageStampFile(i.name))
	if err == nil && string(have) == jupyterStamp() && isFile(c.image(i.name)) {
		return nil
	}
	if os.Geteuid() != 0 {
		return errors.New("installing Debian packages needs root: run this as root or with sudo")
	}
	if err := c.ensurePackages(ctx, []debianPackage{{"mmdebstrap", "mmdebstrap"}}); err != nil {
		return err
	}
	// A fixed name, so that the next run removes what a crash left behind.
	work := c.image(i.name) + ".work"
	if err := makeEmptyDir(work); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, removeTree(work)) }()
	files := filepath.Join(work, "files")
	if err := bootstrap(ctx, jupyterSuite, jupyterRecipe(), files, work); err != nil {
		return err
	}
	// zstd decompresses fast, and the image is loaded more often than built.
	layer, err := tarball.LayerFromOpener(openUntilDone(ctx, files),
		tarball.WithCompression(compression.ZStd), tarball.WithMediaType(types.OCILayerZStd))
	if err != nil {
		return fmt.Errorf("create the image's layer: %w", err)
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

// makeEmptyDir creates an empty directory. It removes an existing one first.
func makeEmptyDir(dir string) error {
	if err := removeTree(dir); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("create the work directory: %w", err)
	}
	return nil
}

// removeTree removes a directory. It first unmounts what is mounted in it, so
// that no mounted file is deleted.
func removeTree(dir string) error {
	if err := unmountBelow(dir); err != nil {
		return err
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("remove the work directory: %w", err)
	}
	return nil
}

// openUntilDone returns an opener of a file whose reads fail once ctx is done.
func openUntilDone(ctx context.Context, path string) tarball.Opener {
	return func() (io.ReadCloser, error) {
		file, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		return &interruptibleFile{ctx, file}, nil
	}
}

type interruptibleFile struct {
	ctx  context.Context
	file *os.File
}

func (r *interruptibleFile) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.file.Read(p)
}

func (r *interruptibleFile) Close() error { return r.file.Close() }
