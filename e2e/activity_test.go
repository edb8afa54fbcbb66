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

// TestInstanceExpires: one that is in use all the time ends at its max age, and
// its page and its Event say why.
func TestInstanceExpires(t *testing.T) {
	t.Parallel()
	const maxAge = 15 * time.Second // of the template
	instance := suite.Launch(t, "echo-aged", time.Minute).AwaitDeployed(t)
	told := instance.Status(t).CullAt
	assert.WithinDuration(t, instance.Launched.Add(maxAge), told, 5*time.Second)
	every(t, time.Second, time.Until(told.Add(-time.Second)), func() {
		code, page := visit(t, http.MethodGet, instance.URL("/"), nil)
		require.Equal(t, http.StatusOK, code, page)
	})
	status := instance.AwaitEnd(t, cullMargin+removalMargin, "Expired")
	assert.False(t, time.Now().Before(told), "ended early")
	assert.Contains(t, status.Message, "its max age is 15s")
	assert.Zero(t, status.CullAt)
	code, page := visit(t, http.MethodGet, instance.URL("/"), nil)
	assert.Equal(t, http.StatusGone, code)
	assert.Contains(t, page, "its max age is 15s")
}

// TestMangledLaunchExpires: who mangles the time of the launch of one in use gains
// no more than another max age.
func TestMangledLaunchExpires(t *testing.T) {
	t.Parallel()
	const maxAge = 15 * time.Second // of the template
	instance := suite.Launch(t, "echo-aged", time.Minute).AwaitDeployed(t)
	mangled := time.Now()
	annotate(t, instance, "binder-project.org/launched", "long after this")
	for code, page := http.StatusOK, ""; code == http.StatusOK; code, page = visit(t, http.MethodGet, instance.URL("/"), nil) {
		require.Less(t, time.Since(mangled), maxAge+cullMargin, "it is still there: %s", page)
		pause(t.Context(), time.Second)
	}
	assert.GreaterOrEqual(t, time.Since(mangled), maxAge, "ended early")
	instance.AwaitEnd(t, removalMargin, "Expired")
}

// TestStatusTellsOfActivity: an owner sees when the instance was last used, by
// what, and until when it has.
func TestStatusTellsOfActivity(t *testing.T) {
	t.Parallel()
	const timeout = 24 * time.Second // of which activity is written after 2 seconds
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
	assert.False(t, time.Now().Before(byFrame.CullAt), "culled before its status said")
	over := instance.AwaitEnd(t, removalMargin, "Culled")
	assert.Zero(t, over.CullAt)
	assert.Empty(t, over.LastActivitySource)
}

// awaitActivity uses an instance until its status tells of that, which takes a
// twelfth of the timeout.
func awaitActivity(t *testing.T, instance *harness.Instance, source string, use func()) (status harness.Status) {
	t.Helper()
	used := time.Now()
	harness.Until(t, 15*time.Second, "the status tells of a use by "+source, func(context.Context) error {
		use()
		status = instance.Status(t)
		// Written are milliseconds.
		if status.LastActivity.Before(used.Truncate(time.Millisecond)) || status.LastActivitySource != source {
			return fmt.Errorf("it was used at %s and tells of %+v", used, status)
		}
		return nil
	})
	return status
}

// assertCullAt wants that an instance has its timeout from its last use, and the
// time that a write may take; or from when it came up.
func assertCullAt(t *testing.T, status harness.Status, timeout time.Duration) {
	t.Helper()
	left := status.CullAt.Sub(status.LastActivity)
	assert.GreaterOrEqual(t, left, timeout)
	assert.LessOrEqual(t, left, timeout+timeout/flushDivisor+2*time.Second+startAllowance)
}

// TestUseAtOneReplicaOnly: the leader culls by what the others have written.
func TestUseAtOneReplicaOnly(t *testing.T) {
	t.Parallel()
	const timeout = 6 * time.Second
	instance := suite.Launch(t, "echo", timeout).AwaitDeployed(t)
	used := every(t, time.Second, 5*timeout, func() {
		follower := follower(t) // of this moment: another test may end the leader
		code, page := visit(t, http.MethodGet, follower.Proxy+"/user/"+instance.ID+"/", nil)
		require.Equal(t, http.StatusOK, code, page)
	})
	awaitCulled(t, instance, used, timeout)
}

// follower is the replica that does not lead.
func follower(t *testing.T) (found harness.Replica) {
	t.Helper()
	harness.Until(t, electionWait, "a replica that does not lead, beside one that does", func(context.Context) error {
		leaders := 0
		for _, replica := range suite.Replicas(t) {
			if value(scrape(t, replica)["binder_leader"], "", "") == 1 {
				leaders++
			} else {
				found = replica
			}
		}
		if leaders != 1 {
			return fmt.Errorf("%d lead", leaders)
		}
		return nil
	})
	return found
}

// TestSlowDownloadKeepsAnInstance: bytes that move are a use, however long ago
// they were asked for.
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
	assert.Equal(t, chunks, read, "cut off")
	awaitCulled(t, instance, used.Add(-time.Second), timeout) // the last may have been some time on its way
}

// TestSlowCurlKeepsAnInstance: also where it is the visitor who takes them slowly,
// and between him and the proxy there are buffers, here of some 30 MiB.
func TestSlowCurlKeepsAnInstance(t *testing.T) {
	t.Parallel()
	const (
		timeout = 10 * time.Second
		size    = 400 << 20 // of which 10 MiB go in a second
	)
	instance := suite.Launch(t, "echo", timeout).AwaitDeployed(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	curl := exec.CommandContext(ctx, "curl", "--silent", "--show-error", "--fail", "--limit-rate", "10M", "--output", os.DevNull,
		"--write-out", "%{size_download}", instance.URL(fmt.Sprintf("/download?bytes=%d", size)))
	var downloaded, complaints bytes.Buffer
	curl.Stdout, curl.Stderr = &downloaded, &complaints
	require.NoError(t, curl.Start())
	for began := time.Now(); time.Since(began) < 5*timeout/2; pause(ctx, time.Second) {
		assert.Equal(t, "deployed", instance.Status(t).Status, "after %s", time.Since(began))
	}
	require.NoError(t, curl.Wait(), "%s", &complaints)
	assert.Equal(t, strconv.Itoa(size), downloaded.String())
	instance.AwaitEnd(t, latest(timeout)+removalMargin, "Culled")
}
