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

// An annotation can trail the last use by a twelfth of the timeout, so the culler
// waits that much longer. The margin is for a busy machine.
const (
	flushDivisor = 12
	cullMargin   = 40 * time.Second
)

// cullDeadline returns how long after its last use an instance must be culled.
func cullDeadline(timeout time.Duration) time.Duration {
	return timeout + timeout/flushDivisor + cullMargin
}

// TestIdleInstanceIsCulled checks all sources of the cull timeout.
func TestIdleInstanceIsCulled(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, template  string
		launch, timeout time.Duration
	}{
		{"the server's timeout", "echo", 0, harness.DefaultCullTimeout},
		{"the template's timeout", "echo-short", 0, 6 * time.Second},
		{"the launch's timeout", "echo", 4 * time.Second, 4 * time.Second},
		{"the launch's timeout overrides the template's", "echo-short", 12 * time.Second, 12 * time.Second},
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

// awaitCulled waits until an instance is culled and checks that this is neither
// too early nor too late after its last use.
func awaitCulled(t *testing.T, instance *harness.Instance, used time.Time, timeout time.Duration) {
	t.Helper()
	instance.AwaitStatus(t, time.Until(used)+cullDeadline(timeout)+startAllowance, "deleted")
	assert.GreaterOrEqual(t, time.Since(used), timeout, "culled early")
}

// startAllowance is for instances that are idle since their start, which is later
// than their launch.
const startAllowance = 40 * time.Second

// TestUsedInstanceIsKept checks that plain requests keep an instance.
func TestUsedInstanceIsKept(t *testing.T) {
	t.Parallel()
	const timeout = 4 * time.Second
	instance := suite.Launch(t, "echo", timeout).AwaitDeployed(t)
	used := repeat(t, timeout/2, 5*timeout, func() {
		code, page := visit(t, "GET", instance.URL("/"), nil)
		require.Equal(t, 200, code, page)
	})
	awaitCulled(t, instance, used, timeout)
}

// TestUsedWebSocketKeepsAnInstance checks that WebSocket messages keep an
// instance.
func TestUsedWebSocketKeepsAnInstance(t *testing.T) {
	t.Parallel()
	const timeout = 4 * time.Second
	instance := suite.Launch(t, "echo", timeout).AwaitDeployed(t)
	connection := dial(t, instance.URL("/ws"))
	used := repeat(t, timeout/4, 5*timeout, func() {
		echo(t, connection, []byte("still here"))
	})
	require.Equal(t, "deployed", instance.Status(t).Status)
	require.NoError(t, connection.Close(websocket.StatusNormalClosure, ""))
	awaitCulled(t, instance, used, timeout)
}

// TestSilentWebSocketIsIdle checks that pings in both directions, which a
// forgotten tab keeps sending, do not count as use.
func TestSilentWebSocketIsIdle(t *testing.T) {
	t.Parallel()
	const timeout = 6 * time.Second
	instance := suite.Launch(t, "echo", timeout).AwaitDeployed(t)
	opened := time.Now()
	connection := dial(t, instance.URL("/ws?ping=300ms"))
	closed := connection.CloseRead(t.Context()) // answers pings and reads pongs
	pings := 0
	for closed.Err() == nil {
		if err := connection.Ping(closed); err != nil {
			break
		}
		pings++
		require.Less(t, time.Since(opened), cullDeadline(timeout), "the connection is still open")
		pause(closed, 300*time.Millisecond)
	}
	assert.Greater(t, pings, 5, "pings answered before the instance ended")
	awaitCulled(t, instance, opened, timeout)
}

// TestInvalidActivityIsRepaired checks that an invalid time of last use is
// replaced, and never taken for a time long ago.
func TestInvalidActivityIsRepaired(t *testing.T) {
	t.Parallel()
	before := restarts(t)
	t.Run("annotation", func(t *testing.T) { // returns when all subtests are done
		for name, value := range map[string]any{
			"not a time":     "the day before yesterday",
			"empty":          "",
			"removed":        nil,
			"in the future":  "2999-01-01T00:00:00Z",
			"another format": "Mon, 02 Jan 2006 15:04:05 GMT",
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				testInvalidActivity(t, value)
			})
		}
	})
	assert.Equal(t, before, restarts(t), "a replica has crashed")
}

func testInvalidActivity(t *testing.T, value any) {
	const timeout = 6 * time.Second
	instance := suite.Launch(t, "echo", timeout).AwaitDeployed(t)
	changed := time.Now()
	annotate(t, instance, activityAnnotation, value)
	harness.Until(t, 15*time.Second, "the annotation is replaced", func(context.Context) error {
		last, err := time.Parse(time.RFC3339, instance.Pod(t).Annotations[activityAnnotation])
		switch {
		case err != nil:
			return err
		case last.Before(changed.Add(-time.Second)) || last.After(time.Now().Add(time.Second)):
			return fmt.Errorf("the annotation is %s", last)
		}
		return nil
	})
	assert.Equal(t, "deployed", instance.Status(t).Status)
	awaitCulled(t, instance, changed, timeout)
}

// TestOldActivityIsTrusted checks that an instance with a valid but very old time
// of last use is culled.
func TestOldActivityIsTrusted(t *testing.T) {
	t.Parallel()
	instance := suite.Launch(t, "echo", time.Hour).AwaitDeployed(t)
	annotate(t, instance, "binder-project.org/cull-timeout", "1s")
	annotate(t, instance, activityAnnotation, "2001-01-01T00:00:00Z")
	instance.AwaitEnd(t, cullMargin, "Culled")
}
