// Package service runs the service under test as an operator does, as a process with
// flags, and asks it what a client and Prometheus would.
package service

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/binder-project/binder-deploy-kubernetes/bench/process"
	"github.com/binder-project/binder-deploy-kubernetes/bench/world"
)

const (
	key            = "bench-0123456789abcdef0123456789abcdef"
	requestTimeout = time.Minute
	readBuffer     = 64 << 10 // so that the client does not hold up long answers
)

// Service is one replica.
type Service struct {
	*process.Process
	API, Proxy, Metrics string // host:port
	Began               time.Time
	Ready               time.Duration // from the start of the process
	client              *http.Client
}

// Options are what one run of the service differs in from another.
type Options struct {
	Binary     string
	Kubeconfig string
	Dir        string // for files with keys
	Flags      []string
}

// Start starts a replica and waits until it is ready.
func Start(ctx context.Context, o Options) (*Service, error) {
	s := &Service{client: &http.Client{Timeout: requestTimeout, Transport: &http.Transport{
		MaxIdleConnsPerHost: 512, DisableCompression: true, ReadBufferSize: readBuffer,
	}}}
	for _, address := range []*string{&s.API, &s.Proxy, &s.Metrics} {
		free, err := process.FreeAddress()
		if err != nil {
			return nil, err
		}
		*address = free
	}
	keyFile := filepath.Join(o.Dir, "key")
	if err := os.WriteFile(keyFile, []byte(key), 0o600); err != nil {
		return nil, fmt.Errorf("write the key: %w", err)
	}
	args := append([]string{
		"--kubeconfig=" + o.Kubeconfig, "--namespace=" + world.ServiceNamespace, "--instances-namespace=" + world.Namespace,
		"--api-address=" + s.API, "--proxy-address=" + s.Proxy, "--metrics-address=" + s.Metrics,
		"--api-key-file=" + keyFile, "--secret-file=" + keyFile, "--public-host=" + s.Proxy,
		"--log-level=warn", "--shutdown-delay=0s", "--drain-timeout=1s", "--pprof",
		"--max-connections=40000", "--max-connections-per-client=40000", "--max-connections-per-instance=40000",
	}, o.Flags...)
	var err error
	s.Began = time.Now()
	s.Process, err = process.Start("the service", o.Binary, args...)
	if err != nil {
		return nil, err
	}
	if err := s.Await(ctx, "http://"+s.Metrics+"/readyz", http.StatusOK); err != nil {
		s.Stop()
		return nil, err
	}
	s.Ready = time.Since(s.Began)
	return s, nil
}

// StatusURL returns the address of an instance's status.
func (s *Service) StatusURL(id string) string {
	return "http://" + s.API + "/applications/" + world.Template + "/" + id
}

// InstanceURL returns the address of an instance, as a visitor has it.
func (s *Service) InstanceURL(id string) string { return "http://" + s.Proxy + "/user/" + id + "/" }

// Get returns the body of an answer 200 of the API, asked with the key.
func (s *Service) Get(ctx context.Context, url string) ([]byte, error) {
	return s.do(ctx, http.MethodGet, url)
}

// Read reads an answer 200 of the API as it arrives, without keeping it.
func (s *Service) Read(ctx context.Context, url string, header ...string) error {
	response, err := s.Ask(ctx, http.MethodGet, url, nil, header...)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if _, err := io.Copy(io.Discard, response.Body); err != nil {
		return fmt.Errorf("read the answer of %s: %w", url, err)
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %s", url, response.Status)
	}
	return nil
}

// Launch launches an instance, with the key, and returns its id. If it is told to come back
// later, it does, as clients should.
func (s *Service) Launch(ctx context.Context, template string) (string, error) {
	answer, err := s.do(ctx, http.MethodPost, "http://"+s.API+"/applications/"+template)
	for busy := (*busyError)(nil); errors.As(err, &busy); {
		select {
		case <-ctx.Done():
			return "", ctx.Err()
		case <-time.After(busy.after):
		}
		answer, err = s.do(ctx, http.MethodPost, "http://"+s.API+"/applications/"+template)
	}
	if err != nil {
		return "", err
	}
	var launched struct{ ID string }
	if err := json.Unmarshal(answer, &launched); err != nil || launched.ID == "" {
		return "", fmt.Errorf("read the answer of a launch %q: %w", answer, err)
	}
	return launched.ID, nil
}

// LaunchAndWait launches an instance and waits until it can be visited.
func (s *Service) LaunchAndWait(ctx context.Context, template string) error {
	answer, err := s.do(ctx, http.MethodPost, "http://"+s.API+"/applications/"+template, "Prefer", "wait=60")
	if err != nil {
		return err
	}
	var launched struct{ Location string }
	if err := json.Unmarshal(answer, &launched); err != nil || launched.Location == "" {
		return fmt.Errorf("the answer of a launch has no location: %q, %w", answer, err)
	}
	return nil
}

// Ask sends a request with the key. The caller closes the answer's body.
func (s *Service) Ask(ctx context.Context, method, url string, body io.Reader, header ...string) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Authorization", key)
	for i := 0; i+1 < len(header); i += 2 {
		request.Header.Set(header[i], header[i+1])
	}
	return s.client.Do(request)
}

func (s *Service) do(ctx context.Context, method, url string, header ...string) ([]byte, error) {
	response, err := s.Ask(ctx, method, url, nil, header...)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, fmt.Errorf("read the answer of %s: %w", url, err)
	}
	if response.StatusCode == http.StatusServiceUnavailable {
		if seconds, err := strconv.Atoi(response.Header.Get("Retry-After")); err == nil {
			return nil, &busyError{time.Duration(seconds) * time.Second}
		}
	}
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s %s: %s: %s", method, url, response.Status, bytes.TrimSpace(answer))
	}
	return answer, nil
}

// busyError is an answer 503 that says when to come back.
type busyError struct{ after time.Duration }

func (e *busyError) Error() string {
	return "the service is busy, and says to come back in " + e.after.String()
}

// Scrape returns the sum of a metric over its labels, after a collection of garbage if gc is
// true.
func (s *Service) Scrape(ctx context.Context, gc bool, names ...string) ([]float64, error) {
	if gc {
		for range 2 { // what a finalizer frees is only gone after the second
			if _, err := s.do(ctx, http.MethodGet, "http://"+s.Metrics+"/debug/pprof/heap?gc=1"); err != nil {
				return nil, err
			}
		}
	}
	text, err := s.do(ctx, http.MethodGet, "http://"+s.Metrics+"/metrics")
	if err != nil {
		return nil, err
	}
	return Sums(text, "", "", names...)
}
