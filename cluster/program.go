package main

import (
	"context"
	"path/filepath"
	"runtime"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/binder-project/binder-deploy-kubernetes/tools/goimage"
)

// platform is that of this machine, and so that of the node.
func platform() v1.Platform { return v1.Platform{OS: "linux", Architecture: runtime.GOARCH} }

// buildServiceImage builds the service's image, as a release does.
func (c *cluster) buildServiceImage(ctx context.Context, i image) error {
	source, err := goimage.Describe(ctx, c.root)
	if err != nil {
		return err
	}
	binary := c.binary(goimage.ServiceName)
	return c.buildGoImage(ctx, i, goimage.ServiceProgram(c.root, source), goimage.ServiceSpec(platform(), binary, source))
}

// buildProgramImage builds a program and an image with nothing but the program.
func (c *cluster) buildProgramImage(ctx context.Context, i image, p goimage.Program) error {
	return c.buildGoImage(ctx, i, p, goimage.Spec{Platform: platform(), Name: p.Name, Binary: c.binary(p.Name)})
}

// buildGoImage builds a program and its image. It keeps the binary, so that go build does
// not even link it again if it is up to date.
func (c *cluster) buildGoImage(ctx context.Context, i image, p goimage.Program, spec goimage.Spec) error {
	if err := p.Compile(ctx, spec.Platform, spec.Binary); err != nil {
		return err
	}
	built, err := goimage.New(spec)
	if err != nil {
		return err
	}
	return writeArchive(c.image(i.name), i.ref, built)
}

// binary returns where the binary of a program with an image is kept.
func (c *cluster) binary(name string) string {
	return filepath.Join(filepath.Dir(c.image(name)), "bin", name)
}
