//go:build e2e

package e2e

import (
	"net/http"
	"regexp"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/binder-project/binder-deploy-kubernetes/e2e/harness"
)

// pageWait bounds the time for a page to load on a busy machine.
const pageWait = time.Minute

// awaitInstance waits until the browser is at the given path of a new instance. The
// instance is stopped when the test ends.
func (b *browser) awaitInstance(template, path string) *harness.Instance {
	b.t.Helper()
	b.await(harness.StartTimeout+pageWait, `/^\/user\/[0-9a-f]{32}\//.test(location.pathname)`)
	address := b.address()
	match := regexp.MustCompile(`^(?:` + regexp.QuoteMeta(browserHost) + `|` + regexp.QuoteMeta(trustedHost) + `)/user/([0-9a-f]{32})(/.*)$`).FindStringSubmatch(address)
	require.NotNil(b.t, match, address)
	assert.Equal(b.t, path, match[2])
	return suite.Adopt(b.t, template, match[1])
}

// TestPagesFromBadgeToNotebook follows a visitor from the launch link to an executed
// cell, and from a stopped instance to a new one.
func TestPagesFromBadgeToNotebook(t *testing.T) {
	t.Parallel()
	b := openBrowser(t)
	b.open(browserHost + "/launch/jupyter?path=tree")
	notebook := b.awaitInstance("jupyter", "/tree")
	b.await(harness.StartTimeout+pageWait, `document.querySelector('#notebook_list') !== null`)

	// Create a notebook as the New menu does.
	created := eval[string](b, `fetch('api/contents', {
		method: 'POST', body: JSON.stringify({type: 'notebook'}),
		headers: {'X-XSRFToken': (document.cookie.match(/_xsrf=([^;]*)/) || [])[1], 'Content-Type': 'application/json'},
	}).then((answer) => answer.json()).then((made) => made.path)`)
	require.Regexp(t, `\.ipynb$`, created)
	b.open(browserHost + "/user/" + notebook.ID + "/notebooks/" + created)
	b.await(pageWait, `Boolean(window.Jupyter && Jupyter.notebook && Jupyter.notebook.kernel && Jupyter.notebook.kernel.is_connected())`)
	eval[bool](b, `(Jupyter.notebook.get_cell(0).set_text('6*7'), Jupyter.notebook.get_cell(0).execute(), true)`)
	b.await(pageWait, `[...document.querySelectorAll('.output_area .output_result')].some((e) => e.innerText.trim() === '42')`)
	b.screenshot("notebook")

	answer := suite.API.Do(t, http.MethodDelete, "/applications/jupyter/"+notebook.ID, "", "Authorization", suite.API.Key())
	require.Equal(t, http.StatusOK, answer.Code)
	notebook.AwaitEnd(t, removalMargin, "Stopped")
	b.open(b.address())
	assert.Equal(t, "jupyter was stopped", b.text("h1"))
	assert.Contains(t, b.text("dl"), "Stopped")
	b.screenshot("gone")
	b.click("button")
	b.await(pageWait, `!location.pathname.includes('`+notebook.ID+`')`)
	again := b.awaitInstance("jupyter", "/notebooks/"+created) // the same page, whether or not the image has the file
	assert.NotEqual(t, notebook.ID, again.ID)
	again.AwaitDeployed(t)
}

// TestPagesAfterTheCull checks that a culled instance's page says so and can launch
// a new instance.
func TestPagesAfterTheCull(t *testing.T) {
	t.Parallel()
	b := openBrowser(t)
	b.open(browserHost + "/launch/echo-short")
	instance := b.awaitInstance("echo-short", "/")
	instance.AwaitEnd(t, harness.StartTimeout+removalMargin, "Culled")
	b.open(b.address())
	assert.Equal(t, "echo-short was closed because it was not used", b.text("h1"))
	assert.Contains(t, b.text("dl"), "cull timeout is 6 seconds")
	b.screenshot("culled")
	b.wantAccessible()
	b.click("button")
	b.await(pageWait, `!location.pathname.includes('`+instance.ID+`')`)
	b.awaitInstance("echo-short", "/")
	b.wantNoPageErrors()
}

// TestPagesWhileStarting checks that the page of a failing launch shows what it
// waits for and then the failure, and that it reloads just once.
func TestPagesWhileStarting(t *testing.T) {
	t.Parallel()
	b := openBrowser(t)
	b.open(browserHost + "/launch/echo-late")
	instance := b.awaitInstance("echo-late", "/")
	b.await(pageWait, `document.getElementById('message')?.textContent === 'Starting the application.'`)
	assert.Equal(t, "Starting echo-late", b.text("h1"))
	assert.Equal(t, "Start", b.text("li[aria-current=step] .step"))
	assert.Equal(t, "done", b.text("li[data-step=node] .state"))
	assert.Regexp(t, `^Launched \d:\d\d ago$`, b.text("#elapsed"))
	b.screenshot("starting")
	b.wantAccessible()
	loads := b.loadCount()

	instance.AwaitStatus(t, harness.StartTimeout+removalMargin, "failed")
	b.await(pageWait, `document.querySelector('h1').textContent === 'echo-late failed'`)
	assert.Contains(t, b.text("dl"), "StartTimeout")
	b.screenshot("failed-to-start")
	b.wantAccessible()
	pause(b.ctx, 3*time.Second)
	assert.Equal(t, loads+1, b.loadCount(), "documents loaded")
	b.wantNoPageErrors()
}

// TestPagesWithoutScripts checks that the pages work without JavaScript: a button
// launches, and the page refreshes itself.
func TestPagesWithoutScripts(t *testing.T) {
	t.Parallel()
	b := openBrowser(t)
	call(b, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true})
	b.open(browserHost + "/launch/echo?path=a%2Fb%3Fx%3D1")
	assert.Equal(t, "Launch echo", b.text("h1"))
	b.screenshot("launch")
	b.click("button")
	b.awaitInstance("echo", "/a/b?x=1")
	b.await(harness.StartTimeout+pageWait, `document.body.innerText.includes('"query":"x=1"')`)
	b.wantNoPageErrors()
}

// TestPagesNotFound checks the pages for unknown instances and invalid links.
func TestPagesNotFound(t *testing.T) {
	t.Parallel()
	b := openBrowser(t)
	for path, want := range map[string]string{
		"/user/" + unknownID + "/":       "No such instance",
		"/launch/nowhere":                "There is nothing to launch by this name",
		"/launch/echo?path=..%2F":        "This link is not right",
		"/launch/echo/tree":              "Not found",
		"/launch/echo?path=%2F%2Fa.test": "This link is not right",
	} {
		b.open(browserHost + path)
		assert.Equal(t, want, b.text("h1"), path)
		if path == "/user/"+unknownID+"/" {
			b.screenshot("unknown")
			b.wantAccessible()
		}
	}
	b.wantNoPageErrors()
}
