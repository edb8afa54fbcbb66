//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/binder-project/binder-deploy-kubernetes/e2e/harness"
)

const (
	// courseAddress is where the pages of a course are, which e2e/manifests allows to launch.
	// Chromium knows its host, and another that may not.
	courseAddress = "127.0.0.1:18099"
	courseHost    = "http://course.test:18099"
	strangerHost  = "http://frames.test:18099"

	frontends = "frontends/node_modules"
)

// installFrontends installs the clients of BinderHub, once.
var installFrontends = sync.OnceValue(func() error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	output, err := exec.CommandContext(ctx, "bash", "../hack/frontends.sh").CombinedOutput()
	if err != nil {
		return fmt.Errorf("hack/frontends.sh: %w\n%s", err, output)
	}
	return nil
})

// TestBinderHubClient launches with the published client, through to an instance.
func TestBinderHubClient(t *testing.T) {
	t.Parallel()
	require.NoError(t, installFrontends())
	suite.CopyTemplate(t, "echo", "school-course")
	for spec, phases := range map[string][]string{
		"gh/School/Course/HEAD": {"built", "ready"},
		"gh/school/other/main":  {"failed"},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		defer cancel()
		command := exec.CommandContext(ctx, "node", "launch.mjs", "http://"+harness.PublicHost+"/build/", spec)
		command.Dir = "frontends"
		var stderr bytes.Buffer
		command.Stderr = &stderr
		output, err := command.Output()
		require.NoError(t, err, "%s%s", output, &stderr)
		var told []string
		var last struct{ Phase, Message, URL, Token string }
		for line := range strings.Lines(string(output)) {
			require.NoError(t, json.Unmarshal([]byte(line), &last), line)
			if last.Phase != "launching" {
				told = append(told, last.Phase)
			}
		}
		assert.Equal(t, phases, told, "%s", output)
		if last.Phase == "ready" {
			id := strings.TrimSuffix(strings.TrimPrefix(last.URL, "http://"+harness.PublicHost+"/user/"), "/")
			suite.Adopt(t, "school-course", id)
			code, page := visit(t, http.MethodGet, last.URL, nil)
			assert.Equal(t, http.StatusOK, code, page)
		}
	}
}

// bookPage does what MyST's launch button does: it asks what a host is, from another origin, and
// leads to the link of a repository if that is a BinderHub. %q is the host.
const bookPage = `<!doctype html><title>Book</title>
<script>
const host = %q;
const asked = fetch(host + "/versions").then(answer => answer.json()).then(versions => {
  if (!("binderhub" in versions)) throw new Error("no BinderHub: " + JSON.stringify(versions));
  const link = document.createElement("a");
  link.id = "launch";
  link.href = host + "/v2/gh/school/book/HEAD?urlpath=/lab/tree/intro.md";
  link.append("Launch");
  document.body.append(link);
  return "a BinderHub";
}).catch(String);
</script>`

// TestMyST launches from the page of a book at another origin, which may read what the host is
// and no more.
func TestMyST(t *testing.T) {
	t.Parallel()
	suite.CopyTemplate(t, "echo", "school-book")
	address := servePages(t, "127.0.0.1:0", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprintf(w, bookPage, browserHost)
	}))
	_, port, err := net.SplitHostPort(address)
	require.NoError(t, err)
	b := openBrowser(t)
	b.open("http://frames.test:" + port + "/")
	require.Equal(t, "a BinderHub", eval[string](b, `asked`))
	kept := eval[string](b, `fetch(host + "/build/gh/school/book/HEAD").then(() => "read", () => "kept")`)
	assert.Equal(t, "kept", kept, "the page of a book can read what is not for all")
	b.click("#launch")
	b.await(time.Minute, `location.pathname.startsWith("/user/") && location.pathname.endsWith("/lab/tree/intro.md")`)
	id := strings.Split(strings.TrimPrefix(b.address(), browserHost+"/user/"), "/")[0]
	suite.Adopt(t, "school-book", id)
}

// servePages serves pages at an address until the test ends, and returns the address.
func servePages(t *testing.T, address string, pages http.Handler) string {
	t.Helper()
	listener, err := net.Listen("tcp", address)
	require.NoError(t, err)
	server := &http.Server{Handler: pages, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { _ = server.Close() })
	return listener.Addr().String()
}

