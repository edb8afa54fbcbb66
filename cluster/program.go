package main

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// programUser is an unprivileged user and group. It is numeric so that
// Kubernetes can check runAsNonRoot.
const programUser = "65532:65532"

// program is a Go program. Its image contains nothing else.
type program struct {
	module    string   // directory of its go.mod
	pkg       string   // package to build
	name      string   // file name in the image's root
	variables []string // variables for the linker to set, name=value
}

// buildProgramImage builds a program and its image. It keeps the binary, so that
// go build does not even link it again if it is up to date.
func (c *cluster) buildProgramImage(ctx context.Context, i image, p program) error {
	binary := filepath.Join(filepath.Dir(c.image(i.name)), "bin", p.name)
	ldflags := []string{"-s", "-w"}
	for _, variable := range p.variables {
		ldflags = append(ldflags, "-X", variable)
	}
	// -buildvcs=false: an unrelated commit must not change the image.
	if err := goBuild(ctx, p.module, binary, strings.Join(ldflags, " "), p.pkg, "-trimpath", "-buildvcs=false"); err != nil {
		return err
	}
	built, err := programImage(binary, p.name)
	if err != nil {
		return err
	}
	return writeArchive(c.image(i.name), i.ref, built)
}

// serviceVersion returns the output of git describe, as the Makefile does.
func (c *cluster) serviceVersion(ctx context.Context) string {
	out, err := exec.CommandContext(ctx, "git", "-C", c.root, "describe", "--tags", "--always", "--dirty").Output()
	if version := strings.TrimSpace(string(out)); err == nil && version != "" {
		return version
	}
	return "dev"
}

// programImage returns an image with one static binary. The image is
// reproducible: it does not depend on when or where it is built.
func programImage(binary, name string) (v1.Image, error) {
	data, err := os.ReadFile(binary)
	if err != nil {
		return nil, fmt.Errorf("read the program: %w", err)
	}
	var files bytes.Buffer
	archive := tar.NewWriter(&files)
	header := &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o755, Size: int64(len(data))}
	err = archive.WriteHeader(header)
	if err == nil {
		_, err = archive.Write(data)
	}
	if err := errors.Join(err, archive.Close()); err != nil {
		return nil, fmt.Errorf("archive the program: %w", err)
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(files.Bytes())), nil
	})
	if err != nil {
		return nil, fmt.Errorf("create the image's layer: %w", err)
	}
	return makeImage(layer, v1.Config{User: programUser, Entrypoint: []string{"/" + name}})
}
