//go:build e2e

package e2e

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/binder-project/binder-deploy-kubernetes/e2e/harness"
)

// TestInstanceExpires checks that an instance in constant use ends at its maximum
// age, and that its page and its Event give the reason.
func TestInstanceExpires(t *testing.T) {
	t.Parallel()
	const maxAge = 45 * time.Second // the template's
	instance := suite.Launch(t, "echo-aged", harness.LongTimeout).AwaitDeployed(t)
	cullAt := instance.Status(t).CullAt
	assert.WithinDuration(t, instance.Launched.Add(maxAge), cullAt, 5*time.Second)
	repeat(t, time.Second, time.Until(cullAt.Add(-time.Second)), func() {
		code, page := visit(t, http.MethodGet, instance.URL("/"), nil)
		require.Equal(t, http.StatusOK, code, page)
	})
	status := instance.AwaitEnd(t, cullMargin+removalMargin, "Expired")
	assert.False(t, time.Now().Before(cullAt), "ended early")
	assert.Contains(t, status.Message, "its max age is 45s")
	assert.Zero(t, status.CullAt)
	code, page := visit(t, http.MethodGet, instance.URL("/"), nil)
	assert.Equal(t, http.StatusGone, code)
	assert.Contains(t, page, "its max age is 45s")
}

// TestInvalidLaunchTimeStillExpires checks that an instance in use with an invalid
// launch time still expires. It gains at most one more maximum age.
func TestInvalidLaunchTimeStillExpires(t *testing.T) {
	t.Parallel()
	const maxAge = 45 * time.Second // the template's
	instance := suite.Launch(t, "echo-aged", harness.LongTimeout).AwaitDeployed(t)
	changed := time.Now()
	annotate(t, instance, "binder-project.org/launched", "long after this")
	for code, page := http.StatusOK, ""; code == http.StatusOK; code, page = visit(t, http.MethodGet, instance.URL("/"), nil) {
		require.Less(t, time.Since(changed), maxAge+cullMargin, "the instance still answers: %s", page)
		pause(t.Context(), time.Second)
	}
	assert.GreaterOrEqual(t, time.Since(changed), maxAge, "ended early")
	instance.AwaitEnd(t, removalMargin, "Expired")
}

// TestStatusShowsActivity checks that the status shows when and how the instance
// was last used, and when it will be culled.
func TestStatusShowsActivity(t *testing.T) {
	t.Parallel()
	const timeout = 24 * time.Second // activity is written every 2 seconds
	instance := suite.Launch(t, "echo", timeout).AwaitDeployed(t)
	first := instance.Status(t)
	assert.Equal(t, "launch", first.LastActivitySource)
	assert.WithinDuration(t, instance.Launched, first.LastActivity, 5*time.Second)
	assertCullAt(t, first, timeout)

	byRequest := awaitActivity(t, instance, "http", func() {
		code, page := visit(t, http.MethodGet, instance.URL("/"), nil)
		require.Equal(t, http.StatusOK, code, page)
	})
	assertCullAt(t, byRequest, timeout)

	connection := dial(t, instance.URL("/ws"))
	byFrame := awaitActivity(t, instance, "websocket", func() { echo(t, connection, []byte("a frame")) })
	assertCullAt(t, byFrame, timeout)

	instance.AwaitStatus(t, time.Until(byFrame.CullAt)+cullMargin, "deleted")
	assert.False(t, time.Now().Before(byFrame.CullAt), "culled before the status's cull-at")
	ended := instance.AwaitEnd(t, removalMargin, "Culled")
	assert.Zero(t, ended.CullAt)
	assert.Empty(t, ended.LastActivitySource)
}

// awaitActivity uses an instance until its status shows the use. That takes up to
// a twelfth of the timeout.
func awaitActivity(t *testing.T, instance *harness.Instance, source string, use func()) (status harness.Status) {
	t.Helper()
	used := time.Now()
	harness.Until(t, 15*time.Second, "the status shows a use by "+source, func(context.Context) error {
		use()
		status = instance.Status(t)
		// The annotation has a precision of milliseconds.
		if status.LastActivity.Before(used.Truncate(time.Millisecond)) || status.LastActivitySource != source {
			return fmt.Errorf("used at %s, but the status is %+v", used, status)
		}
		return nil
	})
	return status
}

