package goimage

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// ServiceName is the name of the service, its binary and its image.
const ServiceName = "binder-deploy-kubernetes"

// Source says which source the service is built from.
type Source struct {
	Version  string    // such as v1.2.3, or "dev" outside of a git repository
	Revision string    // the commit's hash
	Created  time.Time // the commit's time, in UTC, or what SOURCE_DATE_EPOCH says
}

// Describe returns the source in the repository at root. The version is that of git
// describe, as in the Makefile: a tag, or what has changed since one.
func Describe(ctx context.Context, root string) (Source, error) {
	version, err := git(ctx, root, "describe", "--tags", "--always", "--dirty")
	if err != nil || version == "" {
		return Source{Version: "dev"}, nil
	}
	commit, err := git(ctx, root, "log", "-1", "--format=%H %ct")
	if err != nil {
		return Source{}, fmt.Errorf("read the commit: %w", err)
	}
	revision, seconds, _ := strings.Cut(commit, " ")
	// https://reproducible-builds.org/docs/source-date-epoch/
	if epoch := os.Getenv("SOURCE_DATE_EPOCH"); epoch != "" {
		seconds = epoch
	}
	unix, err := strconv.ParseInt(seconds, 10, 64)
	if err != nil {
		return Source{}, fmt.Errorf("SOURCE_DATE_EPOCH must be a number of seconds since 1970, not %q", seconds)
	}
	return Source{Version: version, Revision: revision, Created: time.Unix(unix, 0).UTC()}, nil
}

func git(ctx context.Context, root string, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, "git", append([]string{"-C", root}, args...)...).Output()
	return strings.TrimSpace(string(out)), err
}

// ServiceProgram returns the service in the repository at root.
func ServiceProgram(root string, source Source) Program {
	return Program{Dir: root, Package: ".", Name: ServiceName, Variables: []string{"main.version=" + source.Version}}
}

// ServiceSpec says what the service's image is made of. The Dockerfile makes the same
// image, apart from the certificates, and a test compares them.
func ServiceSpec(platform v1.Platform, binary string, source Source) Spec {
	return Spec{
		Platform: platform,
		Name:     ServiceName,
		Binary:   binary,
		// For a template registry with an https URL.
		Files: map[string][]byte{CertificatesPath: Certificates()},
		// API, proxy, and metrics with the health probes.
		Ports:   []string{"8084/tcp", "8000/tcp", "9090/tcp"},
		Labels:  Labels(source),
		Created: source.Created,
	}
}

// WriteService builds the service's image for this machine, of a program that is the service,
// with a name such as localhost/image:tag, and writes it to an archive. The command load of the
// local cluster reads it.
func WriteService(ctx context.Context, program Program, source Source, image, archive string) error {
	tag, err := name.NewTag(image)
	if err != nil {
		return fmt.Errorf("parse the image's name: %w", err)
	}
	platform := v1.Platform{OS: "linux", Architecture: runtime.GOARCH}
	binary := archive + ".binary"
	if err := program.Compile(ctx, platform, binary); err != nil {
		return err
	}
	built, err := New(ServiceSpec(platform, binary, source))
	if err != nil {
		return err
	}
	if err := tarball.WriteToFile(archive, tag, built); err != nil {
		return fmt.Errorf("write the image %s: %w", image, err)
	}
	return nil
}

// Labels returns the labels of the service's image, which are also annotations:
// https://specs.opencontainers.org/image-spec/annotations/
func Labels(source Source) map[string]string {
	const prefix = "org.opencontainers.image."
	const home = "https://github.com/binder-project/" + ServiceName
	labels := map[string]string{
		prefix + "title":         ServiceName,
		prefix + "description":   "Binder's deploy service for Kubernetes",
		prefix + "source":        home,
		prefix + "documentation": home + "/blob/main/README.md",
		prefix + "licenses":      "Apache-2.0",
		prefix + "version":       source.Version,
	}
	if source.Revision != "" {
		labels[prefix+"revision"] = source.Revision
		labels[prefix+"created"] = source.Created.Format(time.RFC3339)
	}
	return labels
}
