package main

import (
	"fmt"
	"os/exec"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
)

func logsCommand(c *cluster) *cobra.Command {
	var lines int
	var follow bool
	command := &cobra.Command{
		Use:     "logs <part>",
		Short:   "Print the end of a part's log",
		Example: `  go -C cluster run . logs kubelet --follow`,
		Args: func(_ *cobra.Command, args []string) error {
			names := c.partNames()
			if len(args) != 1 || !slices.Contains(names, args[0]) {
				return fmt.Errorf("name one part: %s", strings.Join(names, ", "))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			path := c.log(args[0])
			if !isFile(path) {
				return fmt.Errorf("%s has no log: run up to start the cluster", args[0])
			}
			tailArgs := []string{"--lines=" + strconv.Itoa(lines)}
			if follow {
				tailArgs = append(tailArgs, "--follow=name", "--retry")
			}
			tail := exec.CommandContext(cmd.Context(), "tail", append(tailArgs, "--", path)...)
			tail.Stdout, tail.Stderr = cmd.OutOrStdout(), cmd.ErrOrStderr()
			if err := tail.Run(); err != nil && cmd.Context().Err() == nil {
				return fmt.Errorf("print the log: %w", err)
			}
			return nil
		},
	}
	command.Flags().IntVarP(&lines, "lines", "n", 100, "number of lines to print")
	command.Flags().BoolVarP(&follow, "follow", "f", false, "keep printing new lines until interrupted")
	return command
}

func (c *cluster) partNames() []string {
	var names []string
	for _, p := range c.parts() {
		names = append(names, p.name)
	}
	return names
}
