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

// pageWait is how long a page may take that waits for nothing but a busy machine.
const pageWait = 30 * time.Second

// arrived waits until the browser is at a path of a new instance, which is
// stopped when the test ends.
func (b *browser) arrived(template, path string) *harness.Instance {
	b.t.Helper()
	b.await(harness.StartTimeout+pageWait, `/^\/user\/[0-9a-f]{32}\//.test(location.pathname)`)
	address := b.address()
	match := regexp.MustCompile(`^` + regexp.QuoteMeta(browserHost) + `/user/([0-9a-f]{32})(/.*)$`).FindStringSubmatch(address)
	require.NotNil(b.t, match, address)
	assert.Equal(b.t, path, match[2])
	return suite.Adopt(b.t, template, match[1])
}

// TestPagesFromBadgeToNotebook goes the way of a visitor: from the link to a
// cell that is executed, and after the end to a new instance.
func TestPagesFromBadgeToNotebook(t *testing.T) {
	t.Parallel()
	b := openBrowser(t)
	b.open(browserHost + "/launch/jupyter?path=tree")
	notebook := b.arrived("jupyter", "/tree")
	b.await(harness.StartTimeout+pageWait, `document.querySelector('#notebook_list') !== null`)

	// The kernel's language has a notebook made for it, as the New menu does.
	created := eval[string](b, `fetch('api/contents', {
		method: 'POST', body: JSON.stringify({type: 'notebook'}),
		headers: {'X-XSRFToken': (document.cookie.match(/_xsrf=([^;]*)/) || [])[1], 'Content-Type': 'application/json'},
	}).then((answer) => answer.json()).then((made) => made.path)`)
	require.Regexp(t, `\.ipynb$`, created)
	b.open(browserHost + "/user/" + notebook.ID + "/notebooks/" + created)
	b.await(pageWait, `Boolean(window.Jupyter && Jupyter.notebook && Jupyter.notebook.kernel && Jupyter.notebook.kernel.is_connected())`)
	eval[bool](b, `(Jupyter.notebook.get_cell(0).set_text('6*7'), Jupyter.notebook.get_cell(0).execute(), true)`)
	b.await(pageWait, `[...document.querySelectorAll('.output_area .output_result')].some((e) => e.innerText.trim() === '42')`)
	b.shoot("notebook")

	answer := suite.API.Do(t, http.MethodDelete, "/applications/jupyter/"+notebook.ID, "", "Authorization", suite.API.Key())
	require.Equal(t, http.StatusOK, answer.Code)
	notebook.AwaitEnd(t, removalMargin, "Stopped")
	b.open(b.address())
	assert.Equal(t, "jupyter was stopped", b.text("h1"))
	assert.Contains(t, b.text("dl"), "Stopped")
	b.shoot("gone")
	b.press("button")
	b.await(pageWait, `!location.pathname.includes('`+notebook.ID+`')`)
	b.await(harness.StartTimeout+pageWait, `location.pathname.endsWith('/tree')`) // where the notebook leads from its root
	again := b.arrived("jupyter", "/tree?")
	assert.NotEqual(t, notebook.ID, again.ID)
	assert.Equal(t, "deployed", again.Status(t).Status)
}

// TestPagesAfterTheCull: who comes back too late is told so, and can begin anew.
func TestPagesAfterTheCull(t *testing.T) {
	t.Parallel()
	b := openBrowser(t)
	b.open(browserHost + "/launch/echo-short")
	instance := b.arrived("echo-short", "/")
	instance.AwaitEnd(t, harness.StartTimeout+removalMargin, "Culled")
	b.open(b.address())
	assert.Equal(t, "echo-short was closed because it was not used", b.text("h1"))
	assert.Contains(t, b.text("dl"), "cull timeout is 6s")
	b.shoot("culled")
	b.press("button")
	b.await(pageWait, `!location.pathname.includes('`+instance.ID+`')`)
	b.arrived("echo-short", "/")
	b.wantNoComplaints()
}

// TestPagesWhileStarting: the page of a launch that fails says what it waits
// for, then why it failed, and loads itself again just once.
func TestPagesWhileStarting(t *testing.T) {
	t.Parallel()
	b := openBrowser(t)
	b.open(browserHost + "/launch/echo-late")
	instance := b.arrived("echo-late", "/")
	b.await(pageWait, `document.getElementById('message')?.textContent === 'starting the application'`)
	assert.Equal(t, "Starting echo-late", b.text("h1"))
	assert.Equal(t, "Start", b.text("li[aria-current=step]"))
	b.shoot("starting")
	loads := b.loaded()

	instance.AwaitStatus(t, harness.StartTimeout+removalMargin, "failed")
	b.await(pageWait, `document.querySelector('h1').textContent === 'echo-late failed'`)
	assert.Contains(t, b.text("dl"), "StartTimeout")
	b.shoot("failed")
	pause(b.ctx, 3*time.Second)
	assert.Equal(t, loads+1, b.loaded(), "documents loaded since")
	b.wantNoComplaints()
}

// TestPagesWithoutScripts: the same by a button and by itself.
func TestPagesWithoutScripts(t *testing.T) {
	t.Parallel()
	b := openBrowser(t)
	call(b, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true})
	b.open(browserHost + "/launch/echo?path=a%2Fb%3Fx%3D1")
	assert.Equal(t, "Launch echo", b.text("h1"))
	b.shoot("launch")
	b.press("button")
	b.arrived("echo", "/a/b?x=1")
	b.await(harness.StartTimeout+pageWait, `document.body.innerText.includes('"query":"x=1"')`)
	b.wantNoComplaints()
}

// TestPagesThatAreNotThere: what no instance and no template is at.
func TestPagesThatAreNotThere(t *testing.T) {
	t.Parallel()
	b := openBrowser(t)
	for path, want := range map[string]string{
		"/user/" + unknownID + "/":       "No such instance",
		"/launch/nowhere":                "There is no nowhere",
		"/launch/echo?path=..%2F":        "This link is not right",
		"/launch/echo/tree":              "Not found",
		"/launch/echo?path=%2F%2Fa.test": "This link is not right",
	} {
		b.open(browserHost + path)
		assert.Equal(t, want, b.text("h1"), path)
		if path == "/user/"+unknownID+"/" {
			b.shoot("unknown")
		}
	}
	b.wantNoComplaints()
}
