package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/mod/semver"

	"github.com/binder-project/binder-deploy-kubernetes/tools/goimage"
)

// check builds the release into the output directory, and again from a clone elsewhere.
// It fails if the source is not ready for a release, if the two differ in any byte, or if
// a file does not have what it should have.
func (r *release) check(ctx context.Context) error {
	r.say("checking the source")
	source, err := r.source(ctx)
	if err == nil {
		err = r.checkSource(ctx, source)
	}
	if err != nil {
		return err
	}
	if err := r.build(ctx); err != nil {
		return err
	}
	r.say("checking the files")
	if err := r.checkFiles(ctx, source); err != nil {
		return err
	}
	if err := r.checkReproducible(ctx); err != nil {
		return err
	}
	r.say("the release %s is as it should be", source.Version)
	return nil
}

// checkSource checks that the release is that of a commit, and that the changelog has it
// if the commit is tagged.
func (r *release) checkSource(ctx context.Context, source goimage.Source) error {
	changes, err := r.git(ctx, "status", "--porcelain")
	if err != nil {
		return err
	}
	if changes != "" {
		return fmt.Errorf("the working tree has changes that are in no commit: commit or stash them\n%s", changes)
	}
	tags, err := r.git(ctx, "tag", "--points-at", "HEAD")
	if err != nil {
		return err
	}
	if tags == "" {
		r.say("the commit has no tag: the version is %s, and the changelog need not have it", source.Version)
		return nil
	}
	if !slices.Contains(strings.Fields(tags), source.Version) {
		return fmt.Errorf("the version is %s, but the commit's tag is %s: leave out VERSION", source.Version, tags)
	}
	if !semver.IsValid(source.Version) || semver.Canonical(source.Version) != source.Version {
		return fmt.Errorf("the tag %s is not a version such as v1.2.3: tag the commit with one", source.Version)
	}
	_, err = r.changelogSection(source.Version)
	return err
}

func (r *release) git(ctx context.Context, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, "git", append([]string{"-C", r.root}, args...)...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("git %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out)), nil
}

// checkReproducible builds the release a second time as somebody else would: from a clone
// in another directory, without Go's build cache, with another umask and another time
// zone. Every file must be the same.
func (r *release) checkReproducible(ctx context.Context) (err error) {
	work, err := os.MkdirTemp("", "release-check-")
	if err != nil {
		return fmt.Errorf("create a work directory: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	again := &release{
		root: filepath.Join(work, "a", "clone"), output: filepath.Join(work, "files"),
		version: r.version, image: r.image, began: r.began,
	}
	r.say("building again from a clone in %s, without Go's build cache (some minutes)", again.root)
	if _, err := r.git(ctx, "clone", "--quiet", "--no-hardlinks", r.root, again.root); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	// A process of its own, because a umask is one of a process.
	cmd := exec.CommandContext(ctx, "sh", "-c", `umask 077 && exec "$@"`, "sh", self, "build",
		"--root="+again.root, "--output="+again.output, "--version="+again.version, "--image="+again.image)
	cmd.Env = append(os.Environ(), "TZ=Pacific/Chatham", "LC_ALL=C", "GOCACHE="+filepath.Join(work, "cache"))
	cmd.Stderr = os.Stderr
	// It removes its work directory before it ends.
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("build the release again: %w", err)
	}
	return sameTrees(r.output, again.output)
}

// sameTrees returns an error unless two directories have the same files.
func sameTrees(one, other string) error {
	files, err := treeFiles(one)
	if err != nil {
		return err
	}
	others, err := treeFiles(other)
	if err != nil {
		return err
	}
	if !slices.Equal(files, others) {
		return fmt.Errorf("the two builds have other files:\n%s\nand\n%s\n%s",
			strings.Join(files, " "), strings.Join(others, " "), reproducibleHint)
	}
	for _, name := range files {
		first, err := os.ReadFile(filepath.Join(one, name))
		if err != nil {
			return err
		}
		second, err := os.ReadFile(filepath.Join(other, name))
		if err != nil {
			return err
		}
		if !bytes.Equal(first, second) {
			return fmt.Errorf("%s differs between the two builds, from byte %d on\n%s", name, firstDifference(first, second), reproducibleHint)
		}
	}
	return nil
}

// reproducibleHint says what to do if two builds differ.
const reproducibleHint = "Look for what the build takes from the machine: times, paths, modes, orders of maps, flags of Go. tools/goimage and tools/release write all files."

func firstDifference(one, other []byte) int {
	for i := range min(len(one), len(other)) {
		if one[i] != other[i] {
			return i
		}
	}
	return min(len(one), len(other))
}

// treeFiles returns the paths of all files below dir, in order.
func treeFiles(dir string) ([]string, error) {
	var files []string
	err := filepath.WalkDir(dir, func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		name, err := filepath.Rel(dir, path)
		files = append(files, name)
		return err
	})
	slices.Sort(files)
	return files, err
}
