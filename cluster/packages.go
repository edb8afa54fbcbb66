package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// debianPackage names a package and a program that it installs.
type debianPackage struct{ name, program string }

// nodePackages returns the packages that the node needs.
func nodePackages() []debianPackage {
	return []debianPackage{{"runc", "runc"}, {"nftables", "nft"}, {"mount", "mount"}}
}

// ensurePackages installs missing packages with apt-get. Without apt-get, its
// error names the packages to install.
func (c *cluster) ensurePackages(ctx context.Context, packages []debianPackage) error {
	missing := missingPackages(packages, func(program string) bool {
		_, err := exec.LookPath(program)
		return err == nil
	})
	if len(missing) == 0 {
		return nil
	}
	names := strings.Join(missing, " ")
	if _, err := exec.LookPath("apt-get"); err != nil {
		return fmt.Errorf("install these packages with your distribution's package manager: %s", names)
	}
	return c.progress.step("installing Debian packages: "+names, func() error {
		err := aptGet(ctx, append([]string{"install"}, missing...)...)
		if err == nil {
			return nil
		}
		// The package lists may be missing or out of date.
		if err := aptGet(ctx, "update"); err != nil {
			return err
		}
		return aptGet(ctx, append([]string{"install"}, missing...)...)
	})
}

// missingPackages returns the names of the packages that are not installed.
func missingPackages(packages []debianPackage, installed func(program string) bool) []string {
	var missing []string
	for _, p := range packages {
		if !installed(p.program) {
			missing = append(missing, p.name)
		}
	}
	return missing
}

func aptGet(ctx context.Context, args ...string) error {
	cmd := exec.CommandContext(ctx, "apt-get", append([]string{"--quiet", "--yes", "--no-install-recommends"}, args...)...)
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
	out, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		return errors.New("interrupted")
	}
	if err != nil {
		return fmt.Errorf("apt-get %s: %w\n%s", strings.Join(args, " "), err, tail(string(out), 10))
	}
	return nil
}
