package harness

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// clientTimeout bounds one run of binder-client.
const clientTimeout = 30 * time.Second

// ClientOutput is the result of one call of binder-client's JavaScript module.
type ClientOutput struct {
	Error  *string         `json:"error"` // the error message, or nil
	Result json.RawMessage `json:"result"`
}

func (s *Suite) installClient(ctx context.Context) error {
	output, err := exec.CommandContext(ctx, "bash", filepath.Join(s.root, "hack", "client.sh")).CombinedOutput()
	if err != nil {
		return fmt.Errorf("hack/client.sh: %w\n%s", err, output)
	}
	return nil
}

// CallClient calls a deploy endpoint with binder-client's module.
func (s *Suite) CallClient(t testing.TB, key, method string, options map[string]any) ClientOutput {
	t.Helper()
	host, port := s.apiAddress(t)
	all := map[string]any{"api-key": key, "host": host, "port": port}
	for name, value := range options {
		all[name] = value
	}
	data, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	stdout, stderr, err := s.node(t, "call.js", method, string(data))
	if err != nil {
		t.Fatalf("binder-client's %s failed: %v\n%s%s", method, err, stdout, stderr)
	}
	var output ClientOutput
	if err := json.Unmarshal([]byte(stdout), &output); err != nil {
		t.Fatalf("call.js %s printed invalid JSON: %v: %q", method, err, stdout)
	}
	return output
}

// RunClient runs binder-client's command line: "binder deploy <args>".
func (s *Suite) RunClient(t testing.TB, key string, args ...string) (stdout, stderr string) {
	t.Helper()
	host, port := s.apiAddress(t)
	args = append([]string{"node_modules/binder-client/bin/binder", "deploy"}, args...)
	stdout, stderr, err := s.node(t, append(args, "--api-key="+key, "--host="+host, "--port="+port)...)
	if err != nil {
		t.Fatalf("binder %q failed: %v\n%s%s", args, err, stdout, stderr)
	}
	return stdout, stderr
}

// apiAddress returns an address for binder-client that leads to the API, by way of the same
// comparison with the document as all other requests.
func (s *Suite) apiAddress(t testing.TB) (host, port string) {
	t.Helper()
	base, err := url.Parse(s.API.base)
	if err != nil {
		t.Fatal(err)
	}
	checked := httptest.NewServer(&httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(base) },
		Transport: s.API.http.Transport,
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			t.Errorf("binder-client: %v", err)
			w.WriteHeader(http.StatusBadGateway)
		},
	})
	t.Cleanup(checked.Close)
	address := checked.Listener.Addr().(*net.TCPAddr)
	return address.IP.String(), strconv.Itoa(address.Port)
}

func (s *Suite) node(t testing.TB, args ...string) (stdout, stderr string, err error) {
	ctx, cancel := context.WithTimeout(t.Context(), clientTimeout)
	defer cancel()
	command := exec.CommandContext(ctx, "node", args...)
	command.Dir = filepath.Join(s.root, "hack", "client")
	var out, errOut bytes.Buffer
	command.Stdout, command.Stderr = &out, &errOut
	err = command.Run()
	return out.String(), errOut.String(), err
}
