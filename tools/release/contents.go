package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/x509"
	"debug/buildinfo"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"

	cyclonedx "github.com/CycloneDX/cyclonedx-go"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"github.com/binder-project/binder-deploy-kubernetes/tools/goimage"
)

// checkFiles checks what is in the files of the output directory.
func (r *release) checkFiles(ctx context.Context, source goimage.Source) error {
	index, err := r.readImage()
	if err != nil {
		return err
	}
	if err := validate.Index(index); err != nil {
		return fmt.Errorf("the image is not valid: %w", err)
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		return fmt.Errorf("read the image: %w", err)
	}
	if err := sameLabels("the index's annotations", manifest.Annotations, source); err != nil {
		return err
	}
	if len(manifest.Manifests) != len(platforms()) {
		return fmt.Errorf("the image is for %d platforms, want %v", len(manifest.Manifests), platforms())
	}
	for i, platform := range platforms() {
		descriptor := manifest.Manifests[i]
		if descriptor.Platform == nil || !descriptor.Platform.Equals(platform) {
			return fmt.Errorf("image %d is for %v, want %s", i+1, descriptor.Platform, platform)
		}
		image, err := index.Image(descriptor.Digest)
		if err != nil {
			return fmt.Errorf("read the image for %s: %w", platform, err)
		}
		if err := r.checkPlatform(ctx, image, platform, source); err != nil {
			return fmt.Errorf("%s: %w", platform, err)
		}
	}
	digest, err := index.Digest()
	if err != nil {
		return fmt.Errorf("read the image: %w", err)
	}
	return errors.Join(r.checkInstall(source, digest), r.checkChecksums())
}

// checkPlatform checks a platform's image, archive and bill of materials.
func (r *release) checkPlatform(ctx context.Context, image v1.Image, platform v1.Platform, source goimage.Source) error {
	if err := checkConfig(image, platform, source); err != nil {
		return err
	}
	binary, err := checkContents(image)
	if err != nil {
		return err
	}
	archived, err := readArchive(r.path(binaryFile(source.Version, platform)))
	if err != nil {
		return fmt.Errorf("read the archive of the binary: %w", err)
	}
	if !bytes.Equal(archived, binary) {
		return errors.New("the archive and the image have other binaries")
	}
	info, err := checkBinary(binary, platform)
	if err != nil {
		return err
	}
	bill, err := os.Open(r.path(sbomFile(source.Version, platform)))
	if err != nil {
		return fmt.Errorf("read the bill of materials: %w", err)
	}
	defer bill.Close()
	if err := checkSBOM(bill, info); err != nil {
		return fmt.Errorf("the bill of materials: %w", err)
	}
	return checkRuns(ctx, image, platform, source)
}

// checkConfig checks for whom the image is, and what it says of itself.
func checkConfig(image v1.Image, platform v1.Platform, source goimage.Source) error {
	file, err := image.ConfigFile()
	if err != nil {
		return fmt.Errorf("read the image's configuration: %w", err)
	}
	manifest, err := image.Manifest()
	if err != nil {
		return fmt.Errorf("read the image's manifest: %w", err)
	}
	if file.OS != platform.OS || file.Architecture != platform.Architecture {
		return fmt.Errorf("the image's configuration is for %s/%s", file.OS, file.Architecture)
	}
	if !file.Created.Equal(source.Created) {
		return fmt.Errorf("the image was created at %s, want the commit's time, %s", file.Created, source.Created)
	}
	want := v1.Config{User: goimage.User, Entrypoint: []string{"/" + goimage.ServiceName}}
	got := file.Config
	got.Labels, got.ExposedPorts = nil, nil // compared on their own, or only informative
	if !reflect.DeepEqual(got, want) {
		return fmt.Errorf("the image's configuration is %+v, want %+v", got, want)
	}
	return errors.Join(
		sameLabels("the image's labels", file.Config.Labels, source),
		sameLabels("the image's annotations", manifest.Annotations, source))
}

func sameLabels(what string, got map[string]string, source goimage.Source) error {
	if want := goimage.Labels(source); !maps.Equal(got, want) {
		return fmt.Errorf("%s are %v, want %v", what, got, want)
	}
	return nil
}

// checkContents checks that the image has the binary and root certificates, and no other
// file: so no shell. It returns the binary.
func checkContents(image v1.Image) (binary []byte, err error) {
	files, err := imageFiles(image)
	if err != nil {
		return nil, fmt.Errorf("read the image's files: %w", err)
	}
	want := []string{goimage.ServiceName, goimage.CertificatesPath}
	if names := slices.Sorted(maps.Keys(files)); !slices.Equal(names, want) {
		return nil, fmt.Errorf("the image has the files %q, and may have %q only", names, want)
	}
	if !x509.NewCertPool().AppendCertsFromPEM(files[goimage.CertificatesPath]) {
		return nil, fmt.Errorf("the image's %s has no certificate", goimage.CertificatesPath)
	}
	return files[goimage.ServiceName], nil
}

