package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"

	"github.com/google/go-containerregistry/pkg/compression"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// debianSuite is the Debian release that images are built from.
const debianSuite = "trixie"

// debianImage defines an image of Debian packages.
type debianImage struct {
	recipe []string // mmdebstrap options that define the image's content
	config v1.Config
	// source is a directory of this repository whose files go into the image, too.
	// It may be "".
	source string
	// prepare puts what the recipe's hooks take into the directory work. It may be nil.
	prepare func(ctx context.Context, work string) error
}

// debianRecipe returns the mmdebstrap options for an image of the given packages
// with a user main. more has options of this image only.
func debianRecipe(packages string, more ...string) []string {
	recipe := []string{
		"--variant=minbase",
		"--include=" + packages,
		"--format=tar",
		// The container runtime provides /dev.
		"--skip=output/dev",
		"--dpkgopt=force-unsafe-io",
		// No application needs these files, which are a third of all.
		"--dpkgopt=path-exclude=/usr/share/doc/*",
		"--dpkgopt=path-exclude=/usr/share/man/*",
		"--dpkgopt=path-exclude=/usr/share/info/*",
		"--dpkgopt=path-exclude=/usr/share/locale/*",
	}
	recipe = append(recipe, more...)
	return append(recipe,
		`--customize-hook=chroot "$1" useradd --uid 1000 --user-group --create-home --shell /bin/bash main`,
		// mmdebstrap copies these from the build machine. Other hooks need them.
		`--customize-hook=rm -f "$1/etc/resolv.conf" "$1/etc/hostname" "$1/etc/apt/apt.conf.d/99mmdebstrap"`,
	)
}

// debianConfig returns the configuration of an image that runs as the user main.
func debianConfig(dir, command string) v1.Config {
	return v1.Config{
		User:       "1000:1000",
		WorkingDir: dir,
		Env: []string{
			"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
			"HOME=/home/main",
			"LANG=C.UTF-8",
		},
		Cmd: []string{command},
	}
}

// stamp returns a hash of the definition. The image is built again when its stamp
// changes.
func (d debianImage) stamp() (string, error) {
	sum := sha256.New()
	fmt.Fprintf(sum, "%s %s %q %+v\n", runtime.GOARCH, debianSuite, d.recipe, d.config)
	files, err := readFiles(d.source)
	if err != nil {
		return "", err
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		fmt.Fprintf(sum, "%q %x\n", name, sha256.Sum256(files[name]))
	}
	return fmt.Sprintf("%x\n", sum.Sum(nil)), nil
}

// readFiles returns the content of the regular files in a directory by their names.
// Subdirectories are left out. "" is a directory without files.
func readFiles(dir string) (map[string][]byte, error) {
	if dir == "" {
		return nil, nil
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("read the image's source: %w", err)
	}
	files := map[string][]byte{}
	for _, entry := range entries {
		if !entry.Type().IsRegular() {
			continue
		}
		data, err := os.ReadFile(filepath.Join(dir, entry.Name()))
		if err != nil {
			return nil, fmt.Errorf("read the image's source: %w", err)
		}
		files[entry.Name()] = data
	}
	return files, nil
}

func (c *cluster) imageStampFile(name string) string {
	return filepath.Join(filepath.Dir(c.image(name)), ".stamps", name)
}

// buildDebianImage builds an image from Debian packages. It keeps an image of the
// same definition, even if newer packages are available.
func (c *cluster) buildDebianImage(ctx context.Context, i image, d debianImage) (err error) {
	stamp, err := d.stamp()
	if err != nil {
		return err
	}
	have, err := os.ReadFile(c.imageStampFile(i.name))
	if err == nil && string(have) == stamp && isFile(c.image(i.name)) {
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
	if d.prepare != nil {
		if err := d.prepare(ctx, work); err != nil {
			return err
		}
	}
	files := filepath.Join(work, "files")
	if err := bootstrap(ctx, debianSuite, d.recipe, files, work); err != nil {
		return err
	}
	// zstd decompresses fast, and the image is loaded more often than built.
	layer, err := tarball.LayerFromOpener(openUntilDone(ctx, files),
		tarball.WithCompression(compression.ZStd), tarball.WithMediaType(types.OCILayerZStd))
	if err != nil {
		return fmt.Errorf("create the image's layer: %w", err)
	}
	built, err := makeImage(layer, d.config)
	if err != nil {
		return err
	}
	if err := writeArchive(c.image(i.name), i.ref, built); err != nil {
		return err
	}
	return writeFile(c.imageStampFile(i.name), []byte(stamp), 0o644)
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
