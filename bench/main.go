// Command bench measures how fast the service is, beside what its users would otherwise
// take, and writes one table. Every row starts what it needs, and measures ours and its
// peers in turn, in several rounds: figures of different runs or machines say nothing about
// each other.
//
//	make bench             all rows
//	make bench RUN=proxy   the rows whose names match
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"

	"github.com/binder-project/binder-deploy-kubernetes/bench/peer"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) > 0 && args[0] == "peer" {
		return peer.Run(ctx, args[1:])
	}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	root := flags.String("root", "..", "the project's root `directory`")
	binary := flags.String("binary", "", "the service's `binary` (default: .build/bin/binder-deploy-kubernetes below the root)")
	cluster := flags.String("cluster", "", "the `directory` of the local cluster, which runs; no other cluster can be used, because instances are written into its etcd (default: .cluster below the root)")
	pattern := flags.String("run", "", "run only the rows whose names match this regular `expression`; --list prints the names")
	list := flags.Bool("list", false, "print the names of the rows and end")
	rounds := flags.Int("rounds", 3, "`number` of rounds of each comparison, at least 3")
	leave := flags.Bool("leave", false, "leave the instances in the cluster, because it is stopped next")
	results := flags.String("results", "", "`file` for the table, in Markdown (default: none)")
	picture := flags.String("picture", "", "`file` for the picture of how cost grows, in SVG (default: none)")
	if err := flags.Parse(args); err != nil {
		return err
	}
	chosen, err := choose(*pattern)
	if err != nil {
		return err
	}
	if *list {
		for _, row := range chosen {
			fmt.Printf("%-12s %s\n", row.name, row.about)
		}
		return nil
	}
	if *rounds < 3 {
		return fmt.Errorf("--rounds=%d: it must be at least 3, because one or two figures may be an accident", *rounds)
	}
	absolute, err := filepath.Abs(*root)
	if err != nil {
		return fmt.Errorf("--root: %w", err)
	}
	b := &bench{root: absolute, rounds: *rounds, binary: *binary, cluster: *cluster, leave: *leave, progress: os.Stderr}
	return b.runAll(ctx, chosen, *results, *picture)
}

// choose returns the rows whose names match a pattern, in the table's order.
func choose(pattern string) ([]row, error) {
	expression, err := regexp.Compile(pattern)
	if err != nil {
		return nil, fmt.Errorf("--run: %w", err)
	}
	var chosen []row
	var names []string
	for _, r := range rows() {
		names = append(names, r.name)
		if expression.MatchString(r.name) {
			chosen = append(chosen, r)
		}
	}
	if len(chosen) == 0 {
		return nil, fmt.Errorf("--run=%s: no row has such a name; there are %s", pattern, strings.Join(names, ", "))
	}
	return chosen, nil
}
