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

// dial opens a WebSocket and closes it when the test ends.
func dial(t *testing.T, url string) *websocket.Conn {
	t.Helper()
	return dialWith(t, url, nil)
}

func dialWith(t *testing.T, url string, options *websocket.DialOptions) *websocket.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), visitTimeout)
	defer cancel()
	connection, _, err := websocket.Dial(ctx, url, options)
	require.NoError(t, err)
	connection.SetReadLimit(16 << 20)
	t.Cleanup(func() { _ = connection.CloseNow() })
	return connection
}

// echo sends a message and checks that it comes back.
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

// repeat calls do at an interval for the given time. It returns the start of the
// last call, which is the earliest last use that the service can record.
func repeat(t *testing.T, interval, long time.Duration, do func()) (last time.Time) {
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

// pause waits for d or until ctx is done.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// annotate sets an annotation of an instance's pod, as kubectl does. nil removes
// the annotation.
func annotate(t *testing.T, instance *harness.Instance, name string, value any) {
	t.Helper()
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": map[string]any{name: value}}})
	require.NoError(t, err)
	_, err = suite.Kube.Client.CoreV1().Pods(harness.InstancesNamespace).
		Patch(t.Context(), instance.PodName(), types.MergePatchType, patch, metav1.PatchOptions{})
	require.NoError(t, err)
}

// restarts returns the number of restarts of each replica.
func restarts(t *testing.T) map[string]int32 {
	t.Helper()
	count := map[string]int32{}
	for _, replica := range suite.Replicas(t) {
		count[replica.Name] = replica.Restarts
	}
	return count
}

// echoedRequest describes a request as the echo application received it.
type echoedRequest struct {
	Method  string            `json:"method"`
	Path    string            `json:"path"` // escaped, as received
	Query   string            `json:"query"`
	Headers http.Header       `json:"headers"`
	Host    string            `json:"host"`
	Remote  string            `json:"remote"`
	Env     map[string]string `json:"env"` // BINDER_…
}

// seenRequest sends a GET to the echo application and returns the request as the
// application received it.
func seenRequest(t *testing.T, url string, header ...string) echoedRequest {
	t.Helper()
	return seenRequestWith(t, http.MethodGet, url, header...)
}

func seenRequestWith(t *testing.T, method, url string, header ...string) (arrived echoedRequest) {
	t.Helper()
	code, page := visit(t, method, url, nil, header...)
	require.Equal(t, http.StatusOK, code, page)
	require.NoError(t, json.Unmarshal([]byte(page), &arrived), page)
	return arrived
}
