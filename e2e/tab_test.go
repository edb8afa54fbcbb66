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

// emptyNotebook is one that nothing needs to be saved of when it is opened.
const emptyNotebook = `{"type": "notebook", "format": "json", "content": {"nbformat": 4, "nbformat_minor": 5, "cells": [],
	"metadata": {"kernelspec": {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}}}}`

// TestIdleTabIsCulled leaves the real pages of Jupyter open in a browser. They go
// on asking what there is, and hear of it by a WebSocket; nobody uses them.
func TestIdleTabIsCulled(t *testing.T) {
	t.Parallel()
	t.Run("JupyterLab with a notebook", func(t *testing.T) {
		t.Parallel()
		const timeout = 40 * time.Second // asks every ten seconds
		b := openBrowser(t)
		traffic := b.watchTraffic()
		notebook := suite.Launch(t, "jupyterlab", timeout).AwaitDeployed(t)
		createNotebook(t, notebook, "/lab", "idle.ipynb")
		b.open(browserHost + "/user/" + notebook.ID + "/lab/tree/idle.ipynb")
		awaitKernel(t, notebook)
		ended := awaitIdleEnd(t, notebook, timeout)
		assert.NotZero(t, traffic.count(time.Time{}, "PUT ", "/lab/api/workspaces/"), "to open a notebook is more than to read it")
		for _, what := range [][]string{{"GET ", "/api/sessions"}, {"GET ", "/api/contents"}, {"frame from", "/api/events/subscribe"}} {
			assert.NotZero(t, traffic.count(ended.Add(-timeout), what...), "it goes on asking and hearing: %q", what)
		}
	})
	t.Run("the tree of the classic Notebook", func(t *testing.T) {
		t.Parallel()
		const timeout = 70 * time.Second // asks every minute
		b := openBrowser(t)
		traffic := b.watchTraffic()
		notebook := suite.Launch(t, "jupyter", timeout).AwaitDeployed(t)
		b.open(browserHost + "/user/" + notebook.ID + "/tree")
		b.await(harness.StartTimeout+pageWait, `Boolean(window.Jupyter && Jupyter.session_list && Jupyter.notebook_list)`)
		ended := awaitIdleEnd(t, notebook, timeout)
		assert.NotZero(t, traffic.count(ended.Add(-timeout), "GET ", "/api/sessions"), "it goes on asking")
	})
}

// awaitIdleEnd waits until an instance whose page has just been loaded is culled,
// and returns when that was known.
func awaitIdleEnd(t *testing.T, notebook *harness.Instance, timeout time.Duration) time.Time {
	t.Helper()
	require.Equal(t, "deployed", notebook.Status(t).Status)
	notebook.AwaitStatus(t, latest(timeout)+pageWait, "deleted") // the page has some last words
	ended := time.Now()
	notebook.AwaitEnd(t, removalMargin, "Culled")
	return ended
}

// createNotebook makes a notebook, with the cookies of a page.
func createNotebook(t *testing.T, notebook *harness.Instance, page, path string) {
	t.Helper()
	jar, err := cookiejar.New(nil)
	require.NoError(t, err)
	browser := &http.Client{Jar: jar, Timeout: visitTimeout}
	open(t, browser, http.MethodGet, notebook.URL(page), http.StatusOK)
	send(t, browser, http.MethodPut, notebook.URL("/api/contents/"+path), emptyNotebook, http.StatusCreated)
}

// awaitKernel waits until a page has connected to its kernel, and that is idle.
// To ask is no use of the instance.
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
		require.True(t, time.Now().Before(deadline), fmt.Sprintf("no kernel that is connected and idle: %s", answer))
		pause(t.Context(), 300*time.Millisecond)
	}
}
