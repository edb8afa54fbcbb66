package main

import (
	"context"
	"errors"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
)

// statusTimeout bounds the readiness check of one part.
const statusTimeout = 5 * time.Second

func statusCommand(c *cluster) *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show the state of each part; fail unless all are ready",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			table := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			fmt.Fprintln(table, "PART\tSTATE\tPID\tSINCE")
			allReady := true
			for _, p := range c.parts() {
				state, running := c.partState(cmd.Context(), p)
				pid, since := "", ""
				if running.alive() {
					pid, since = fmt.Sprint(running.PID), running.Started.Format(time.DateTime)
				}
				allReady = allReady && state == "ready"
				fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", p.name, state, pid, since)
			}
			if err := table.Flush(); err != nil {
				return err
			}
			if !allReady {
				return errors.New("not all parts are ready: run up to start the missing ones")
			}
			return nil
		},
	}
}

// partState describes the state of a part in a few words.
func (c *cluster) partState(ctx context.Context, p part) (string, record) {
	running, err := readRecord(c.record(p.name))
	switch {
	case err != nil:
		return err.Error(), running
	case running.PID == 0:
		return "stopped", running
	case !running.alive():
		return "exited (see logs " + p.name + ")", running
	}
	limited, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	if err := p.ready(limited); err != nil {
		return "not ready: " + err.Error(), running
	}
	return "ready", running
}
