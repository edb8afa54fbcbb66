//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"net/http"
	"net/http/cookiejar"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/coder/websocket/wsjson"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/binder-project/binder-deploy-kubernetes/e2e/harness"
)

// TestIdleTabIsCulled leaves the real page of the notebook's tree open, which
// goes on asking what there is: that is no use of the instance. It is not
// parallel, for the page has to load before the timeout is over.
func TestIdleTabIsCulled(t *testing.T) {
	const timeout = 20 * time.Second
	b := openBrowser(t)
	notebook := suite.Launch(t, "jupyter", timeout).AwaitDeployed(t)
	b.open(browserHost + "/user/" + notebook.ID + "/tree")
	b.await(harness.StartTimeout+pageWait, `Boolean(window.Jupyter && Jupyter.session_list && Jupyter.notebook_list)`)

	// The page's own polls, at another pace than its every minute, which would be
	// too slow for this timeout; and what JupyterLab and Notebook 7 ask for beside.
	eval[bool](b, `(() => {
		window.polls = 0;
		new PerformanceObserver((list) => {
			window.polls += list.getEntries().filter((e) => /\/api\//.test(e.name)).length;
		}).observe({type: 'resource'});
		setInterval(() => {
			Jupyter.session_list.load_sessions();
			Jupyter.notebook_list.load_list();
			for (const path of ['kernels', 'terminals', 'kernelspecs', 'status', 'contents/?content=1']) {
				fetch(document.body.dataset.baseUrl + 'api/' + path);
			}
		}, 1000);
		return true;
	})()`)
	b.await(pageWait, `window.polls > 10`)
	require.Equal(t, "deployed", notebook.Status(t).Status)
	notebook.AwaitStatus(t, latest(timeout), "deleted")
	notebook.AwaitEnd(t, removalMargin, "Culled")
	assert.Greater(t, eval[int](b, `window.polls`), 30, "the tab polled until the end")
}

// TestWorkWithoutABrowser has a kernel compute for three times the timeout with
// nobody connected: it ends after that, and not before.
func TestWorkWithoutABrowser(t *testing.T) {
	t.Parallel()
	const timeout = 10 * time.Second
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	notebook := suite.Launch(t, "jupyter", timeout).AwaitDeployed(t)
	jar, err := cookiejar.New(nil)
	require.NoError(t, err)
	browser := &http.Client{Jar: jar, Timeout: visitTimeout}
	open(t, browser, http.MethodGet, notebook.URL("/tree"), http.StatusOK) // for its cookies
	channels, _ := startKernel(ctx, t, browser, notebook)
	submit(ctx, t, channels, fmt.Sprintf("import time; time.sleep(%d)", int((3*timeout).Seconds())))
	awaitBusy(ctx, t, channels)
	begun := time.Now()
	require.NoError(t, channels.Close(websocket.StatusNormalClosure, ""))

	for time.Since(begun) < 3*timeout-time.Second {
		require.Equal(t, "deployed", notebook.Status(t).Status, "culled %s into its work", time.Since(begun))
		pause(ctx, time.Second)
	}
	awaitCulled(t, notebook, begun.Add(3*timeout-time.Second), timeout)
	notebook.AwaitEnd(t, removalMargin, "Culled")
}

// awaitBusy waits until the kernel says that it is at work on the request.
func awaitBusy(ctx context.Context, t *testing.T, channels *websocket.Conn) {
	t.Helper()
	for {
		var message kernelMessage
		require.NoError(t, wsjson.Read(ctx, channels, &message), "not busy yet")
		if message.Header["msg_type"] == "status" && message.ParentHeader["msg_id"] == requestID &&
			message.Content["execution_state"] == "busy" {
			return
		}
	}
}
