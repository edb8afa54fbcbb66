package main

import (
	"context"
	"errors"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
)

// statusPatience bounds how long one part may take to say that it is ready.
const statusPatience = 5 * time.Second

func statusCommand(c *cluster) *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Tell what of the cluster runs; fails unless all of it does",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			table := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			fmt.Fprintln(table, "PART\tSTATE\tPID\tSINCE")
			well := true
			for _, p := range c.parts() {
				state, running := c.partState(cmd.Context(), p)
				pid, since := "", ""
				if running.alive() {
					pid, since = fmt.Sprint(running.PID), running.Started.Format(time.DateTime)
				}
				well = well && state == "ready"
				fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", p.name, state, pid, since)
			}
			if err := table.Flush(); err != nil {
				return err
			}
			if !well {
				return errors.New("the cluster is not running, or not all of it: up starts what is missing")
			}
			return nil
		},
	}
}

// partState says in a word or a few how a part is.
func (c *cluster) partState(ctx context.Context, p part) (string, record) {
	running, err := readRecord(c.record(p.name))
	switch {
	case err != nil:
		return err.Error(), running
	case running.PID == 0:
		return "stopped", running
	case !running.alive():
		return "ended by itself (logs " + p.name + ")", running
	}
	limited, cancel := context.WithTimeout(ctx, statusPatience)
	defer cancel()
	if err := p.ready(limited); err != nil {
		return "not ready: " + err.Error(), running
	}
	return "ready", running
}
