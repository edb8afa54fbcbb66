//go:build e2e

// Package e2e tests the service on a running local cluster, from the point of view
// of binder-client, a browser, Prometheus and an operator. To run the tests:
//
//	go -C cluster run . up
//	hack/images.sh
//	hack/traefik.sh
//	go -C e2e test -tags e2e ./...
package e2e

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/binder-project/binder-deploy-kubernetes/e2e/harness"
)

// suite is the service under test. Only TestMain sets it, before the first test.
var suite *harness.Suite

func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == helmName { // as TestChartInstalls calls this program
		if err := runHelm(); err != nil {
			os.Exit(1) // Helm has said why
		}
		return
	}
	flag.Parse()
	if flag.Lookup("test.list").Value.String() != "" {
		os.Exit(m.Run()) // only prints the tests' names
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code, err := run(ctx, m)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		code = 1
	}
	os.Exit(code)
}

// run deploys the service, runs the tests, and removes the service.
func run(ctx context.Context, m *testing.M) (code int, err error) {
	root, err := filepath.Abs("..")
	if err != nil {
		return 1, err
	}
	kubeconfig := cmp.Or(os.Getenv("BINDER_E2E_KUBECONFIG"), filepath.Join(root, ".cluster", "kubeconfig"))
	kube, err := harness.Connect(kubeconfig)
	if err != nil {
		return 1, fmt.Errorf("cannot connect to a cluster (start one with make cluster-up, or set BINDER_E2E_KUBECONFIG): %w", err)
	}
	if err := raiseParallelism(); err != nil {
		return 1, err
	}
	suite, err = harness.Start(ctx, kube, root, os.Stderr, harness.Options{})
	if err == nil {
		code = m.Run()
	}
	if err != nil || code != 0 {
		suite.PrintLogs(context.WithoutCancel(ctx))
	}
	return code, errors.Join(err, suite.Stop(context.WithoutCancel(ctx), code == 0 && everyTestRan()))
}

// raiseParallelism lets more tests run in parallel than there are processors,
// because tests mostly wait for the cluster. A -parallel flag takes precedence.
func raiseParallelism() error {
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "test.parallel" })
	if given {
		return nil
	}
	return flag.Set("test.parallel", "4")
}

// everyTestRan reports whether no flag left out a test. hack/test.sh sets the
// variable, because it names every test in -run.
func everyTestRan() bool {
	return os.Getenv("BINDER_E2E_ALL") == "1" ||
		flag.Lookup("test.run").Value.String() == "" && flag.Lookup("test.skip").Value.String() == ""
}
