package main

import (
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
)

// cluster is what the commands work on: the locations of its files and the
// progress output.
type cluster struct {
	layout
	progress *progress
}

// dirEnv is the environment variable that sets the default of --dir.
const dirEnv = "BINDER_CLUSTER_DIR"

// newCommand returns the root command with its subcommands.
func newCommand() *cobra.Command {
	c := &cluster{}
	var dir string
	root := &cobra.Command{
		Use:   "cluster",
		Short: "A real one-node Kubernetes cluster as processes of this machine",
		Long: `A real one-node Kubernetes cluster as processes of this machine, for the demo,
the tests and the benchmarks. It needs Linux, root and Go. It installs missing
packages with Debian's apt. The first "up" builds Kubernetes, which takes about
ten minutes on two cores. Later runs take about ten seconds.`,
		SilenceUsage:  true,
		SilenceErrors: true,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			l, err := findLayout(dir)
			if err != nil {
				return err
			}
			*c = cluster{layout: l, progress: newProgress(cmd.ErrOrStderr())}
			return nil
		},
	}
	root.PersistentFlags().StringVar(&dir, "dir", os.Getenv(dirEnv),
		"directory of the cluster's files (env "+dirEnv+"; default .cluster in the repository's root)")
	root.AddCommand(upCommand(c), downCommand(c), statusCommand(c), loadCommand(c),
		logsCommand(c), imageCommand(c), kubeconfigCommand(c), loadBalancerCommand(c), networkPolicyCommand(c))
	return root
}

func kubeconfigCommand(c *cluster) *cobra.Command {
	return &cobra.Command{
		Use:     "kubeconfig",
		Short:   "Print the path of the administrator's kubeconfig",
		Example: `  export KUBECONFIG=$(go -C cluster run . kubeconfig)`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if _, err := os.Stat(c.kubeconfig()); err != nil {
				return fmt.Errorf("no cluster in %s: run up to start one", c.dir)
			}
			return printLine(cmd.OutOrStdout(), "%s", c.kubeconfig())
		},
	}
}

// printLine writes one line of a command's result.
func printLine(w io.Writer, format string, args ...any) error {
	_, err := fmt.Fprintf(w, format+"\n", args...)
	return err
}
