//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/binder-project/binder-deploy-kubernetes/e2e/harness"
)

// An annotation may be behind by a twelfth of the timeout, which the culler
// waits for in addition. The margin is for a busy machine.
const (
	flushDivisor = 12
	cullMargin   = 20 * time.Second
)

// latest is how long after its last use an instance must have been culled.
func latest(timeout time.Duration) time.Duration {
	return timeout + timeout/flushDivisor + cullMargin
}

// TestIdleInstanceIsCulled goes through everything that can say how long an
// instance may be idle.
func TestIdleInstanceIsCulled(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, template  string
		launch, timeout time.Duration
	}{
		{"the server's timeout", "echo", 0, harness.DefaultCullTimeout},
		{"the template's timeout", "echo-short", 0, 6 * time.Second},
		{"the launch's timeout", "echo", 4 * time.Second, 4 * time.Second},
		{"the launch's before the template's", "echo-short", 12 * time.Second, 12 * time.Second},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			instance := suite.Launch(t, test.template, test.launch).AwaitDeployed(t)
			awaitCulled(t, instance, instance.Launched, test.timeout)
			status := instance.AwaitEnd(t, removalMargin, "Culled")
			assert.Empty(t, status.Location)
			assert.NotEmpty(t, status.Message)
			code, page := visit(t, "GET", instance.URL("/"), nil)
			assert.Equal(t, 410, code, page)
		})
	}
}

// awaitCulled waits for the end of an instance, and that it comes neither early
// nor late after its last use.
func awaitCulled(t *testing.T, instance *harness.Instance, used time.Time, timeout time.Duration) {
	t.Helper()
	instance.AwaitStatus(t, time.Until(used)+latest(timeout)+startAllowance, "deleted")
	assert.GreaterOrEqual(t, time.Since(used), timeout, "culled early")
}

// startAllowance is for what is idle only since it came up, not since its launch.
const startAllowance = 20 * time.Second

// TestUsedInstanceIsKept uses an instance now and then by plain requests.
func TestUsedInstanceIsKept(t *testing.T) {
	t.Parallel()
	const timeout = 4 * time.Second
	instance := suite.Launch(t, "echo", timeout).AwaitDeployed(t)
	used := every(t, timeout/2, 5*timeout, func() {
		code, page := visit(t, "GET", instance.URL("/"), nil)
		require.Equal(t, 200, code, page)
	})
	awaitCulled(t, instance, used, timeout)
}

// TestUsedWebSocketKeepsAnInstance: an hour of typing is no hour of idleness.
func TestUsedWebSocketKeepsAnInstance(t *testing.T) {
	t.Parallel()
	const timeout = 4 * time.Second
	instance := suite.Launch(t, "echo", timeout).AwaitDeployed(t)
	connection := dial(t, instance.URL("/ws"))
	used := every(t, timeout/4, 5*timeout, func() {
		echo(t, connection, []byte("still here"))
	})
	require.Equal(t, "deployed", instance.Status(t).Status)
	require.NoError(t, connection.Close(websocket.StatusNormalClosure, ""))
	awaitCulled(t, instance, used, timeout)
}

// TestSilentWebSocketKeepsNothing: a forgotten tab keeps its connection alive,
// by pings both ways, and that is no use of the instance.
func TestSilentWebSocketKeepsNothing(t *testing.T) {
	t.Parallel()
	const timeout = 6 * time.Second
	instance := suite.Launch(t, "echo", timeout).AwaitDeployed(t)
	opened := time.Now()
	connection := dial(t, instance.URL("/ws?ping=300ms"))
	closed := connection.CloseRead(t.Context()) // answers pings, and takes pongs
	pings := 0
	for closed.Err() == nil {
		if err := connection.Ping(closed); err != nil {
			break
		}
		pings++
		require.Less(t, time.Since(opened), latest(timeout), "still open")
		pause(closed, 300*time.Millisecond)
	}
	assert.Greater(t, pings, 5, "the connection was open, and answered, until the instance ended")
	awaitCulled(t, instance, opened, timeout)
}

// TestActivityMangledByHand: what cannot be read is never taken for long ago.
func TestActivityMangledByHand(t *testing.T) {
	t.Parallel()
	before := restarts(t)
	t.Run("annotation", func(t *testing.T) { // returns when all of them are done
		for name, value := range map[string]any{
			"no time at all": "the day before yesterday",
			"empty":          "",
			"removed":        nil,
			"far ahead":      "2999-01-01T00:00:00Z",
			"another form":   "Mon, 02 Jan 2006 15:04:05 GMT",
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				testMangled(t, value)
			})
		}
	})
	assert.Equal(t, before, restarts(t), "a replica has crashed")
}

func testMangled(t *testing.T, value any) {
	const timeout = 6 * time.Second
	instance := suite.Launch(t, "echo", timeout).AwaitDeployed(t)
	mangled := time.Now()
	annotate(t, instance, activityAnnotation, value)
	harness.Until(t, 15*time.Second, "the annotation is repaired", func(context.Context) error {
		last, err := time.Parse(time.RFC3339, instance.Pod(t).Annotations[activityAnnotation])
		switch {
		case err != nil:
			return err
		case last.Before(mangled.Add(-time.Second)) || last.After(time.Now().Add(time.Second)):
			return fmt.Errorf("it is %s", last)
		}
		return nil
	})
	assert.Equal(t, "deployed", instance.Status(t).Status)
	awaitCulled(t, instance, mangled, timeout)
}

// TestOldActivityIsBelieved: the annotation is the truth, and no age on top of it.
func TestOldActivityIsBelieved(t *testing.T) {
	t.Parallel()
	instance := suite.Launch(t, "echo", time.Hour).AwaitDeployed(t)
	annotate(t, instance, "binder-project.org/cull-timeout", "1s")
	annotate(t, instance, activityAnnotation, "2001-01-01T00:00:00Z")
	instance.AwaitEnd(t, cullMargin, "Culled")
}
