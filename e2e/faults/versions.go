package faults

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"github.com/binder-project/binder-deploy-kubernetes/e2e/earlier"
)

// The service's image, and its tag in e2e/faults/manifests.
const (
	serviceImage = "localhost/binder-deploy-kubernetes"
	imageTag     = "faults"
)

// versionFaults are changes of the service's version.
func versionFaults() []Fault {
	return []Fault{{
		Name: "the version before, and this one again", Prepare: loadEarlier, Make: runEarlier, Hold: 20 * time.Second, Within: 30 * time.Second, Closes: true,
		Harmless: []Kind{Launches, Polls, Stops, Pages, Uploads, Downloads},
	}}
}

// loadEarlier builds the image of the version before this one, and loads it into the cluster.
func loadEarlier(ctx context.Context, w *World) error {
	dir, err := os.MkdirTemp("", "binder-earlier-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	commit, err := earlier.Previous(ctx, w.Root)
	if err != nil {
		return err
	}
	version, err := earlier.Checkout(ctx, w.Root, commit, dir)
	if err != nil {
		return err
	}
	archive := filepath.Join(dir, "image.tar")
	if err := version.WriteImage(ctx, serviceImage+":earlier", archive); err != nil {
		return err
	}
	return w.Suite.Kube.LoadImage(ctx, w.Root, archive)
}

// runEarlier goes back to the version before, with the manifests of this one, as a quick
// rollback does. To undo it is an upgrade.
func runEarlier(ctx context.Context, w *World, _ *rand.Rand) (func(context.Context) error, error) {
	change := func(ctx context.Context, tag string) error {
		patch := fmt.Sprintf(`{"spec":{"containers":[{"name":"binder-deploy-kubernetes","image":"%s:%s"}]}}`, serviceImage, tag)
		wait, err := w.changeReplicas(ctx, patch)
		if err != nil {
			return err
		}
		return wait(ctx)
	}
	w.Load.otherVersion.Store(true)
	return func(ctx context.Context) error {
		defer w.Load.otherVersion.Store(false)
		return change(ctx, imageTag)
	}, change(ctx, "earlier")
}
