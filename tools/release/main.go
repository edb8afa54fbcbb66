// Command release builds and checks a release: the binaries, the image, the bills of
// materials and the manifests. CONTRIBUTING.md says how a release is made.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/binder-project/binder-deploy-kubernetes/tools/goimage"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := newCommand().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "release:", err)
		os.Exit(1)
	}
}

// release is what all commands need to know.
type release struct {
	root    string // the repository
	output  string // directory of the release's files
	version string // "" is that of git describe
	image   string // repository of the image, without a tag
	began   time.Time
}

func newCommand() *cobra.Command {
	r := &release{began: time.Now()}
	root := &cobra.Command{
		Use:   "release",
		Short: "Build, check and push a release",
		// main prints errors, and usage would hide them.
		SilenceErrors: true, SilenceUsage: true,
		PersistentPreRunE: func(*cobra.Command, []string) error { return r.resolve() },
	}
	flags := root.PersistentFlags()
	flags.StringVar(&r.root, "root", "..", "the repository's `directory`")
	flags.StringVar(&r.output, "output", "", "`directory` of the release's files (default <root>/.build/release)")
	flags.StringVar(&r.version, "version", "", "`version` of the release (default that of git describe)")
	flags.StringVar(&r.image, "image", "registry.example.com/"+goimage.ServiceName, "`repository` of the image, without a tag")
	root.AddCommand(
		&cobra.Command{
			Use: "build", Short: "Build the release's files", Args: cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error { return r.build(cmd.Context()) },
		},
		&cobra.Command{
			Use: "check", Short: "Build the release twice and check it", Args: cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error { return r.check(cmd.Context()) },
		},
		&cobra.Command{
			Use: "push", Short: "Push the image that was built to its repository", Args: cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error { return r.push(cmd.Context()) },
		},
		&cobra.Command{
			Use: "notes", Short: "Print the changelog's section of the version", Args: cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error { return r.notes(cmd.Context(), cmd.OutOrStdout()) },
		},
	)
	return root
}

// resolve makes the paths absolute and checks the flags.
func (r *release) resolve() (err error) {
	if r.root, err = filepath.Abs(r.root); err != nil {
		return fmt.Errorf("find the repository: %w", err)
	}
	if r.output == "" {
		r.output = filepath.Join(r.root, ".build", "release")
	}
	if r.output, err = filepath.Abs(r.output); err != nil {
		return fmt.Errorf("find the output directory: %w", err)
	}
	if strings.ContainsAny(r.version, "/ :@") {
		return fmt.Errorf("--version is %q: it must be a tag such as v1.2.3", r.version)
	}
	if r.image == "" || strings.ContainsAny(r.image, "@ ") || strings.Contains(filepath.Base(r.image), ":") {
		return errors.New("--image must name a repository without a tag, such as registry.example.com/" + goimage.ServiceName)
	}
	return nil
}

// source describes the repository, with the version that the user gave, if any.
func (r *release) source(ctx context.Context) (goimage.Source, error) {
	source, err := goimage.Describe(ctx, r.root)
	if err != nil {
		return source, err
	}
	if source.Revision == "" {
		return source, fmt.Errorf("%s is not a git repository with a commit, from which a release has its version and time", r.root)
	}
	if r.version != "" {
		source.Version = r.version
	}
	return source, nil
}

// say prints a line of progress with the time since the start.
func (r *release) say(format string, args ...any) {
	elapsed := int(time.Since(r.began).Seconds())
	fmt.Fprintf(os.Stderr, "== [%d:%02d] %s\n", elapsed/60, elapsed%60, fmt.Sprintf(format, args...))
}
