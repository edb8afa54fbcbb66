package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
)

// debianKeyring has the keys of Debian's own archive, on Debian itself.
const debianKeyring = "/usr/share/keyrings/debian-archive-keyring.gpg"

// bootstrap makes the archive of a root file system of Debian packages, as a
// recipe of mmdebstrap's options tells. The packages come from where this
// machine's own do. What it needs meanwhile is in tmp.
func bootstrap(ctx context.Context, suite string, recipe []string, target, tmp string) error {
	args := append(slices.Clone(recipe), aptOptions(ctx)...)
	if isFile(debianKeyring) {
		args = append(args, "--keyring="+debianKeyring)
	}
	args = append(args, "--mode=root", suite, target)
	cmd := exec.CommandContext(ctx, "mmdebstrap", append(args, aptSources(ctx, suite)...)...)
	// SOURCE_DATE_EPOCH would change the times of Python's sources, and what is
	// compiled of them would be out of date.
	cmd.Env = slices.DeleteFunc(os.Environ(), func(variable string) bool {
		return strings.HasPrefix(variable, "SOURCE_DATE_EPOCH=")
	})
	cmd.Env = append(cmd.Env, "TMPDIR="+tmp)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Setpgid: true, // mmdebstrap signals its whole group when it fails
		// With mmdebstrap all that it started ends, and all that it mounted.
		Cloneflags:   syscall.CLONE_NEWPID,
		Unshareflags: syscall.CLONE_NEWNS,
	}
	out, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("install Debian packages: %w\n%s", err, tail(string(out), 20))
	}
	return nil
}

// aptOptions are this machine's settings of apt for reaching its mirrors, such
// as a proxy. They do not become part of the image.
func aptOptions(ctx context.Context) []string {
	out, err := exec.CommandContext(ctx, "apt-config", "dump", "Acquire::http", "Acquire::https", "Acquire::ftp",
		"Acquire::Retries", "Acquire::Check-Valid-Until", "Acquire::Check-Date").Output()
	if err != nil {
		return nil // no apt here, and so no settings of it
	}
	var options []string
	for line := range strings.Lines(string(out)) {
		if line = strings.TrimSpace(line); !strings.HasSuffix(line, ` "";`) {
			options = append(options, "--aptopt="+line)
		}
	}
	return options
}

// aptSources are those of this machine's sources that have the suite; none, for
// mmdebstrap's own, if it is of another release.
func aptSources(ctx context.Context, suite string) []string {
	out, err := exec.CommandContext(ctx, "apt-get", "indextargets",
		"--format", "$(ORIGIN) $(REPO_URI) $(RELEASE) $(COMPONENT)", "Created-By: Packages").Output()
	if err != nil {
		return nil
	}
	return parseSources(string(out), suite)
}

// parseSources reads what apt-get indextargets prints.
func parseSources(targets, suite string) []string {
	var sources []string
	complete := false
	for line := range strings.Lines(targets) {
		fields := strings.Fields(line)
		if len(fields) != 4 || fields[0] != "Debian" || fields[3] != "main" || !strings.HasPrefix(fields[1], "http") {
			continue
		}
		uri, release := fields[1], fields[2]
		switch release {
		case suite:
			complete = true
		case suite + "-security", suite + "-updates":
		default:
			continue
		}
		if source := fmt.Sprintf("deb %s %s main", uri, release); !slices.Contains(sources, source) {
			sources = append(sources, source)
		}
	}
	if !complete {
		return nil
	}
	return sources
}
