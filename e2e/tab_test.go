//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/cookiejar"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/binder-project/binder-deploy-kubernetes/e2e/harness"
)

// emptyNotebook is a notebook that Jupyter does not save again when it opens it.
const emptyNotebook = `{"type": "notebook", "format": "json", "content": {"nbformat": 4, "nbformat_minor": 5, "cells": [],
	"metadata": {"kernelspec": {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}}}}`

// TestIdleTabIsCulled leaves Jupyter's real pages open in a browser. They keep
// polling and receive events on a WebSocket, but nobody uses them.
func TestIdleTabIsCulled(t *testing.T) {
	t.Parallel()
	t.Run("JupyterLab with a notebook", func(t *testing.T) {
		t.Parallel()
		const timeout = 40 * time.Second // the page polls every ten seconds
		b := openBrowser(t)
		traffic := b.watchTraffic()
		notebook := suite.Launch(t, "jupyterlab", timeout).AwaitDeployed(t)
		createNotebook(t, notebook, "/lab", "idle.ipynb")
		b.open(browserHost + "/user/" + notebook.ID + "/lab/tree/idle.ipynb")
		awaitKernel(t, notebook)
		ended := awaitIdleEnd(t, notebook, timeout)
		assert.NotZero(t, traffic.count(time.Time{}, "PUT ", "/lab/api/workspaces/"), "opening a notebook must also send a write")
		for _, what := range [][]string{{"GET ", "/api/sessions"}, {"GET ", "/api/contents"}, {"frame from", "/api/events/subscribe"}} {
			assert.NotZero(t, traffic.count(ended.Add(-timeout), what...), "the page must keep polling and receiving: %q", what)
		}
	})
	t.Run("the tree of the classic Notebook", func(t *testing.T) {
		t.Parallel()
		const timeout = 70 * time.Second // the page polls every minute
		b := openBrowser(t)
		traffic := b.watchTraffic()
		notebook := suite.Launch(t, "jupyter", timeout).AwaitDeployed(t)
		b.open(browserHost + "/user/" + notebook.ID + "/tree")
		b.await(harness.StartTimeout+pageWait, `Boolean(window.Jupyter && Jupyter.session_list && Jupyter.notebook_list)`)
		ended := awaitIdleEnd(t, notebook, timeout)
		assert.NotZero(t, traffic.count(ended.Add(-timeout), "GET ", "/api/sessions"), "the page must keep polling")
	})
}

// awaitIdleEnd waits until an instance whose page has just loaded is culled. It
// returns the time when the status showed it.
func awaitIdleEnd(t *testing.T, notebook *harness.Instance, timeout time.Duration) time.Time {
	t.Helper()
	require.Equal(t, "deployed", notebook.Status(t).Status)
	notebook.AwaitStatus(t, cullDeadline(timeout)+pageWait, "deleted") // pageWait: the page may still send requests that count as use
	ended := time.Now()
	notebook.AwaitEnd(t, removalMargin, "Culled")
	return ended
}

// createNotebook creates a notebook with the cookies of a page.
func createNotebook(t *testing.T, notebook *harness.Instance, page, path string) {
	t.Helper()
	jar, err := cookiejar.New(nil)
	require.NoError(t, err)
	browser := &http.Client{Jar: jar, Timeout: visitTimeout}
	open(t, browser, http.MethodGet, notebook.URL(page), http.StatusOK)
	send(t, browser, http.MethodPut, notebook.URL("/api/contents/"+path), emptyNotebook, http.StatusCreated)
}

// awaitKernel waits until a page is connected to its kernel and the kernel is idle.
// Its own requests do not count as use.
func awaitKernel(t *testing.T, notebook *harness.Instance) {
	t.Helper()
	deadline := time.Now().Add(harness.StartTimeout + pageWait)
	for {
		var sessions []struct {
			Kernel struct {
				State       string `json:"execution_state"`
				Connections int
			}
		}
		code, answer := visit(t, http.MethodGet, notebook.URL("/api/sessions"), nil)
		require.Equal(t, http.StatusOK, code, answer)
		require.NoError(t, json.Unmarshal([]byte(answer), &sessions))
		if len(sessions) == 1 && sessions[0].Kernel.State == "idle" && sessions[0].Kernel.Connections > 0 {
			return
		}
		require.True(t, time.Now().Before(deadline), fmt.Sprintf("no connected and idle kernel: %s", answer))
		pause(t.Context(), 300*time.Millisecond)
	}
}