// serveCourse serves the pages of a course until the test ends: one with a cell that thebe runs
// at its host, and one that tries to launch at that of a stranger.
func serveCourse(t *testing.T) {
	t.Helper()
	mux := http.NewServeMux()
	mux.Handle("/thebe/", http.StripPrefix("/thebe/", http.FileServer(http.Dir(filepath.Join(frontends, "thebe/lib")))))
	mux.HandleFunc("/{$}", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprintf(w, `<!doctype html><title>Course</title>
<script type="text/x-thebe-config">{
  requestKernel: true,
  binderOptions: {binderUrl: %q, repo: "school/notebook", ref: "HEAD", repoProvider: "github"},
  kernelOptions: {kernelName: "python3"},
}</script>
<pre data-executable="true" data-language="python">print(6 * 7)</pre>
<script>
const problems = document.createElement("pre");
for (const kind of ["error", "warn"]) console[kind] = (...told) => problems.append(told.map(String).join(" ") + "\n");
document.body.append(problems);
</script>
<script src="/thebe/index.js"></script>`, browserHost)
	})
	mux.HandleFunc("/stranger", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprintf(w, `<!doctype html><title>Stranger</title>
<script>
const build = %q;
const failed = name => new Promise(resolve => {
  const made = name === "img" ? new Image() : new EventSource(build);
  made.onerror = () => resolve(name);
  made.onmessage = event => resolve("launched: " + event.data);
  if (name === "img") made.src = build;
});
const fetched = (name, how) => fetch(build, {mode: "no-cors", headers: {Accept: "text/event-stream"}, ...how}).then(() => name);
const refused = Promise.all([failed("img"), failed("stream"), fetched("fetch"), fetched("hidden", {referrerPolicy: "no-referrer"})]);
</script>`, browserHost+"/build/gh/school/secret/HEAD")
	})
	servePages(t, courseAddress, mux)
}

// thebeTimeout is the cull timeout of the instances of a course. A page that is loaded again must
// find its instance within that time.
const thebeTimeout = 30 * time.Second

// TestThebe runs a cell on the page of a course, which is on another origin than the instance. When
// the instance was culled, the page gets another. A page of a stranger launches nothing.
func TestThebe(t *testing.T) {
	t.Parallel()
	require.NoError(t, installFrontends())
	suite.CopyTemplate(t, "jupyter", "school-notebook", func(template *corev1.PodTemplate) {
		template.Annotations["binder-project.org/cull-timeout"] = thebeTimeout.String()
	})
	suite.CopyTemplate(t, "echo", "school-secret")
	serveCourse(t)
	b := openBrowser(t)
	run := func() (id string) {
		b.open(courseHost + "/")
		b.await(pageWait, `Boolean(window.thebe)`)
		eval[bool](b, `(thebe.bootstrap({requestKernel: true}).catch(console.error), true)`)
		b.await(2*time.Minute, `Boolean(window.thebe.session)`)
		b.click(".thebe-run-button")
		b.await(time.Minute, `[...document.querySelectorAll(".jp-OutputArea-output")].some(e => e.innerText.trim() === "42")`)
		address := eval[string](b, `thebe.server.userServerUrl.split("?")[0]`)
		id = strings.Trim(strings.TrimPrefix(address, browserHost+"/user/"), "/")
		require.Regexp(t, `^[0-9a-f]{32}$`, id, address)
		return id
	}
	first := run()
	instance := suite.Adopt(t, "school-notebook", first)
	assert.Equal(t, first, run(), "a reload of the page finds the same instance")

	b.open(strangerHost + "/stranger") // and nobody uses the instance any more
	assert.Equal(t, "img,stream,fetch,hidden", eval[string](b, `refused.then(all => all.join())`))
	answer := suite.API.Do(t, http.MethodGet, "/applications/school-secret", "", "Authorization", suite.API.Key())
	assert.JSONEq(t, "[]", string(answer.Body), "a page of a stranger has launched")

	instance.AwaitEnd(t, cullDeadline(thebeTimeout)+removalMargin, "Culled")
	second := run()
	suite.Adopt(t, "school-notebook", second)
	assert.NotEqual(t, first, second)
}
