package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"debug/buildinfo"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/binder-project/binder-deploy-kubernetes/tools/goimage"
)

// platforms are those that a release has binaries and images for.
func platforms() []v1.Platform {
	return []v1.Platform{{OS: "linux", Architecture: "amd64"}, {OS: "linux", Architecture: "arm64"}}
}

// Names of the files in a release's directory. All but the layout are to be published.
const (
	layoutDir     = "image" // the image as a directory, for push
	installFile   = "install.yaml"
	checksumsFile = "checksums.txt"
)

func imageFile(version string) string {
	return fmt.Sprintf("%s_%s_image.tar", goimage.ServiceName, version)
}

func binaryFile(version string, platform v1.Platform) string {
	return fmt.Sprintf("%s_%s_%s_%s.tar.gz", goimage.ServiceName, version, platform.OS, platform.Architecture)
}

func sbomFile(version string, platform v1.Platform) string {
	return strings.TrimSuffix(binaryFile(version, platform), ".tar.gz") + ".cdx.json"
}

// build writes the release's files to the output directory, in place of what is there.
func (r *release) build(ctx context.Context) error {
	source, err := r.source(ctx)
	if err != nil {
		return err
	}
	if err := os.RemoveAll(r.output); err != nil {
		return fmt.Errorf("remove the previous release: %w", err)
	}
	if err := os.MkdirAll(r.output, 0o755); err != nil {
		return fmt.Errorf("create the output directory: %w", err)
	}
	work, err := os.MkdirTemp("", "release-")
	if err != nil {
		return fmt.Errorf("create a work directory: %w", err)
	}
	defer os.RemoveAll(work)

	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, platform := range platforms() {
		image, err := r.buildPlatform(ctx, work, platform, source)
		if err != nil {
			return err
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: image, Descriptor: v1.Descriptor{Platform: &platform}})
	}
	index = mutate.Annotations(index, goimage.Labels(source)).(v1.ImageIndex)
	digest, err := index.Digest()
	if err != nil {
		return fmt.Errorf("assemble the image: %w", err)
	}
	r.say("writing the image %s:%s@%s", r.image, source.Version, digest)
	if err := r.writeImage(index, source); err != nil {
		return fmt.Errorf("write the image: %w", err)
	}
	r.say("rendering the manifests")
	if err := r.writeInstall(source, digest); err != nil {
		return fmt.Errorf("render the manifests: %w", err)
	}
	sums, err := r.checksums()
	if err == nil {
		err = os.WriteFile(r.path(checksumsFile), sums, 0o644)
	}
	if err != nil {
		return fmt.Errorf("write the checksums: %w", err)
	}
	r.say("the release %s is in %s", source.Version, r.output)
	return nil
}

// buildPlatform builds the binary for a platform, writes its archive and its bill of
// materials, and returns its image.
func (r *release) buildPlatform(ctx context.Context, work string, platform v1.Platform, source goimage.Source) (v1.Image, error) {
	r.say("building %s for %s (minutes, if Go's build cache is empty)", goimage.ServiceName, platform)
	binary := filepath.Join(work, platform.Architecture)
	if err := goimage.ServiceProgram(r.root, source).Compile(ctx, platform, binary); err != nil {
		return nil, err
	}
	if err := r.writeBinaryArchive(binary, platform, source); err != nil {
		return nil, fmt.Errorf("archive the binary: %w", err)
	}
	info, err := buildinfo.ReadFile(binary)
	if err != nil {
		return nil, fmt.Errorf("read the modules of the binary: %w", err)
	}
	data, err := os.ReadFile(binary)
	if err != nil {
		return nil, fmt.Errorf("read the binary: %w", err)
	}
	var bill bytes.Buffer
	if err := writeSBOM(&bill, info, sha256.Sum256(data), source); err != nil {
		return nil, fmt.Errorf("write the bill of materials: %w", err)
	}
	if err := os.WriteFile(r.path(sbomFile(source.Version, platform)), bill.Bytes(), 0o644); err != nil {
		return nil, fmt.Errorf("write the bill of materials: %w", err)
	}
	return goimage.New(goimage.ServiceSpec(platform, binary, source))
}

func (r *release) path(name string) string { return filepath.Join(r.output, name) }

// writeImage writes the image as an OCI layout: as a directory, and as an archive that
// container engines load.
func (r *release) writeImage(index v1.ImageIndex, source goimage.Source) error {
	path, err := layout.Write(r.path(layoutDir), mutate.IndexMediaType(empty.Index, types.OCIImageIndex))
	if err != nil {
		return err
	}
	// The names under which engines find the image: OCI's, and containerd's.
	names := map[string]string{
		"org.opencontainers.image.ref.name": source.Version,
		"io.containerd.image.name":          r.image + ":" + source.Version,
	}
	if err := path.AppendIndex(index, layout.WithAnnotations(names)); err != nil {
		return err
	}
	return writeTree(r.path(imageFile(source.Version)), r.path(layoutDir), source.Created)
}

// checksums returns the SHA-256 sums of all files that are published, as sha256sum prints
// them.
func (r *release) checksums() ([]byte, error) {
	files, err := r.files()
	if err != nil {
		return nil, err
	}
	var sums bytes.Buffer
	for _, name := range files {
		data, err := os.ReadFile(r.path(name))
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(&sums, "%x  %s\n", sha256.Sum256(data), name)
	}
	return sums.Bytes(), nil
}

// files returns the names of the files that are published, without the checksums.
func (r *release) files() ([]string, error) {
	entries, err := os.ReadDir(r.output)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, entry := range entries {
		if !entry.IsDir() && entry.Name() != checksumsFile {
			names = append(names, entry.Name())
		}
	}
	slices.Sort(names)
	return names, nil
}
