package harness

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// logServer is an API server with pods and their logs.
type logServer struct {
	mu   sync.Mutex
	pods []corev1.Pod
	logs map[string]string // by name, and name/previous
	seen map[string]int
}

func (s *logServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	path := strings.TrimPrefix(r.URL.Path, "/api/v1/namespaces/"+Namespace+"/pods")
	if path == "" {
		s.seen["list"]++
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(corev1.PodList{TypeMeta: metav1.TypeMeta{Kind: "PodList", APIVersion: "v1"}, Items: s.pods})
		return
	}
	name := strings.TrimSuffix(strings.TrimPrefix(path, "/"), "/log")
	if r.URL.Query().Get("previous") == "true" {
		name += "/previous"
	}
	s.seen[name]++
	log, known := s.logs[name]
	switch {
	case strings.HasPrefix(name, "gone"):
		http.Error(w, "pod not found", http.StatusNotFound)
	case !known:
		http.Error(w, "container not found", http.StatusBadRequest)
	case log == "cut":
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	default:
		_, _ = w.Write([]byte(log))
	}
}

func logPod(name string, restarts int32, state corev1.ContainerState, last corev1.ContainerState) corev1.Pod {
	return corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name)},
		Status:     corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{{RestartCount: restarts, State: state, LastTerminationState: last}}},
	}
}

// TestLogWatchReadsEveryLog checks that the logs of replicas that run, have restarted,
// wait for their next start, or are gone are read once, and which problems are found.
func TestLogWatchReadsEveryLog(t *testing.T) {
	running := corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}
	waiting := corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff"}}
	ended := corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{}}
	const good = `{"msg":"ready"}` + "\n"
	server := &logServer{seen: map[string]int{}, pods: []corev1.Pod{
		logPod("good", 0, running, corev1.ContainerState{}), logPod("created", 0, waiting, corev1.ContainerState{}),
		logPod("restarted", 2, running, ended), logPod("crashed", 0, waiting, ended),
		logPod("cut", 0, running, corev1.ContainerState{}), logPod("lost", 0, ended, corev1.ContainerState{}),
		logPod("gone early", 0, ended, corev1.ContainerState{}), logPod("gone", 0, running, corev1.ContainerState{}),
	}, logs: map[string]string{
		"good": good + good, "restarted": good, "restarted/previous": "panic: nil map\n", "crashed": "2026/11/28 no JSON\n", "cut": "cut", "late": `{"msg":"http: panic serving"}` + "\n",
	}}
	used := &server.pods[len(server.pods)-1]
	used.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
	api := httptest.NewServer(server)
	t.Cleanup(api.Close)
	client, err := kubernetes.NewForConfig(&rest.Config{Host: api.URL, QPS: -1})
	require.NoError(t, err)

	dir := t.TempDir()
	watch := watchLogs(t.Context(), client, dir, false)
	look := func() {
		server.mu.Lock()
		looks := server.seen["list"]
		server.mu.Unlock()
		assert.Eventually(t, func() bool {
			server.mu.Lock()
			defer server.mu.Unlock()
			return server.seen["list"] >= looks+3
		}, cleanupTimeout, pollInterval)
	}
	look()
	server.mu.Lock()
	server.pods = []corev1.Pod{logPod("late", 0, running, corev1.ContainerState{})}
	server.mu.Unlock()
	look()
	summary, err := watch.end()

	assert.Equal(t, "6 lines of 9 logs were checked", summary)
	require.Error(t, err)
	for _, want := range []string{
		"restarted, start 2:\n  line 1 is a panic", "crashed, start 1:\n  line 1 is no JSON", "late, start 1:\n  line 1 is a panic",
		"cut, start 1:\n  read the log", "lost, start 1:\n  open the log", "gone, start 1:\n  open the log",
	} {
		assert.Contains(t, err.Error(), want)
	}
	assert.NotContains(t, err.Error(), "good")
	assert.NotContains(t, err.Error(), "restarted, start 3")
	assert.NotContains(t, err.Error(), "gone early")
	kept, err := os.ReadFile(filepath.Join(dir, "previous-restarted-2.log"))
	require.NoError(t, err)
	assert.Equal(t, "panic: nil map\n", string(kept))
	delete(server.seen, "list")
	assert.Equal(t, map[string]int{"good": 1, "restarted": 1, "restarted/previous": 1, "crashed": 1, "cut": 1, "lost": 1, "late": 1, "gone early": 1, "gone": 1}, server.seen)
}
