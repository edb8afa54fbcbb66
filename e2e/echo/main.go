// Command echo is the application that the end-to-end tests launch. It answers a
// request with a JSON description of the request, unless the last path segment is
// one of these:
//
//	ws[?ping=<interval>]                   echoes WebSocket messages, and pings
//	stream[?chunks=<n>][&every=<interval>] sends lines, each as soon as it is written
//	download[?bytes=<n>]                   sends zeros
//	upload                                 reads the body and reports its size
//	redirect?to=<address>                  redirects
//	status?code=<code>                     answers with the code
//	dial?to=<network>://<address>&to=…     reports which addresses it can reach
//	fill[?bytes=<n>]                       writes a temporary file of zeros
//	eat[?bytes=<n>]                        takes memory and keeps it
//	exit[?code=<n>]                        makes the process exit
//	binder.Echo/<Join or Count>            a remote procedure: gRPC-Web or Connect
//
// It listens on port 8888. If START_DELAY is set, it waits that long first. With the
// argument raw it is package rawapp's application instead.
package main

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/binder-project/binder-deploy-kubernetes/e2e/rawapp"
)

const (
	address  = ":8888"
	delayEnv = "START_DELAY"
	rawArg   = "raw"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	delay, err := time.ParseDuration(cmp.Or(os.Getenv(delayEnv), "0s"))
	if err != nil || delay < 0 {
		fmt.Fprintf(os.Stderr, "echo: %s=%q is not a duration\n", delayEnv, os.Getenv(delayEnv))
		os.Exit(2)
	}
	code, err := run(ctx, delay, os.Args[1:], func() (net.Listener, error) { return net.Listen("tcp", address) })
	if err != nil {
		fmt.Fprintln(os.Stderr, "echo:", err)
	}
	os.Exit(code)
}

// run serves after the delay, until ctx is done or a request asks to exit. It
// returns the process's exit code. It does not wait for running requests.
func run(ctx context.Context, delay time.Duration, args []string, listen func() (net.Listener, error)) (int, error) {
	raw := len(args) == 1 && args[0] == rawArg
	if len(args) > 0 && !raw {
		return 2, fmt.Errorf("the arguments are %q: only %s is known", args, rawArg)
	}
	if delay > 0 {
		fmt.Println("waiting for", delay)
	}
	select {
	case <-ctx.Done():
		return 0, nil
	case <-time.After(delay):
	}
	listener, err := listen()
	if err != nil {
		return 1, err
	}
	if raw {
		if err := rawapp.New().Serve(ctx, listener); err != nil {
			return 1, err
		}
		return 0, nil
	}
	exit := make(chan int, 1)
	server := &http.Server{Handler: newApp(os.Environ(), exit), ReadHeaderTimeout: 10 * time.Second}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	defer server.Close()
	select {
	case <-ctx.Done():
		return 0, nil
	case code := <-exit:
		return code, nil
	case err := <-served:
		return 1, err
	}
}
