package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/binder-project/binder-deploy-kubernetes/tools/goimage"
)

// pauseImage is the image of the container that holds a pod's namespaces.
const pauseImage = "localhost/binder-pause:dev"

// image is a container image built on this machine.
type image struct {
	name  string // name of its archive: c.image(name)
	ref   string // image reference in pod specs
	build func(context.Context, image) error
}

// images returns all images, the slowest to build last.
func (c *cluster) images() []image {
	return []image{
		{"pause", pauseImage, func(ctx context.Context, i image) error {
			return c.buildProgramImage(ctx, i, goimage.Program{Dir: c.source(), Package: "./pause", Name: "pause"})
		}},
		{"service", "localhost/" + goimage.ServiceName + ":dev", c.buildServiceImage},
		{"echo", "localhost/binder-echo:dev", func(ctx context.Context, i image) error {
			return c.buildProgramImage(ctx, i, goimage.Program{Dir: filepath.Join(c.root, "e2e"), Package: "./echo", Name: "echo"})
		}},
		{"apps", "localhost/binder-apps:dev", func(ctx context.Context, i image) error {
			return c.buildDebianImage(ctx, i, c.appsImage())
		}},
		{"jupyter", "localhost/binder-jupyter:dev", func(ctx context.Context, i image) error {
			return c.buildDebianImage(ctx, i, jupyterImage())
		}},
	}
}

func (c *cluster) imageNames() []string {
	var names []string
	for _, i := range c.images() {
		names = append(names, i.name)
	}
	return names
}

func imageCommand(c *cluster) *cobra.Command {
	names := strings.Join(c.imageNames(), ", ")
	return &cobra.Command{
		Use:   "image <name>…|all",
		Short: "Build images: " + names,
		Long: `Build images (` + names + `), each into an archive .cluster/images/<name>.tar.
An archive that has not changed is not written again. Use load to load archives.`,
		Example: `  go -C cluster run . image service echo
  go -C cluster run . load "$PWD"/.cluster/images/{service,echo}.tar`,
		Args: func(_ *cobra.Command, args []string) error {
			_, err := c.selectImages(args)
			return err
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			selected, err := c.selectImages(args)
			if err != nil {
				return err
			}
			return c.withLock(cmd.Context(), func() error {
				for _, i := range selected {
					if err := c.buildImage(cmd.Context(), i.name); err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
}

// selectImages returns the named images in the order of images.
func (c *cluster) selectImages(names []string) ([]image, error) {
	known := c.imageNames()
	if len(names) == 0 {
		return nil, fmt.Errorf("name at least one image: %s, or all", strings.Join(known, ", "))
	}
	for _, name := range names {
		if name != "all" && !slices.Contains(known, name) {
			return nil, fmt.Errorf("unknown image %q: use %s, or all", name, strings.Join(known, ", "))
		}
	}
	return slices.DeleteFunc(c.images(), func(i image) bool {
		return !slices.Contains(names, "all") && !slices.Contains(names, i.name)
	}), nil
}

// buildImage brings an image's archive up to date.
func (c *cluster) buildImage(ctx context.Context, name string) error {
	selected, err := c.selectImages([]string{name})
	if err != nil {
		return err
	}
	for _, i := range selected {
		err := c.progress.step("building the image "+i.name, func() error { return i.build(ctx, i) })
		if ctx.Err() != nil {
			return errors.New("interrupted")
		}
		if err != nil {
			return fmt.Errorf("build the image %s: %w", i.name, err)
		}
	}
	return nil
}
