package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// debianPackage is a package of the distribution, and a program that is there
// when it is installed.
type debianPackage struct{ name, program string }

// nodePackages are what the node needs of the machine.
func nodePackages() []debianPackage {
	return []debianPackage{{"runc", "runc"}, {"nftables", "nft"}, {"mount", "mount"}}
}

// ensurePackages installs what is missing, where that is possible, and else
// says what to install.
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
		return fmt.Errorf("please install, by the means of your distribution: %s", names)
	}
	return c.progress.during("installing Debian packages: "+names, func() error {
		err := aptGet(ctx, append([]string{"install"}, missing...)...)
		if err == nil {
			return nil
		}
		// The package lists may be missing, or older than what the mirror has.
		if err := aptGet(ctx, "update"); err != nil {
			return err
		}
		return aptGet(ctx, append([]string{"install"}, missing...)...)
	})
}

// missingPackages returns the names of those whose program is not there.
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
