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

// runtimeNamespace is the containerd namespace that the kubelet uses.
const runtimeNamespace = "k8s.io"

// loadTimeout bounds the time until pods can use an imported image.
const loadTimeout = 15 * time.Second

func loadCommand(c *cluster) *cobra.Command {
	return &cobra.Command{
		Use:   "load <image.tar>…",
		Short: "Load image archives into the running cluster",
		Long: `Load image archives into the running cluster. The command image and docker save
write such archives. Pods use a loaded image if their imagePullPolicy is
IfNotPresent or Never.`,
		Example: `  go -C cluster run . load "$PWD"/.cluster/images/service.tar`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return errors.New("name at least one image archive to load")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.withLock(cmd.Context(), func() error {
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

// loadImage loads the images in an archive and waits until pods can use them.
func (c *cluster) loadImage(ctx context.Context, path string) error {
	images, err := readArchive(path)
	if err != nil {
		return fmt.Errorf("%s is not an image archive: %w", path, err)
	}
	var refs []string
	for _, image := range images {
		refs = append(refs, image.ref)
	}
	what := fmt.Sprintf("loading %s from %s", strings.Join(refs, ", "), filepath.Base(path))
	return c.progress.step(what, func() error {
		for _, n := range c.nodes() {
			if err := n.load(ctx, path, images); err != nil {
				return err
			}
		}
		return nil
	})
}

func (n node) load(ctx context.Context, path string, images []archivedImage) error {
	running, err := readRecord(n.record(n.own("containerd")))
	if err != nil {
		return err
	}
	if !running.alive() {
		return fmt.Errorf("%s is not running: run up to start it", n.name)
	}
	if err := n.importArchive(ctx, path); err != nil {
		return err
	}
	return n.awaitImages(ctx, images)
}

func (n node) importArchive(ctx context.Context, path string) error {
	cmd := exec.CommandContext(ctx, n.bin("ctr"), "--address", n.socket(), "--namespace", runtimeNamespace,
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

// awaitImages waits until the runtime service knows the images, which takes a
// moment after ctr has imported them.
func (n node) awaitImages(ctx context.Context, images []archivedImage) error {
	runtime, err := n.dialRuntime()
	if err != nil {
		return err
	}
	defer runtime.close()
	return poll(ctx, loadTimeout, func(ctx context.Context) error {
		for _, image := range images {
			id, err := runtime.imageID(ctx, image.ref)
			if err != nil {
				return err
			}
			if id != image.id {
				return fmt.Errorf("containerd has the id %q for %s, want %s", id, image.ref, image.id)
			}
		}
		return nil
	})
}

// ensurePauseImage builds the pause image, which every pod needs, and loads it
// into the nodes that lack it. containerd must be running.
func (c *cluster) ensurePauseImage(ctx context.Context) error {
	const name = "pause"
	if err := c.buildImage(ctx, name); err != nil {
		return err
	}
	images, err := readArchive(c.image(name))
	if err != nil {
		return fmt.Errorf("read the image %s: %w", name, err)
	}
	for _, n := range c.nodes() {
		id, err := n.imageID(ctx, pauseImage)
		if err != nil {
			return err
		}
		if id == images[0].id {
			continue
		}
		if err := n.load(ctx, c.image(name), images); err != nil {
			return err
		}
	}
	return nil
}

// imageID is the runtime's, once.
func (n node) imageID(ctx context.Context, name string) (string, error) {
	runtime, err := n.dialRuntime()
	if err != nil {
		return "", err
	}
	defer runtime.close()
	return runtime.imageID(ctx, name)
}
