package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// runtimeNamespace is where containerd has the images of the kubelet.
const runtimeNamespace = "k8s.io"

// loadPatience is how long it may take until pods can use an image that
// containerd has.
const loadPatience = 15 * time.Second

func loadCommand(c *cluster) *cobra.Command {
	return &cobra.Command{
		Use:   "load <image.tar>…",
		Short: "Load image archives into the running cluster",
		Long: `Load image archives, made by image or by docker save, into the running cluster.
Pods use what was loaded if their imagePullPolicy is IfNotPresent or Never.`,
		Example: `  go -C cluster run . load "$PWD"/.cluster/images/service.tar`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return errors.New("name image archives to load")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.locked(cmd.Context(), func() error {
				for _, path := range args {
					if err := c.loadImage(cmd.Context(), path); err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
}

// loadImage loads the images in an archive, and returns when pods can use them.
func (c *cluster) loadImage(ctx context.Context, path string) error {
	images, err := readArchive(path)
	if err != nil {
		return fmt.Errorf("%s is no image archive: %w", path, err)
	}
	running, err := readRecord(c.record(c.containerd().name))
	if err != nil {
		return err
	}
	if !running.alive() {
		return errors.New("the cluster is not running, and so nothing can be loaded: start it with up")
	}
	var refs []string
	for _, image := range images {
		refs = append(refs, image.ref)
	}
	what := fmt.Sprintf("loading %s from %s", strings.Join(refs, ", "), filepath.Base(path))
	return c.progress.during(what, func() error {
		if err := c.importArchive(ctx, path); err != nil {
			return err
		}
		return awaitImages(ctx, images)
	})
}

func (c *cluster) importArchive(ctx context.Context, path string) error {
	cmd := exec.CommandContext(ctx, c.bin("ctr"), "--address", containerdSocket(), "--namespace", runtimeNamespace,
		"images", "import", path)
	out, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		return errors.New("interrupted")
	}
	if err != nil {
		return fmt.Errorf("load %s: %w\n%s", path, err, tail(string(out), logTail))
	}
	return nil
}

// awaitImages waits until the runtime knows the images by their names: it is
// told of what ctr loads a moment later.
func awaitImages(ctx context.Context, images []archived) error {
	runtime, err := dialRuntime()
	if err != nil {
		return err
	}
	defer runtime.close()
	return poll(ctx, loadPatience, func(ctx context.Context) error {
		for _, image := range images {
			id, err := runtime.imageID(ctx, image.ref)
			if err != nil {
				return err
			}
			if id != image.id {
				return fmt.Errorf("containerd has %q for %s, which was loaded as %s", id, image.ref, image.id)
			}
		}
		return nil
	})
}

// ensurePauseImage builds the image that every pod needs, and loads it unless
// it is loaded. containerd must be running.
func (c *cluster) ensurePauseImage(ctx context.Context) error {
	const name = "pause"
	if err := c.buildImage(ctx, name); err != nil {
		return err
	}
	images, err := readArchive(c.image(name))
	if err != nil {
		return fmt.Errorf("read the image %s: %w", name, err)
	}
	runtime, err := dialRuntime()
	if err != nil {
		return err
	}
	defer runtime.close()
	id, err := runtime.imageID(ctx, pauseImage)
	if err != nil {
		return err
	}
	if id == images[0].id {
		return nil
	}
	return c.loadImage(ctx, c.image(name))
}
