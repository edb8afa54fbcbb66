package main

import (
	"archive/tar"
	"bytes"
	"context"
	"debug/buildinfo"
	"fmt"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/binder-project/binder-deploy-kubernetes/tools/goimage"
)

// TestMain runs the command instead of the tests if check starts this program for its
// second build.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "build" {
		main()
		return
	}
	os.Exit(m.Run())
}

func noError(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// wantError checks that an error says some text.
func wantError(t *testing.T, err error, text string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), text) {
		t.Errorf("got the error %v, want one that says %q", err, text)
	}
}

// tinyFiles are a repository with a service that takes no time to compile.
func tinyFiles() map[string]string {
	return map[string]string{
		"go.mod":                            "module github.com/binder-project/binder-deploy-kubernetes\n\ngo 1.26.0\n\nrequire example.com/dep v1.0.0\n\nreplace example.com/dep => ./dep\n",
		"main.go":                           "package main\n\nimport \"example.com/dep\"\n\nvar version = \"dev\"\n\nfunc main() { println(dep.Prefix + version) }\n",
		"dep/go.mod":                        "module example.com/dep\n\ngo 1.26.0\n",
		"dep/dep.go":                        "package dep\n\nconst Prefix = \"\"\n",
		"LICENSE":                           "free\n",
		".gitignore":                        "/.build/\n",
		"CHANGELOG.md":                      "# Changelog\n\n## [Unreleased]\n\n## [1.2.3] - 2026-11-29\n\n### Added\n\n- All.\n",
		"manifests/base/kustomization.yaml": "resources:\n  - pod.yaml\n",
		"manifests/base/pod.yaml":           "apiVersion: v1\nkind: Pod\nmetadata:\n  name: x\nspec:\n  containers:\n    - name: x\n      image: binder-deploy-kubernetes\n",
	}
}

// tinyRelease returns the release of a committed tiny repository.
func tinyRelease(t *testing.T) *release {
	t.Helper()
	r := &release{root: t.TempDir(), image: "registry.example.com/tiny", began: time.Now()}
	t.Setenv("SOURCE_DATE_EPOCH", "")
	for name, content := range tinyFiles() {
		path := filepath.Join(r.root, name)
		noError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		noError(t, os.WriteFile(path, []byte(content), 0o644))
	}
	noError(t, r.resolve())
	runGit(t, r.root, "init", "--quiet")
	runGit(t, r.root, "config", "user.name", "a")
	runGit(t, r.root, "config", "user.email", "a@example.com")
	runGit(t, r.root, "add", ".")
	runGit(t, r.root, "-c", "commit.gpgSign=false", "commit", "--quiet", "--message=x")
	return r
}

func runGit(t *testing.T, root string, args ...string) {
	t.Helper()
	if out, err := exec.Command("git", append([]string{"-C", root}, args...)...).CombinedOutput(); err != nil {
		t.Fatalf("git %q: %v\n%s", args, err, out)
	}
}

// TestRelease checks a tagged release as make release-check does, with both builds, and
// pushes it to a registry.
func TestRelease(t *testing.T) {
	r := tinyRelease(t)
	runGit(t, r.root, "-c", "tag.gpgSign=false", "tag", "v1.2.3")
	noError(t, r.check(t.Context()))

	files, err := r.files()
	noError(t, err)
	want := []string{
		"binder-deploy-kubernetes_v1.2.3_image.tar",
		"binder-deploy-kubernetes_v1.2.3_linux_amd64.cdx.json", "binder-deploy-kubernetes_v1.2.3_linux_amd64.tar.gz",
		"binder-deploy-kubernetes_v1.2.3_linux_arm64.cdx.json", "binder-deploy-kubernetes_v1.2.3_linux_arm64.tar.gz",
		"install.yaml",
	}
	if !slices.Equal(files, want) {
		t.Errorf("the files are %q, want %q", files, want)
	}
	sums := exec.Command("sha256sum", "--check", "--strict", checksumsFile)
	sums.Dir = r.output
	if out, err := sums.CombinedOutput(); err != nil {
		t.Errorf("sha256sum: %v\n%s", err, out)
	}
	var notes bytes.Buffer
	noError(t, r.notes(t.Context(), &notes))
	if notes.String() != "### Added\n\n- All.\n" {
		t.Errorf("the notes are %q", notes.String())
	}
	index, err := r.readImage()
	noError(t, err)
	built, err := index.Digest()
	noError(t, err)

	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	defer server.Close()
	r.image = strings.TrimPrefix(server.URL, "http://") + "/tiny"
	noError(t, r.push(t.Context()))
	tag, err := name.NewTag(r.image + ":v1.2.3")
	noError(t, err)
	pulled, err := remote.Index(tag)
	noError(t, err)
	if digest, err := pulled.Digest(); err != nil || digest != built {
		t.Errorf("the registry has %s, want %s (%v)", digest, built, err)
	}
	noError(t, r.push(t.Context())) // again: it is there already

	noError(t, os.WriteFile(filepath.Join(r.root, "LICENSE"), nil, 0o600))
	runGit(t, r.root, "-c", "commit.gpgSign=false", "commit", "--quiet", "--all", "--message=y")
	runGit(t, r.root, "-c", "tag.gpgSign=false", "tag", "--force", "v1.2.3")
	noError(t, r.build(t.Context()))
	wantError(t, r.push(t.Context()), "release another version")
	r.version = "v1.2.4"
	wantError(t, r.push(t.Context()), "build it again")
}

