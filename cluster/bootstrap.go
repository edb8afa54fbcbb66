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

// debianKeyring holds the keys of Debian's archive. It exists on Debian only.
const debianKeyring = "/usr/share/keyrings/debian-archive-keyring.gpg"

// bootstrap installs Debian packages into a new root file system and writes it
// to target as an archive. The recipe is a list of mmdebstrap options. The
// packages come from this machine's apt sources. Temporary files go to tmp.
func bootstrap(ctx context.Context, suite string, recipe []string, target, tmp string) error {
	args := append(slices.Clone(recipe), aptOptions(ctx)...)
	if isFile(debianKeyring) {
		args = append(args, "--keyring="+debianKeyring)
	}
	args = append(args, "--mode=root", suite, target)
	cmd := exec.CommandContext(ctx, "mmdebstrap", append(args, aptSources(ctx, suite)...)...)
	// SOURCE_DATE_EPOCH would change the modification times of Python sources
	// and so make their compiled files stale.
	cmd.Env = slices.DeleteFunc(os.Environ(), func(variable string) bool {
		return strings.HasPrefix(variable, "SOURCE_DATE_EPOCH=")
	})
	cmd.Env = append(cmd.Env, "TMPDIR="+tmp)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Setpgid: true, // mmdebstrap signals its whole group when it fails
		// When mmdebstrap ends, its child processes and mounts go too.
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

// aptOptions returns this machine's apt settings for reaching its mirrors, such
// as a proxy. They are not stored in the image.
func aptOptions(ctx context.Context) []string {
	out, err := exec.CommandContext(ctx, "apt-config", "dump", "Acquire::http", "Acquire::https", "Acquire::ftp",
		"Acquire::Retries", "Acquire::Check-Valid-Until", "Acquire::Check-Date").Output()
	if err != nil {
		return nil // apt is not installed
	}
	var options []string
	for line := range strings.Lines(string(out)) {
		if line = strings.TrimSpace(line); !strings.HasSuffix(line, ` "";`) {
			options = append(options, "--aptopt="+line)
		}
	}
	return options
}

// aptSources returns this machine's apt sources for the suite. It returns nil,
// for mmdebstrap's default sources, if the machine runs another release.
func aptSources(ctx context.Context, suite string) []string {
	out, err := exec.CommandContext(ctx, "apt-get", "indextargets",
		"--format", "$(ORIGIN) $(REPO_URI) $(RELEASE) $(COMPONENT)", "Created-By: Packages").Output()
	if err != nil {
		return nil
	}
	return parseSources(string(out), suite)
}

// parseSources parses the output of apt-get indextargets.
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
