//go:build e2e

package e2e

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/binder-project/binder-deploy-kubernetes/e2e/harness"
)

// streamPage launches by the stream that BinderHub's clients read, and lets the browser open it again
// by itself when it is cut. %q is the address.
const streamPage = `<!doctype html><title>Stream</title>
<script>
const source = new EventSource(%q);
const phases = [];
const ended = new Promise(resolve => source.onmessage = event => {
  const told = JSON.parse(event.data);
  phases.push(told.phase);
  if (told.phase !== "ready" && told.phase !== "failed") return;
  source.close();
  resolve(told.url ?? told.message);
});
</script>`

// cutWriter passes one event of a stream on. Then it aborts the answer.
type cutWriter struct{ http.ResponseWriter }

func (w *cutWriter) Write(data []byte) (int, error) {
	n, err := w.ResponseWriter.Write(data)
	if bytes.Contains(data, []byte("data:")) {
		_ = http.NewResponseController(w.ResponseWriter).Flush()
		panic(http.ErrAbortHandler)
	}
	return n, err
}

// Unwrap is for http.ResponseController.
func (w *cutWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// TestStreamIsCut cuts the stream of a launch after its first event. The browser's own EventSource
// comes back, and gets the instance that it has launched.
func TestStreamIsCut(t *testing.T) {
	t.Parallel()
	suite.CopyTemplate(t, "echo", "school-cut")
	const build = "/build/gh/school/cut/HEAD"
	service := &url.URL{Scheme: "http", Host: harness.PublicHost}
	proxy := &httputil.ReverseProxy{FlushInterval: -1, Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(service)
		r.Out.Host = r.In.Host // or the page would be of another site
	}}
	var streams atomic.Int64
	pages := http.NewServeMux()
	pages.HandleFunc("/{$}", func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprintf(w, streamPage, build) })
	pages.HandleFunc("/build/", func(w http.ResponseWriter, r *http.Request) {
		if streams.Add(1) == 1 {
			w = &cutWriter{w}
		}
		proxy.ServeHTTP(w, r)
	})
	b := openBrowser(t)
	b.open("http://" + servePages(t, "127.0.0.1:0", pages) + "/")
	b.await(harness.StartTimeout+time.Minute, `phases.includes("ready") || phases.includes("failed")`)
	address := eval[string](b, `ended`)
	_, path, _ := strings.Cut(address, "/user/")
	instance := strings.Trim(path, "/")
	require.Regexp(t, `^[0-9a-f]{32}$`, instance, "%s %s", address, eval[string](b, `phases.join()`))
	suite.Adopt(t, "school-cut", instance)
	assert.EqualValues(t, 2, streams.Load())
	launched := suite.API.List(t, "school-cut")
	require.Len(t, launched, 1, "the launch was repeated")
	assert.Equal(t, instance, launched[0].ID)
}
