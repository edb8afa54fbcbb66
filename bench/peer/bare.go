package peer

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/binder-project/binder-deploy-kubernetes/bench/process"
	"github.com/binder-project/binder-deploy-kubernetes/bench/world"
)

// StartBare starts a handler of net/http that writes the same bytes and header fields as an
// address answers with, from memory.
func StartBare(ctx context.Context, url string) (*Peer, error) {
	listen, err := process.FreeAddress()
	if err != nil {
		return nil, err
	}
	answer, err := record(ctx, url)
	if err != nil {
		return nil, err
	}
	answer.Listen = listen
	argument, err := json.Marshal(answer)
	if err != nil {
		return nil, fmt.Errorf("encode the answer to repeat: %w", err)
	}
	return startSelf(ctx, "bare", string(argument), listen)
}

func runBare(argument string) error {
	var answer recorded
	if err := json.Unmarshal([]byte(argument), &answer); err != nil {
		return fmt.Errorf("read the answer to repeat: %w", err)
	}
	body := []byte(answer.Body)
	return http.ListenAndServe(answer.Listen, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		header := w.Header()
		for name, values := range answer.Header {
			header[name] = values
		}
		_, _ = w.Write(body) // the client is the benchmark's own
	}))
}

// StartReverseProxy starts the standard library's ReverseProxy, with as many idle
// connections to the backend as the load has.
func StartReverseProxy(ctx context.Context, backend string) (*Peer, error) {
	return startForwarder(ctx, "reverse-proxy", backend)
}

func runReverseProxy(argument string) error {
	listen, backend, err := forwarderAddresses(argument)
	if err != nil {
		return err
	}
	transport := &http.Transport{MaxIdleConns: 0, MaxIdleConnsPerHost: 64, DisableCompression: true}
	target := &url.URL{Scheme: "http", Host: backend}
	return http.ListenAndServe(listen, &httputil.ReverseProxy{
		Transport: transport,
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.SetXForwarded()
		},
	})
}

// List runs a process that lists all pods of the instances once, with a bare client.
func List(ctx context.Context, kubeconfig string) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find the benchmark's own binary: %w", err)
	}
	_, err = process.Output(ctx, self, "peer", "list", kubeconfig)
	return err
}

func runList(ctx context.Context, kubeconfig string) error {
	client, _, err := world.Connect(kubeconfig)
	if err != nil {
		return err
	}
	pods, err := client.CoreV1().Pods(world.Namespace).List(ctx, metav1.ListOptions{ResourceVersion: "0"})
	if err != nil {
		return fmt.Errorf("list the pods: %w", err)
	}
	_, err = fmt.Fprintln(io.Discard, len(pods.Items))
	return err
}