// assertCullAt checks that cull-at is one timeout after the last use, plus the
// time a write may take and the time the start may take.
func assertCullAt(t *testing.T, status harness.Status, timeout time.Duration) {
	t.Helper()
	left := status.CullAt.Sub(status.LastActivity)
	assert.GreaterOrEqual(t, left, timeout)
	assert.LessOrEqual(t, left, timeout+timeout/flushDivisor+2*time.Second+startAllowance)
}

// TestUseAtOneReplicaOnly checks that the leader keeps an instance that is only
// used through another replica.
func TestUseAtOneReplicaOnly(t *testing.T) {
	t.Parallel()
	const timeout = 6 * time.Second
	instance := suite.Launch(t, "echo", timeout).AwaitDeployed(t)
	used := repeat(t, time.Second, 5*timeout, func() {
		follower := follower(t) // ask each time: another test may kill the leader
		code, page := visit(t, http.MethodGet, follower.Proxy+"/user/"+instance.ID+"/", nil)
		require.Equal(t, http.StatusOK, code, page)
	})
	awaitCulled(t, instance, used, timeout)
}

// follower returns the replica that is not the leader.
func follower(t *testing.T) (found harness.Replica) {
	t.Helper()
	harness.Until(t, electionWait, "one leader and one follower", func(context.Context) error {
		leaders := 0
		for _, replica := range suite.Replicas(t) {
			if value(scrape(t, replica)["binder_leader"], "", "") == 1 {
				leaders++
			} else {
				found = replica
			}
		}
		if leaders != 1 {
			return fmt.Errorf("%d replicas lead, want 1", leaders)
		}
		return nil
	})
	return found
}

// TestSlowDownloadKeepsAnInstance checks that a long response counts as use while
// bytes are sent.
func TestSlowDownloadKeepsAnInstance(t *testing.T) {
	t.Parallel()
	const (
		timeout = 4 * time.Second
		chunks  = 20 // one a second
	)
	instance := suite.Launch(t, "echo", timeout).AwaitDeployed(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*chunks*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, instance.URL(fmt.Sprintf("/stream?chunks=%d&every=1s", chunks)), http.NoBody)
	require.NoError(t, err)
	response, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(request)
	require.NoError(t, err)
	defer response.Body.Close()
	require.Equal(t, http.StatusOK, response.StatusCode)
	lines, used := bufio.NewScanner(response.Body), time.Now()
	read := 0
	for lines.Scan() {
		if strings.HasPrefix(lines.Text(), "chunk ") {
			read, used = read+1, time.Now()
		}
	}
	require.NoError(t, lines.Err())
	assert.Equal(t, chunks, read, "the response was cut off")
	awaitCulled(t, instance, used.Add(-time.Second), timeout) // the last chunk may have been delayed
}

// TestSlowCurlKeepsAnInstance checks the same for a client that reads slowly, with
// about 30 MiB of buffers between it and the proxy.
func TestSlowCurlKeepsAnInstance(t *testing.T) {
	t.Parallel()
	const (
		timeout = 10 * time.Second
		size    = 400 << 20 // curl reads 10 MiB per second
	)
	instance := suite.Launch(t, "echo", timeout).AwaitDeployed(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	curl := exec.CommandContext(ctx, "curl", "--silent", "--show-error", "--fail", "--limit-rate", "10M", "--output", os.DevNull,
		"--write-out", "%{size_download}", instance.URL(fmt.Sprintf("/download?bytes=%d", size)))
	var downloaded, stderr bytes.Buffer
	curl.Stdout, curl.Stderr = &downloaded, &stderr
	require.NoError(t, curl.Start())
	for began := time.Now(); time.Since(began) < 5*timeout/2; pause(ctx, time.Second) {
		assert.Equal(t, "deployed", instance.Status(t).Status, "after %s", time.Since(began))
	}
	require.NoError(t, curl.Wait(), "%s", &stderr)
	assert.Equal(t, strconv.Itoa(size), downloaded.String())
	instance.AwaitEnd(t, cullDeadline(timeout)+removalMargin, "Culled")
}
