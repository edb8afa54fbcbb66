package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/binder-project/binder-deploy-kubernetes/bench/peer"
	"github.com/binder-project/binder-deploy-kubernetes/bench/report"
	"github.com/binder-project/binder-deploy-kubernetes/bench/service"
	"github.com/binder-project/binder-deploy-kubernetes/bench/world"
)

// row is one benchmark. It yields one or more lines of the table.
type row struct {
	name  string
	about string
	// size is how many instances there must be before it runs. Rows run in the order of
	// their sizes, because instances are only added.
	size int
	run  func(ctx context.Context, b *bench) ([]report.Line, error)
}

// bench is what all rows share.
type bench struct {
	root, binary        string
	cluster, kubeconfig string // the local cluster's directory, and the file in it
	dir                 string // for files of this run
	rounds              int
	progress            io.Writer
	leave               bool // the instances, at the end
	began               time.Time
	world               *world.World
	backend             *peer.Peer
	growth              []report.Growth
}

const cleanUpTimeout = 6 * time.Minute

// runAll runs rows and writes what they have found.
func (b *bench) runAll(ctx context.Context, chosen []row, results, picture string) (err error) {
	b.began = time.Now()
	b.binary = cmp.Or(b.binary, filepath.Join(b.root, ".build", "bin", "binder-deploy-kubernetes"))
	b.cluster = cmp.Or(b.cluster, filepath.Join(b.root, ".cluster"))
	b.kubeconfig = world.Kubeconfig(b.cluster)
	if b.dir, err = os.MkdirTemp("", "binder-bench-"); err != nil {
		return fmt.Errorf("make a directory: %w", err)
	}
	defer os.RemoveAll(b.dir)
	if err := b.prepare(ctx); err != nil {
		return err
	}
	defer func() {
		cleaning, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanUpTimeout)
		defer cancel()
		b.backend.Stop()
		if b.leave {
			err = errors.Join(err, b.world.Leave())
			return
		}
		b.say("removing the instances")
		err = errors.Join(err, b.world.Close(cleaning))
	}()
	lines, failed := b.measureAll(ctx, chosen)
	if err := report.WriteText(os.Stdout, lines); err != nil {
		return err
	}
	return errors.Join(failed, b.write(ctx, lines, results, picture))
}

// measureAll runs rows. One that fails does not keep the others from running, but the
// benchmark then fails in the end.
func (b *bench) measureAll(ctx context.Context, chosen []row) (lines []report.Line, failed error) {
	slices.SortStableFunc(chosen, func(a, b row) int { return cmp.Compare(a.size, b.size) })
	for i, r := range chosen {
		b.say("%d of %d: %s", i+1, len(chosen), r.about)
		err := errors.Join(b.grow(ctx, r.size), awaitQuiet(ctx, quietRowTimeout))
		var found []report.Line
		if err == nil {
			found, err = r.run(ctx, b)
		}
		if ctx.Err() != nil {
			return lines, ctx.Err()
		}
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("%s: %w", r.name, err))
			found = append(found, report.Line{Metric: r.about, Failed: err})
		}
		for _, line := range found {
			b.say("   %s", line)
		}
		lines = append(lines, found...)
	}
	return lines, failed
}

// prepare starts the application that instances stand for, and makes a world without
// instances.
func (b *bench) prepare(ctx context.Context) error {
	for _, file := range []string{b.binary, b.kubeconfig} {
		if _, err := os.Stat(file); err != nil {
			return fmt.Errorf("%w (make bench makes it)", err)
		}
	}
	var err error
	b.backend, err = peer.StartBackend(ctx)
	if err != nil {
		return err
	}
	_, port, err := net.SplitHostPort(b.backend.Address)
	if err != nil {
		return fmt.Errorf("read the backend's port: %w", err)
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		return fmt.Errorf("read the backend's port: %w", err)
	}
	b.say("making the namespaces %s and %s", world.ServiceNamespace, world.Namespace)
	b.world, err = world.New(ctx, b.cluster, number, b.progress)
	if err != nil {
		b.backend.Stop()
	}
	return err
}

// grow adds instances until there are size: the service launches the first ones, and the
// others are copies.
func (b *bench) grow(ctx context.Context, size int) error {
	if err := b.launch(ctx, min(size, world.Launched)); err != nil {
		return err
	}
	if size > len(b.world.IDs()) {
		b.say("copying an instance until there are %d", size)
	}
	return b.world.Copy(ctx, size)
}

// launch launches instances until there are size.
func (b *bench) launch(ctx context.Context, size int) error {
	if size <= len(b.world.IDs()) {
		return nil
	}
	s, err := b.start(ctx)
	if err != nil {
		return err
	}
	defer s.Stop()
	b.say("launching instances until there are %d", size)
	return b.world.Grow(ctx, size, s.Launch)
}

// start starts a replica of the service. The caller stops it.
func (b *bench) start(ctx context.Context, flags ...string) (*service.Service, error) {
	return service.Start(ctx, service.Options{Binary: b.binary, Kubeconfig: b.kubeconfig, Dir: b.dir, Flags: flags})
}

// say prints a line of progress.
func (b *bench) say(format string, args ...any) {
	elapsed := time.Since(b.began).Round(time.Second)
	fmt.Fprintf(b.progress, "== [%d:%02d] %s\n", int(elapsed.Minutes()), int(elapsed.Seconds())%60, fmt.Sprintf(format, args...))
}