// TestCheckSource checks what keeps a source from being released.
func TestCheckSource(t *testing.T) {
	for name, test := range map[string]struct {
		change func(t *testing.T, r *release)
		want   string // "" is no error
	}{
		"not tagged":     {func(*testing.T, *release) {}, ""},
		"in changelog":   {func(t *testing.T, r *release) { runGit(t, r.root, "tag", "v1.2.3") }, ""},
		"no changelog":   {func(t *testing.T, r *release) { runGit(t, r.root, "tag", "v1.2.4") }, "no section ## [1.2.4]"},
		"no version":     {func(t *testing.T, r *release) { runGit(t, r.root, "tag", "first") }, "v1.2.3"},
		"short version":  {func(t *testing.T, r *release) { runGit(t, r.root, "tag", "v1.2") }, "v1.2.3"},
		"other version":  {func(t *testing.T, r *release) { runGit(t, r.root, "tag", "v1.2.3"); r.version = "v9.0.0" }, "leave out VERSION"},
		"new file":       {func(t *testing.T, r *release) { noError(t, os.WriteFile(filepath.Join(r.root, "x"), nil, 0o600)) }, "commit or stash"},
		"no repository":  {func(t *testing.T, r *release) { noError(t, os.RemoveAll(filepath.Join(r.root, ".git"))) }, "not a git repository"},
		"change of file": {func(t *testing.T, r *release) { noError(t, os.WriteFile(filepath.Join(r.root, "LICENSE"), nil, 0o600)) }, "commit or stash"},
	} {
		t.Run(name, func(t *testing.T) {
			r := tinyRelease(t)
			t.Setenv("GIT_CEILING_DIRECTORIES", filepath.Dir(r.root))
			test.change(t, r)
			source, err := r.source(t.Context())
			if err == nil {
				err = r.checkSource(t.Context(), source)
			}
			if test.want == "" {
				noError(t, err)
			} else {
				wantError(t, err, test.want)
			}
		})
	}
}

