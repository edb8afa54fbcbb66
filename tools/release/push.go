package main

import (
	"context"
	"fmt"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// push pushes the image of the output directory to its repository, tagged with the
// version. It uses the credentials that docker login has stored.
func (r *release) push(ctx context.Context) error {
	source, err := r.source(ctx)
	if err != nil {
		return err
	}
	index, err := r.readImage()
	if err != nil {
		return err
	}
	tag, err := name.NewTag(r.image + ":" + source.Version)
	if err != nil {
		return fmt.Errorf("parse the image's name: %w", err)
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		return fmt.Errorf("read the image: %w", err)
	}
	if built := manifest.Annotations["org.opencontainers.image.version"]; built != source.Version {
		return fmt.Errorf("the image that was built is of version %s, and not %s: build it again", built, source.Version)
	}
	digest, err := index.Digest()
	if err != nil {
		return fmt.Errorf("read the image: %w", err)
	}
	r.say("pushing %s@%s", tag, digest)
	options := []remote.Option{remote.WithContext(ctx), remote.WithAuthFromKeychain(authn.DefaultKeychain)}
	if there, err := remote.Head(tag, options...); err == nil && there.Digest != digest {
		return fmt.Errorf("the registry has another image as %s, %s, which somebody may run: release another version", tag, there.Digest)
	}
	if err := remote.WriteIndex(tag, index, options...); err != nil {
		return fmt.Errorf("push %s (docker login stores credentials): %w", tag, err)
	}
	r.say("pushed %s@%s", tag, digest)
	return nil
}

// readImage returns the image in the output directory.
func (r *release) readImage() (v1.ImageIndex, error) {
	outer, err := layout.ImageIndexFromPath(r.path(layoutDir))
	if err != nil {
		return nil, fmt.Errorf("read the image, which make release builds: %w", err)
	}
	manifest, err := outer.IndexManifest()
	if err != nil {
		return nil, fmt.Errorf("read the image: %w", err)
	}
	if len(manifest.Manifests) != 1 {
		return nil, fmt.Errorf("%s has %d images, want one", r.path(layoutDir), len(manifest.Manifests))
	}
	return outer.ImageIndex(manifest.Manifests[0].Digest)
}
