// Package peer has what the service is compared with. Some of the peers are part of the
// benchmark's own binary, which runs itself for each, so that every one is a process of
// its own as the service is.
package peer

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/binder-project/binder-deploy-kubernetes/bench/process"
)

// Peer is a running peer.
type Peer struct {
	*process.Process
	Address string // host:port
}

// Run is one of the peers in the benchmark's own binary, named by the first argument.
func Run(ctx context.Context, args []string) error {
	if len(args) != 2 {
		return fmt.Errorf("a peer has a name and one argument, not %q", args)
	}
	signal.Reset(os.Interrupt, syscall.SIGTERM) // they end a peer at once, which has nothing to clean up
	switch name, argument := args[0], args[1]; name {
	case "backend":
		return runBackend(argument)
	case "bare":
		return runBare(argument)
	case "reverse-proxy":
		return runReverseProxy(argument)
	case "relay":
		return runRelay(argument)
	case "list":
		return runList(ctx, argument)
	default:
		return fmt.Errorf("there is no peer %q", name)
	}
}

// startSelf runs this binary as a peer that listens at an address.
func startSelf(ctx context.Context, name, argument, address string) (*Peer, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find the benchmark's own binary: %w", err)
	}
	started, err := process.Start(name, self, "peer", name, argument)
	if err != nil {
		return nil, err
	}
	return await(ctx, started, address, "/")
}

// startForwarder runs this binary as a peer that forwards to a backend.
func startForwarder(ctx context.Context, name, backend string) (*Peer, error) {
	listen, err := process.FreeAddress()
	if err != nil {
		return nil, err
	}
	return startSelf(ctx, name, listen+" "+backend, listen)
}

// forwarderAddresses reads the argument of a peer that forwards.
func forwarderAddresses(argument string) (listen, backend string, err error) {
	if _, err := fmt.Sscan(argument, &listen, &backend); err != nil {
		return "", "", fmt.Errorf("read the addresses of a peer: %w", err)
	}
	return listen, backend, nil
}

func await(ctx context.Context, started *process.Process, address, path string) (*Peer, error) {
	if err := started.Await(ctx, "http://"+address+path, http.StatusOK); err != nil {
		started.Stop()
		return nil, err
	}
	return &Peer{Process: started, Address: address}, nil
}

// recorded is an answer that the bare handler repeats.
type recorded struct {
	Listen string
	Header http.Header
	Body   string
}

// record asks for an answer and keeps it.
func record(ctx context.Context, url string) (recorded, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return recorded{}, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return recorded{}, fmt.Errorf("ask for the answer to repeat: %w", err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return recorded{}, fmt.Errorf("read the answer to repeat: %w", err)
	}
	header := response.Header.Clone()
	header.Del("Date") // net/http sets its own
	header.Del("Content-Length")
	return recorded{Header: header, Body: string(body)}, nil
}

// nginxSettings are those that nginx's own documentation recommends for an upstream with
// keepalive, with WebSockets. One worker is one thread, where the service uses all processors:
// so it was in the figures that the goals are from.
const nginxSettings = `
worker_processes 1;
daemon off;
pid @dir@/nginx.pid;
error_log stderr warn;
events { worker_connections 4096; }
http {
  access_log off;
  client_body_temp_path @dir@/body;
  proxy_temp_path @dir@/proxy;
  fastcgi_temp_path @dir@/fastcgi;
  uwsgi_temp_path @dir@/uwsgi;
  scgi_temp_path @dir@/scgi;
  tcp_nodelay on;
  keepalive_requests 1000000;
  map $http_upgrade $connection_upgrade { default upgrade; '' ''; }
  upstream application {
    server @backend@;
    keepalive 64;
    keepalive_requests 1000000;
  }
  server {
    listen @listen@ backlog=4096;
    client_max_body_size 0;
    location / {
      proxy_pass http://application;
      proxy_http_version 1.1;
      proxy_set_header Host $host;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection $connection_upgrade;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      proxy_set_header X-Forwarded-Proto $scheme;
    }
  }
}
`

// StartNginx starts nginx as a proxy of a backend.
func StartNginx(ctx context.Context, dir, backend string) (*Peer, error) {
	listen, err := process.FreeAddress()
	if err != nil {
		return nil, err
	}
	settings := strings.NewReplacer("@dir@", dir, "@backend@", backend, "@listen@", listen).Replace(nginxSettings)
	file := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(file, []byte(settings), 0o600); err != nil {
		return nil, fmt.Errorf("write nginx's settings: %w", err)
	}
	started, err := process.Start("nginx", "nginx", "-c", file, "-p", dir)
	if err != nil {
		return nil, err
	}
	return await(ctx, started, listen, "/")
}

// StartCHP starts configurable-http-proxy, which Binder used, as a proxy of a backend. The
// npm package is in modules; its lock is in the repository.
func StartCHP(ctx context.Context, modules, backend string) (*Peer, error) {
	listen, err := process.FreeAddress()
	if err != nil {
		return nil, err
	}
	api, err := process.FreeAddress()
	if err != nil {
		return nil, err
	}
	host, port, _ := strings.Cut(listen, ":")
	_, apiPort, _ := strings.Cut(api, ":")
	started, err := process.Start("configurable-http-proxy", "node",
		filepath.Join(modules, "node_modules", "configurable-http-proxy", "bin", "configurable-http-proxy"),
		"--ip="+host, "--port="+port, "--api-ip=127.0.0.1", "--api-port="+apiPort,
		"--default-target=http://"+backend, "--log-level=error")
	if err != nil {
		return nil, err
	}
	return await(ctx, started, listen, "/")
}
