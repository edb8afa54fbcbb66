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

// cutWriter passes a stream of events on until enough have passed. Then it aborts the answer.
type cutWriter struct {
	http.ResponseWriter
	left int
	cut  func()
}

func (w *cutWriter) Write(data []byte) (int, error) {
	n, err := w.ResponseWriter.Write(data)
	if w.left -= bytes.Count(data, []byte("data:")); w.left <= 0 {
		_ = http.NewResponseController(w.ResponseWriter).Flush()
		w.cut()
		panic(http.ErrAbortHandler)
	}
	return n, err
}

// Unwrap is for http.ResponseController.
func (w *cutWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// TestStreamIsCut cuts the stream of a launch after its first event, and after the second of the next
// one. The browser's own EventSource comes back each time, and gets the instance that it has launched.
func TestStreamIsCut(t *testing.T) {
	t.Parallel()
	suite.CopyTemplate(t, "echo", "school-cut")
	const path = "/build/gh/school/cut/HEAD"
	service := &url.URL{Scheme: "http", Host: harness.PublicHost}
	proxy := &httputil.ReverseProxy{FlushInterval: -1, Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(service)
		r.Out.Host = r.In.Host // or the page would be of another site
	}}
	var streams, cuts atomic.Int64
	pages := http.NewServeMux()
	pages.HandleFunc("/{$}", func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprintf(w, streamPage, path) })
	pages.HandleFunc("/build/", func(w http.ResponseWriter, r *http.Request) {
		if n := int(streams.Add(1)); n <= 2 {
			w = &cutWriter{w, n, func() { cuts.Add(1) }}
		}
		proxy.ServeHTTP(w, r)
	})
	b := openBrowser(t)
	b.open("http://" + servePages(t, "127.0.0.1:0", pages) + "/")
	b.await(harness.StartTimeout+time.Minute, `phases.includes("ready") || phases.includes("failed")`)
	address := eval[string](b, `ended`)
	instance := strings.Trim(strings.TrimPrefix(address, "http://"+harness.PublicHost+"/user/"), "/")
	require.Regexp(t, `^[0-9a-f]{32}$`, instance, "%s %s", address, eval[string](b, `phases.join()`))
	suite.Adopt(t, "school-cut", instance)
	assert.EqualValues(t, 2, cuts.Load())
	assert.GreaterOrEqual(t, streams.Load(), int64(3))
	launched := suite.API.List(t, "school-cut")
	require.Len(t, launched, 1, "the launch was repeated")
	assert.Equal(t, instance, launched[0].ID)
}
