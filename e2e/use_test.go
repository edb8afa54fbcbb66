//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"net/http"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/binder-project/binder-deploy-kubernetes/e2e/harness"
)

const activityAnnotation = "binder-project.org/last-activity"

// dial opens a WebSocket, which is closed when the test ends.
func dial(t *testing.T, url string) *websocket.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), visitTimeout)
	defer cancel()
	connection, _, err := websocket.Dial(ctx, url, nil)
	require.NoError(t, err)
	connection.SetReadLimit(16 << 20)
	t.Cleanup(func() { _ = connection.CloseNow() })
	return connection
}

// echo sends a message and wants it back.
func echo(t *testing.T, connection *websocket.Conn, message []byte) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), visitTimeout)
	defer cancel()
	require.NoError(t, connection.Write(ctx, websocket.MessageBinary, message))
	_, answer, err := connection.Read(ctx)
	require.NoError(t, err)
	require.Equal(t, len(message), len(answer))
	require.Equal(t, message, answer)
}

// every does something at an interval for a while, and returns when it last
// began to: the time by which the service must know it, at the earliest.
func every(t *testing.T, interval, long time.Duration, do func()) (last time.Time) {
	t.Helper()
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for end := time.Now().Add(long); time.Now().Before(end); {
		last = time.Now()
		do()
		select {
		case <-ticker.C:
		case <-t.Context().Done():
			t.Fatal(t.Context().Err())
		}
	}
	return last
}

// pause waits between two signs of life, or until ctx is done.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// annotate changes an annotation of an instance's pod as an operator would by
// kubectl; nil removes it.
func annotate(t *testing.T, instance *harness.Instance, name string, value any) {
	t.Helper()
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": map[string]any{name: value}}})
	require.NoError(t, err)
	_, err = suite.Kube.Client.CoreV1().Pods(harness.InstancesNamespace).
		Patch(t.Context(), instance.PodName(), types.MergePatchType, patch, metav1.PatchOptions{})
	require.NoError(t, err)
}

// restarts is how often each replica has been started again.
func restarts(t *testing.T) map[string]int32 {
	t.Helper()
	count := map[string]int32{}
	for _, replica := range suite.Replicas(t) {
		count[replica.Name] = replica.Restarts
	}
	return count
}

// request is one as the echo application saw it.
type request struct {
	Method  string            `json:"method"`
	Path    string            `json:"path"` // as it was escaped
	Query   string            `json:"query"`
	Headers http.Header       `json:"headers"`
	Host    string            `json:"host"`
	Remote  string            `json:"remote"`
	Env     map[string]string `json:"env"` // BINDER_…
}

// seen makes a request to the echo application, and returns what arrived.
func seen(t *testing.T, url string, header ...string) request {
	t.Helper()
	return seenBy(t, http.MethodGet, url, header...)
}

func seenBy(t *testing.T, method, url string, header ...string) (arrived request) {
	t.Helper()
	code, page := visit(t, method, url, nil, header...)
	require.Equal(t, http.StatusOK, code, page)
	require.NoError(t, json.Unmarshal([]byte(page), &arrived), page)
	return arrived
}
