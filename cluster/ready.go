package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
)

// httpCheck returns a check that a GET of the URL returns 200.
func httpCheck(client *http.Client, url string) func(context.Context) error {
	return func(ctx context.Context) error {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		response, err := client.Do(request)
		if err != nil {
			return err
		}
		defer response.Body.Close()
		body, err := io.ReadAll(io.LimitReader(response.Body, 64<<10))
		if err != nil {
			return err
		}
		if response.StatusCode != http.StatusOK {
			return fmt.Errorf("%s: %s: %s", url, response.Status, failedChecks(string(body)))
		}
		return nil
	}
}

// failedChecks returns the failed checks of a health report, which has one check
// per line.
func failedChecks(report string) string {
	var failed []string
	for line := range strings.Lines(report) {
		if !strings.Contains(line, " ok") {
			failed = append(failed, strings.TrimSpace(line))
		}
	}
	return strings.Join(failed, "; ")
}

// plainClient returns a client without keep-alive, so that it does not reuse a
// connection to a part that has restarted.
func plainClient() *http.Client {
	return &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
}

// unverifiedClient returns a client for the health checks of parts that create a
// self-signed certificate at each start. It sends no secrets, and only the
// status of the response matters.
func unverifiedClient() *http.Client {
	return &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true},
	}}
}

// adminCheck returns a check of a path of the API server, as the administrator.
func (c *cluster) adminCheck(path string) func(context.Context) error {
	return func(ctx context.Context) error {
		cert, err := tls.LoadX509KeyPair(c.pki("admin.crt"), c.pki("admin.key"))
		if err != nil {
			return err
		}
		ca, err := os.ReadFile(c.pki(clusterCA + ".crt"))
		if err != nil {
			return err
		}
		pool := x509.NewCertPool()
		pool.AppendCertsFromPEM(ca)
		client := &http.Client{Transport: &http.Transport{
			DisableKeepAlives: true,
			TLSClientConfig:   &tls.Config{Certificates: []tls.Certificate{cert}, RootCAs: pool},
		}}
		return httpCheck(client, apiURL+path)(ctx)
	}
}

// socketClient returns a client of a server on a Unix socket.
func socketClient(path string) *http.Client {
	return &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var dialer net.Dialer
			return dialer.DialContext(ctx, "unix", path)
		},
	}}
}
