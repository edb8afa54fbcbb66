package main

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
)

// appsDir is where the image apps has the applications of e2e/apps.
const appsDir = "/srv/apps"

// appsImage returns the image with the applications that the end-to-end tests open:
// nginx, Shiny and Node.js from Debian, and what e2e/apps adds to them.
func (c *cluster) appsImage() debianImage {
	source := filepath.Join(c.root, "e2e", "apps")
	return debianImage{
		recipe: debianRecipe("nodejs,nginx-light,r-cran-shiny",
			// The new root is a directory in the work directory.
			`--customize-hook=mv "$1/../apps" "$1`+appsDir+`"`,
			`--customize-hook=chown --recursive root: "$1`+appsDir+`"`,
			// code-server's own way to install these packages compiles programs.
			`--customize-hook=ln -s ../../.. "$1`+appsDir+`/node_modules/code-server/lib/vscode/node_modules"`,
		),
		config: debianConfig(appsDir, "node"),
		source: source,
		prepare: func(ctx context.Context, work string) error {
			return c.installApps(ctx, source, filepath.Join(work, "apps"))
		},
	}
}

// installApps copies the applications to target and installs the npm packages that
// they need there.
func (c *cluster) installApps(ctx context.Context, source, target string) error {
	if err := c.ensurePackages(ctx, []debianPackage{{"nodejs", "node"}, {"npm", "npm"}}); err != nil {
		return err
	}
	files, err := readFiles(source)
	if err != nil {
		return err
	}
	for name, data := range files {
		if err := writeFile(filepath.Join(target, name), data, 0o644); err != nil {
			return err
		}
	}
	// Without scripts, because some would download or compile programs.
	cmd := exec.CommandContext(ctx, "npm", "ci", "--omit=dev", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")
	cmd.Dir = target
	out, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("install npm packages: %w\n%s", err, tail(string(out), 20))
	}
	return nil
}