// TestCheckFindsFaults checks that every check of the files can fail.
func TestCheckFindsFaults(t *testing.T) {
	r := tinyRelease(t)
	ctx := t.Context()
	noError(t, r.build(ctx))
	source, err := r.source(ctx)
	noError(t, err)
	noError(t, r.checkFiles(ctx, source))
	index, err := r.readImage()
	noError(t, err)
	manifest, err := index.IndexManifest()
	noError(t, err)
	images := map[string]v1.Image{}
	for _, descriptor := range manifest.Manifests {
		images[descriptor.Platform.Architecture], err = index.Image(descriptor.Digest)
		noError(t, err)
	}
	amd64, arm64 := platforms()[0], platforms()[1]

	_, err = checkContents(addLayer(t, images["amd64"], tar.Header{Typeflag: tar.TypeReg, Name: "bin/sh", Mode: 0o755}))
	wantError(t, err, "bin/sh")
	_, err = checkContents(addLayer(t, images["amd64"], tar.Header{Typeflag: tar.TypeSymlink, Name: "sh", Linkname: "x"}))
	wantError(t, err, "sh is L")
	_, err = checkContents(addLayer(t, images["amd64"], tar.Header{Typeflag: tar.TypeReg, Name: goimage.ServiceName, Mode: 0o4755}))
	wantError(t, err, "is urwx")

	wantError(t, checkConfig(images["amd64"], arm64, source), "is for linux/amd64")
	for _, change := range []func(*v1.ConfigFile){
		func(f *v1.ConfigFile) { f.Config.User = "" },
		func(f *v1.ConfigFile) { f.Config.Env = []string{"A=b"} },
		func(f *v1.ConfigFile) { f.Config.Entrypoint = []string{"/bin/sh"} },
		func(f *v1.ConfigFile) { delete(f.Config.Labels, "org.opencontainers.image.licenses") },
		func(f *v1.ConfigFile) { f.Created = v1.Time{} },
	} {
		file, err := images["amd64"].ConfigFile()
		noError(t, err)
		file = file.DeepCopy()
		change(file)
		changed, err := mutate.ConfigFile(images["amd64"], file)
		noError(t, err)
		wantError(t, checkConfig(changed, amd64, source), "the image")
	}

	binary, err := readArchive(r.path(binaryFile(source.Version, arm64)))
	noError(t, err)
	_, err = checkBinary(binary, arm64)
	noError(t, err)
	_, err = checkBinary(binary, amd64)
	wantError(t, err, "EM_AARCH64")
	_, err = checkBinary([]byte("#!/bin/sh\n"), amd64)
	wantError(t, err, "no Linux program")
	other := source
	other.Version = "v9.0.0"
	for _, platform := range platforms() { // one of them is this machine's
		err = checkRuns(ctx, images[platform.Architecture], platform, other)
		if err != nil {
			break
		}
	}
	wantError(t, err, "want v9.0.0")

	checkChangedFiles(ctx, t, r, source)
}

// checkChangedFiles checks that a change of each file of a release is found.
func checkChangedFiles(ctx context.Context, t *testing.T, r *release, source goimage.Source) {
	t.Helper()
	kept := filepath.Join(t.TempDir(), "kept")
	noError(t, os.CopyFS(kept, os.DirFS(r.output)))
	noError(t, sameTrees(r.output, kept))
	amd64 := platforms()[0]
	for file, change := range map[string][2]string{
		installFile:                            {"image: ", "image: other"},
		checksumsFile:                          {"a", "b"},
		sbomFile(source.Version, amd64):        {"./dep", "./other"},
		imageFile(source.Version):              {"a", "b"},
		filepath.Join(layoutDir, "index.json"): {"sha256:", "sha256:0"},
	} {
		data, err := os.ReadFile(r.path(file))
		noError(t, err)
		changed := bytes.Replace(data, []byte(change[0]), []byte(change[1]), 1)
		noError(t, os.WriteFile(r.path(file), changed, 0o644))
		if err := r.checkFiles(ctx, source); err == nil {
			t.Errorf("a change of %s is not found", file)
		}
		wantError(t, sameTrees(r.output, kept), file+" differs")
		noError(t, os.WriteFile(r.path(file), data, 0o644))
	}
	noError(t, os.Remove(r.path(installFile)))
	wantError(t, sameTrees(r.output, kept), "other files")
}

// addLayer returns an image with one more file.
func addLayer(t *testing.T, image v1.Image, header tar.Header) v1.Image {
	t.Helper()
	var files bytes.Buffer
	archive := tar.NewWriter(&files)
	noError(t, archive.WriteHeader(&header))
	noError(t, archive.Close())
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(files.Bytes())), nil })
	noError(t, err)
	image, err = mutate.AppendLayers(image, layer)
	noError(t, err)
	return image
}

// ownInfo returns the build information of this test, which has many modules.
func ownInfo(t *testing.T) *debug.BuildInfo {
	t.Helper()
	path, err := os.Executable()
	noError(t, err)
	info, err := buildinfo.ReadFile(path)
	noError(t, err)
	if len(info.Deps) < 10 {
		t.Fatalf("this test has only %d modules: %s", len(info.Deps), fmt.Sprint(info.Deps))
	}
	return info
}
