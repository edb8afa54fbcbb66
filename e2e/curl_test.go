//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/binder-project/binder-deploy-kubernetes/e2e/rawapp"
)

// curl runs curl as a visitor does, and returns what it prints. It fails the test if
// curl does.
func curl(t *testing.T, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*visitTimeout)
	defer cancel()
	command := exec.CommandContext(ctx, "curl", append([]string{"--silent", "--show-error", "--max-time", "60"}, args...)...)
	var out, problems bytes.Buffer
	command.Stdout, command.Stderr = &out, &problems
	require.NoError(t, command.Run(), "curl %q: %s%s", args, out.String(), problems.String())
	return out.String()
}

// sparseFile makes a file of zeros that takes no room.
func sparseFile(t *testing.T, size int64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "upload")
	require.NoError(t, os.WriteFile(path, nil, 0o600))
	require.NoError(t, os.Truncate(path, size))
	return path
}

// TestCurlExpect checks that curl hears from the application itself whether its body is
// wanted.
func TestCurlExpect(t *testing.T) {
	t.Parallel()
	instance, address := rawInstance(t, "raw")
	control := rawapp.NewClient("http://" + address)
	upload := []string{"--include", "--header", "Expect: 100-continue", "--expect100-timeout", "30", "--upload-file", sparseFile(t, 1<<20)}

	require.NoError(t, control.Put(t.Context(), "refuses", rawapp.Send("HTTP/1.1 417 Expectation Failed\r\nContent-Length: 3\r\nConnection: close\r\n\r\nno\n"), rawapp.Step{Op: rawapp.OpClose}))
	refused := curl(t, append(upload, instance.URL("/raw/refuses"))...)
	assert.True(t, strings.HasPrefix(refused, "HTTP/1.1 417 "), refused)
	assert.True(t, strings.HasSuffix(refused, "\r\n\r\nno\n"), refused)

	require.NoError(t, control.Put(t.Context(), "accepts", rawapp.Step{Op: rawapp.OpPause, N: 500}, rawapp.Send("HTTP/1.1 100 Continue\r\n\r\n"), rawapp.Read(),
		rawapp.Send("HTTP/1.1 201 Created\r\nContent-Length: 4\r\n\r\nyes\n")))
	accepted := curl(t, append(upload, instance.URL("/raw/accepts"))...)
	assert.True(t, strings.HasPrefix(accepted, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 "), accepted)
	seen, err := control.Seen(t.Context(), "accepts")
	require.NoError(t, err)
	require.Len(t, seen, 1)
	assert.EqualValues(t, 1<<20, seen[0].Size)
	assert.True(t, seen[0].Whole)
}

// TestCurlRefusedUpload checks that curl gets the application's refusal of an upload
// that is on its way, each time.
func TestCurlRefusedUpload(t *testing.T) {
	t.Parallel()
	instance, address := rawInstance(t, "raw")
	control := rawapp.NewClient("http://" + address)
	file := sparseFile(t, 200<<20)
	for n := range 20 {
		key := fmt.Sprint("upload", n)
		require.NoError(t, control.Put(t.Context(), key, rawapp.Send("HTTP/1.1 413 Content Too Large\r\nContent-Length: 10\r\nConnection: close\r\n\r\ntoo large\n"), rawapp.Step{Op: rawapp.OpClose}))
		got := curl(t, "--header", "Expect:", "--upload-file", file, "--write-out", "%{http_code}", instance.URL("/raw/"+key))
		assert.Equal(t, "too large\n413", got, "upload %d", n)
	}
}

// TestCurlFollowsRedirects checks that an application without a base URL can redirect,
// as it would at the root of a host.
func TestCurlFollowsRedirects(t *testing.T) {
	t.Parallel()
	instance, address := rawInstance(t, "raw-strip")
	control := rawapp.NewClient("http://" + address)
	require.NoError(t, control.Put(t.Context(), "here", rawapp.Send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nhere")))
	base := "http://" + instance.Location()
	for location, want := range map[string]string{
		"/raw/here/login?next=%2F":                                       base + "/raw/here/login?next=%2F",
		"http://localhost:8888/raw/here/x":                               base + "/raw/here/x",
		"http://" + address + "/raw/here/x":                              base + "/raw/here/x",
		"http://127.0.0.1:18000/raw/here/x":                              base + "/raw/here/x",
		base + "/raw/here/x":                                             base + "/raw/here/x",
		strings.TrimPrefix(base, "http://127.0.0.1:18000") + "/raw/here": base + "/raw/here",
		"../here/x": base + "/raw/here/x",
	} {
		require.NoError(t, control.Put(t.Context(), "from", rawapp.Send("HTTP/1.1 302 Found\r\nLocation: "+location+"\r\nContent-Length: 0\r\n\r\n")))
		got := curl(t, "--location", "--max-redirs", "3", "--write-out", " %{http_code} %{url_effective}", base+"/raw/from/")
		assert.Equal(t, "here 200 "+want, got, location)
	}

	require.NoError(t, control.Put(t.Context(), "cookie", rawapp.Send("HTTP/1.1 200 OK\r\nSet-Cookie: a=1; Path=/app\r\nContent-Length: 0\r\n\r\n")))
	assert.Contains(t, curl(t, "--include", base+"/raw/cookie"), "Set-Cookie: a=1; Path=/user/"+instance.ID+"/app\r\n")
	require.NoError(t, control.Put(t.Context(), "echo", rawapp.Step{Op: rawapp.OpEcho}))
	echoed := curl(t, "--header", "X-Forwarded-Prefix: /evil", base+"/raw/echo/a%2Fb%7Cc?d")
	assert.True(t, strings.HasPrefix(echoed, "GET /raw/echo/a%2Fb%7Cc?d HTTP/1.1\r\n"), echoed)
	assert.Contains(t, echoed, "X-Forwarded-Prefix: /user/"+instance.ID+"\r\n")
	assert.NotContains(t, echoed, "evil")
}
