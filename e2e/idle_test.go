//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/cookiejar"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/binder-project/binder-deploy-kubernetes/e2e/harness"
)

// TestIdlePollsDoNotCountAsUse sends the requests that a notebook's open pages send
// by themselves. They do not count as use.
func TestIdlePollsDoNotCountAsUse(t *testing.T) {
	t.Parallel()
	const timeout = 8 * time.Second
	notebook := suite.Launch(t, "jupyter", timeout).AwaitDeployed(t)
	deployed := time.Now()
	polls, code, page := 0, http.StatusOK, ""
	for code == http.StatusOK {
		require.Less(t, time.Since(deployed), cullDeadline(timeout), "the notebook still answers after %d polls", polls)
		for _, path := range []string{"sessions", "terminals", "kernels", "kernelspecs", "contents", "contents/?content=1"} {
			if code, page = visit(t, http.MethodGet, notebook.URL("/api/"+path), nil); code != http.StatusOK {
				break
			}
			polls++
		}
		pause(t.Context(), 300*time.Millisecond)
	}
	assert.Greater(t, polls, 30, "polls answered before the notebook was culled: %d %s", code, page)
	notebook.AwaitEnd(t, removalMargin, "Culled")
}

// TestNamedTrafficDoesNotCountAsUse polls by POST and sends heartbeats on a WebSocket. The
// template names both.
func TestNamedTrafficDoesNotCountAsUse(t *testing.T) {
	t.Parallel()
	const timeout = 6 * time.Second
	suite.CopyTemplate(t, "echo", "named-traffic", func(template *corev1.PodTemplate) {
		if template.Annotations == nil {
			template.Annotations = map[string]string{}
		}
		template.Annotations["binder-project.org/idle-requests"] = "POST poll"
		template.Annotations["binder-project.org/heartbeat-frames"] = "4 ws"
	})
	instance := suite.Launch(t, "named-traffic", timeout).AwaitDeployed(t)
	connection := dial(t, instance.URL("/ws"))
	echo(t, connection, []byte("2"))
	opened := time.Now()
	for code := http.StatusOK; code == http.StatusOK; pause(t.Context(), 500*time.Millisecond) {
		require.Less(t, time.Since(opened), cullDeadline(timeout), "the instance still answers")
		_ = connection.Write(t.Context(), websocket.MessageText, []byte("2")) // fails once the instance has ended
		code, _ = visit(t, http.MethodPost, instance.URL("/poll"), nil)
	}
	assert.GreaterOrEqual(t, time.Since(opened), timeout-time.Second, "culled early")
	instance.AwaitEnd(t, removalMargin, "Culled")
}

// TestWorkWithoutABrowser lets a kernel compute for three times the timeout without
// a connection. The instance must end after the computation and not before.
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
	submitted := leaveAtWork(ctx, t, browser, notebook, 3*timeout)

	for time.Since(submitted) < 3*timeout {
		status := notebook.Status(t)
		require.Equal(t, "deployed", status.Status, "culled %s into its work: %+v", time.Since(submitted), status)
		pause(ctx, time.Second)
	}
	awaitCulled(t, notebook, submitted.Add(3*timeout), timeout)
	notebook.AwaitEnd(t, removalMargin, "Culled")
}

// leaveAtWork has a kernel work for a time, and goes as a closed browser does. The work ends no
// earlier than its duration after the time that it returns. If the classic Notebook takes the
// status of another request for that of the kernel, so that it does not know of the work,
// another kernel is tried.
func leaveAtWork(ctx context.Context, t *testing.T, browser *http.Client, notebook *harness.Instance, duration time.Duration) (submitted time.Time) {
	t.Helper()
	for range 5 {
		channels, address := startKernel(ctx, t, browser, notebook)
		awaitQuietControl(ctx, t, channels)
		submitted = time.Now()
		submit(ctx, t, channels, fmt.Sprintf("import time; time.sleep(%d)", int(duration.Seconds())))
		awaitBusy(ctx, t, channels)
		require.NoError(t, channels.CloseNow())
		if isKnownToWork(ctx, t, browser, strings.TrimSuffix(address, "/channels")) {
			return submitted
		}
	}
	require.FailNow(t, "the Notebook does not know that its kernels work")
	return submitted
}

// isKnownToWork reports whether a kernel is busy, and stays so for a moment.
func isKnownToWork(ctx context.Context, t *testing.T, browser *http.Client, kernel string) bool {
	t.Helper()
	for range 5 {
		var is struct {
			State string `json:"execution_state"`
		}
		require.NoError(t, json.Unmarshal([]byte(open(t, browser, http.MethodGet, kernel, http.StatusOK)), &is))
		if is.State != "busy" {
			t.Logf("%s is %s, though it works", kernel, is.State)
			return false
		}
		pause(ctx, 300*time.Millisecond)
	}
	return true
}

// awaitQuietControl waits until the kernel has answered what Jupyter itself asks it on the
// control channel when a page connects. Such an answer ends with the status "idle", which the
// classic Notebook takes for that of the kernel, even in the middle of other work.
func awaitQuietControl(ctx context.Context, t *testing.T, channels *websocket.Conn) {
	t.Helper()
	const last = "the last on the control channel" // which answers in order
	askKernel(ctx, t, channels, "control", "kernel_info_request", last, map[string]any{})
	awaitAnswer(ctx, t, channels, last, func(m kernelMessage) bool {
		return m.Header["msg_type"] == "status" && m.Content["execution_state"] == "idle"
	})
}

// awaitBusy waits until the kernel reports that it works on the code.
func awaitBusy(ctx context.Context, t *testing.T, channels *websocket.Conn) {
	t.Helper()
	awaitAnswer(ctx, t, channels, requestID, func(m kernelMessage) bool {
		return m.Header["msg_type"] == "status" && m.Content["execution_state"] == "busy"
	})
}
