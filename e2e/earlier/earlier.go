// Package earlier finds earlier versions of the service in the repository's history, and
// builds their images as this version's image is built. So a test can upgrade from what was
// really there before.
package earlier

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/binder-project/binder-deploy-kubernetes/tools/goimage"
)

// service is what the service and its installation are made of, as pathspecs of git. A
// commit that changes nothing of it makes no other version.
func service() []string {
	return []string{"--", "*.go", "internal", "go.mod", "go.sum", "docs/openapi.json", "manifests",
		":(exclude)manifests/components", ":(exclude)manifests/examples", ":(exclude)*_test.go", ":(exclude)bench", ":(exclude)cluster", ":(exclude)e2e", ":(exclude)tools"}
}

// Previous returns the version before the one in the working tree at root, as a commit: the
// newest release in its history, or without one, the newest commit. Either has other code
// or other manifests than the working tree. An error says what is missing.
func Previous(ctx context.Context, root string) (commit string, err error) {
	if err := needHistory(ctx, root); err != nil {
		return "", err
	}
	for from := "HEAD"; ; from = commit + "^" {
		commit, err = git(ctx, root, "describe", "--tags", "--abbrev=0", "--match=v[0-9]*", from)
		if err != nil {
			break // there are no more tags
		}
		if other, err := differs(ctx, root, commit); err != nil || other {
			return commit, err
		}
	}
	if other, err := differs(ctx, root, "HEAD"); err != nil || other {
		return "HEAD", err // the version is not committed yet
	}
	changed, err := git(ctx, root, append([]string{"rev-list", "--max-count=1", "HEAD"}, service()...)...)
	if err != nil {
		return "", fmt.Errorf("find the last change of the service: %w", err)
	}
	commit, err = git(ctx, root, "rev-parse", "--verify", changed+"^")
	if err != nil {
		return "", fmt.Errorf("there is no version before this one: %w", err)
	}
	return commit, nil
}

// Ago returns the commit so many commits before the working tree's.
func Ago(ctx context.Context, root string, commits int) (commit string, err error) {
	if err := needHistory(ctx, root); err != nil {
		return "", err
	}
	commit, err = git(ctx, root, "rev-parse", "--verify", fmt.Sprintf("HEAD~%d", commits))
	if err != nil {
		return "", fmt.Errorf("find the commit %d commits ago: %w", commits, err)
	}
	return commit, nil
}

// needHistory returns an error that says what to do if root is not a repository with its
// whole history.
func needHistory(ctx context.Context, root string) error {
	shallow, err := git(ctx, root, "rev-parse", "--is-shallow-repository")
	if err != nil {
		return fmt.Errorf("an earlier version is built from the history of the repository, so clone it with git: %w", err)
	}
	if shallow == "true" {
		return errors.New("an earlier version is built from the history of the repository, which a shallow clone lacks: run git fetch --unshallow --tags")
	}
	return nil
}

// differs reports whether the service of a commit is another than that of the working tree.
func differs(ctx context.Context, root, commit string) (bool, error) {
	_, err := git(ctx, root, append([]string{"diff", "--quiet", commit}, service()...)...)
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == 1 {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("compare the service with that of %s: %w", commit, err)
	}
	return false, nil
}

// Version is an earlier version of the service.
type Version struct {
	Dir    string // its source, as it was committed
	source goimage.Source
}

// Name returns what git describe calls the version.
func (v Version) Name() string { return v.source.Version }

// Checkout writes the source of a commit to dir, which must exist and be empty. It leaves
// the repository as it is.
func Checkout(ctx context.Context, root, commit, dir string) (Version, error) {
	described, err := git(ctx, root, "describe", "--tags", "--always", commit)
	if err != nil {
		return Version{}, fmt.Errorf("describe %s: %w", commit, err)
	}
	archive := filepath.Join(dir, "source.tar")
	if _, err := git(ctx, root, "archive", "--output="+archive, commit); err != nil {
		return Version{}, fmt.Errorf("read the source of %s: %w", described, err)
	}
	source := filepath.Join(dir, "source")
	for _, command := range [][]string{{"mkdir", source}, {"tar", "--extract", "--file=" + archive, "--directory=" + source}} {
		if _, err := run(exec.CommandContext(ctx, command[0], command[1:]...)); err != nil {
			return Version{}, fmt.Errorf("write the source of %s: %w", described, err)
		}
	}
	return Version{Dir: source, source: goimage.Source{Version: described}}, nil
}

// WriteImage builds the version's image for this machine, with a name such as
// localhost/image:tag, and writes it to an archive. The command load of the local cluster
// reads it.
func (v Version) WriteImage(ctx context.Context, image, archive string) error {
	return goimage.WriteService(ctx, goimage.ServiceProgram(v.Dir, v.source), v.source, image, archive)
}

// git runs git in the repository and returns what it prints.
func git(ctx context.Context, root string, args ...string) (string, error) {
	return run(exec.CommandContext(ctx, "git", append([]string{"-C", root}, args...)...))
}

// run runs a command and returns its output without the space around it. An error has what
// the command said.
func run(command *exec.Cmd) (string, error) {
	var said bytes.Buffer
	command.Stderr = &said
	out, err := command.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", strings.Join(command.Args, " "), err, strings.TrimSpace(said.String()))
	}
	return strings.TrimSpace(string(out)), nil
}
