package goimage

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Program is a Go program.
type Program struct {
	Dir       string   // directory of its go.mod
	Package   string   // package to build, relative to Dir
	Name      string   // file name of the binary
	Variables []string // variables for the linker to set, name=value
	Overlay   string   // for go build -overlay, other files in place of some of the source's; none if empty
}

// BuildFlags are the flags of go build that every binary is built with. A binary does not
// depend on the source's directory, and the same source in another commit gives the same
// binary: the version comes from Program.Variables.
func BuildFlags() []string { return []string{"-trimpath", "-buildvcs=false"} }

// LinkerFlags omit the symbol tables, which halves the binary.
func LinkerFlags() []string { return []string{"-s", "-w"} }

// Compile builds the program's static binary for a platform and writes it to output. The
// binary depends on the source, the platform and the version of Go only, and not on the
// settings of this machine. An error has the compiler's output.
func (p Program) Compile(ctx context.Context, platform v1.Platform, output string) error {
	linker := LinkerFlags()
	for _, variable := range p.Variables {
		linker = append(linker, "-X", variable)
	}
	cmd := exec.CommandContext(ctx, "go", "-C", p.Dir, "build", "-o", output, "-overlay", p.Overlay, "-ldflags", strings.Join(linker, " "), p.Package)
	cmd.Env = append(os.Environ(),
		"CGO_ENABLED=0", "GOWORK=off", "GOOS="+platform.OS, "GOARCH="+platform.Architecture,
		"GOAMD64=v1", "GOARM64=v8.0", "GOFIPS140=off",
		// In the environment, so that flags that the user has set there do not count.
		"GOFLAGS="+strings.Join(BuildFlags(), " "))
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s for %s: %w\n%s", p.Name, platform, err, strings.TrimSpace(string(out)))
	}
	return nil
}