// imageFiles returns the contents of the image's files by their names. Anything that is
// neither a file nor a directory is an error, and so is a file that others than root can
// write or that gives rights (setuid).
func imageFiles(image v1.Image) (map[string][]byte, error) {
	reader := mutate.Extract(image)
	defer reader.Close()
	archive := tar.NewReader(reader)
	files := map[string][]byte{}
	for {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return files, nil
		}
		if err != nil {
			return nil, err
		}
		mode := header.FileInfo().Mode()
		if !mode.IsRegular() && !mode.IsDir() || mode.Perm()&0o022 != 0 || mode&(fs.ModeSetuid|fs.ModeSetgid) != 0 ||
			header.Uid != 0 || header.Gid != 0 {
			return nil, fmt.Errorf("%s is %s of %d:%d", header.Name, mode, header.Uid, header.Gid)
		}
		if mode.IsDir() {
			continue
		}
		if files[header.Name], err = io.ReadAll(archive); err != nil {
			return nil, err
		}
	}
}

// readArchive returns the binary in an archive.
func readArchive(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	unzipped, err := gzip.NewReader(file)
	if err != nil {
		return nil, err
	}
	archive := tar.NewReader(unzipped)
	for {
		header, err := archive.Next()
		if err != nil {
			return nil, err
		}
		if header.Name == goimage.ServiceName && header.FileInfo().Mode() == 0o755 {
			return io.ReadAll(archive)
		}
	}
}

// checkBinary checks that a binary is a static one for the platform, and returns what it
// was built from.
func checkBinary(binary []byte, platform v1.Platform) (*debug.BuildInfo, error) {
	file, err := elf.NewFile(bytes.NewReader(binary))
	if err != nil {
		return nil, fmt.Errorf("the binary is no Linux program: %w", err)
	}
	machines := map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}
	if file.Machine != machines[platform.Architecture] {
		return nil, fmt.Errorf("the binary is for %s", file.Machine)
	}
	for _, part := range file.Progs {
		if part.Type == elf.PT_INTERP || part.Type == elf.PT_DYNAMIC {
			return nil, fmt.Errorf("the binary is not static: it has %s, which the image cannot load", part.Type)
		}
	}
	info, err := buildinfo.Read(bytes.NewReader(binary))
	if err != nil {
		return nil, fmt.Errorf("read the modules of the binary: %w", err)
	}
	return info, nil
}

// checkSBOM checks that a bill of materials has the standard library and every module of
// the build information, each with its version, and nothing else.
func checkSBOM(bill io.Reader, info *debug.BuildInfo) error {
	var decoded cyclonedx.BOM
	if err := cyclonedx.NewBOMDecoder(bill, cyclonedx.BOMFileFormatJSON).Decode(&decoded); err != nil {
		return err
	}
	var got []string
	if decoded.Components != nil {
		for _, c := range *decoded.Components {
			got = append(got, c.Name+" "+c.Version)
		}
	}
	want := []string{"std " + strings.TrimPrefix(info.GoVersion, "go")}
	for _, module := range info.Deps {
		if module.Replace != nil {
			module = module.Replace
		}
		want = append(want, strings.TrimSpace(module.Path+" "+module.Version))
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		return fmt.Errorf("it lists\n%s\nbut go version -m says\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	return nil
}

// userID is the number in goimage.User.
const userID = 65532

// checkRuns unpacks the image and asks its program for its version, if this machine can
// run it. As root, nothing but the image is there for the program.
func checkRuns(ctx context.Context, image v1.Image, platform v1.Platform, source goimage.Source) error {
	if platform.Architecture != runtime.GOARCH {
		return nil
	}
	files, err := imageFiles(image)
	if err != nil {
		return err
	}
	root, err := os.MkdirTemp("", "release-root-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(root)
	for name, data := range files {
		path := filepath.Join(root, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, data, 0o600)); err != nil {
			return err
		}
	}
	binary := filepath.Join(root, goimage.ServiceName)
	// Whatever the umask is: the program's user is not root.
	if err := errors.Join(os.Chmod(root, 0o755), os.Chmod(binary, 0o755)); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, binary, "--version")
	if os.Geteuid() == 0 {
		cmd = exec.CommandContext(ctx, "/"+goimage.ServiceName, "--version")
		cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: root, Credential: &syscall.Credential{Uid: userID, Gid: userID}}
	}
	cmd.Dir, cmd.Env = "/", []string{}
	out, err := cmd.CombinedOutput()
	if got := strings.TrimSpace(string(out)); err != nil || got != source.Version {
		return fmt.Errorf("the image's program says %q of its version, want %s (%w)", got, source.Version, err)
	}
	return nil
}

// checkInstall checks that the manifests name the image by its digest.
func (r *release) checkInstall(source goimage.Source, digest v1.Hash) error {
	data, err := os.ReadFile(r.path(installFile))
	if err != nil {
		return err
	}
	if want := fmt.Sprintf("image: %s:%s@%s\n", r.image, source.Version, digest); !strings.Contains(string(data), want) {
		return fmt.Errorf("%s does not have %q", installFile, strings.TrimSpace(want))
	}
	return nil
}

// checkChecksums checks that the checksums are those of all files that are published.
func (r *release) checkChecksums() error {
	got, err := os.ReadFile(r.path(checksumsFile))
	if err != nil {
		return err
	}
	want, err := r.checksums()
	if err == nil && !bytes.Equal(got, want) {
		err = fmt.Errorf("%s does not have the sums of the files", checksumsFile)
	}
	return err
}
