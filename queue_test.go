package main

import (
	"cmp"
	"encoding/json"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
)

// line is what a fake API server has of the template jupyter: the ids of the instances that wait,
// in their order, and of those that have a place.
func line(t testing.TB, server *kubetest.Server) (waiting, admitted []string) {
	t.Helper()
	list, err := server.Client.CoreV1().Pods(kubetest.Namespace).List(t.Context(), metav1.ListOptions{})
	noError(t, err)
	pods := slices.DeleteFunc(list.Items, func(pod corev1.Pod) bool { return !instance.IsInstance(&pod) })
	slices.SortFunc(pods, func(a, b corev1.Pod) int {
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), instance.LaunchedAt(&a).Compare(instance.LaunchedAt(&b)), strings.Compare(a.Labels[instance.IDLabel], b.Labels[instance.IDLabel]))
	})
	for i := range pods {
		if id := pods[i].Labels[instance.IDLabel]; instance.IsQueued(&pods[i]) {
			waiting = append(waiting, id)
		} else {
			admitted = append(admitted, id)
		}
	}
	return waiting, admitted
}

// statusOf asks a replica about an instance.
func statusOf(t testing.TB, a *app, id string) (status struct{ Status, Reason, Message string }) {
	t.Helper()
	got := call(t, "GET", a.url(apiServer, "/applications/jupyter/"+id), "")
	wantEqual(t, "the status of "+id, got.code, 200)
	noError(t, json.Unmarshal([]byte(got.body), &status))
	return status
}

// Launches beyond a limit wait, in the order in which they came, at whatever replica. Each that ends
// makes room for the next, also when another replica leads. The limit holds exactly.
func TestQueue(t *testing.T) {
	const places, launches = 2, 7
	for name, flags := range map[string][]string{"of a template": nil, "of all": {"--max-instances=2"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			template := kubetest.Template("jupyter")
			if flags == nil {
				kubetest.WithTemplateAnnotation(instance.MaxInstancesAnnotation, "2")(template)
			}
			server := kubetest.NewServer(time.Now, template)
			first := newTestApp(t, server.Client, kubetest.NoLog(), append(flags, "--shutdown-delay=0")...)
			stopFirst := runApp(t, first)
			awaitCode(t, first.url(metricsServer, "/readyz"), 200)
			kubetest.Eventually(t, "the first leads", func() bool { return metric(t, first.metrics, "binder_leader") == 1 })
			second := startLimited(t, server, flags...)
			var launching sync.WaitGroup
			for n := range launches {
				a := []*app{first, second}[n%2]
				launching.Go(func() { wantEqual(t, "a launch", visitor{key: testAPIKey}.api(t, a).code, 200) })
			}
			launching.Wait()
			order, _ := line(t, server)
			wantQueue := func(left int) {
				t.Helper()
				kubetest.Eventually(t, "all places are taken", func() bool { _, admitted := line(t, server); return len(admitted) == places })
				waiting, _ := line(t, server)
				if want := order[len(order)-left:]; !slices.Equal(waiting, want) {
					t.Fatalf("%v wait, want %v", waiting, want)
				}
			}
			end := func() {
				t.Helper()
				_, admitted := line(t, server)
				wantEqual(t, "a stop", call(t, "DELETE", second.url(apiServer, "/applications/jupyter/"+admitted[0]), "").code, 200)
			}
			if len(order) != launches { // the first leader has waited before it began
				t.Fatalf("%v wait at first", order)
			}
			wantQueue(5)
			last := order[launches-1]
			kubetest.Eventually(t, "its place is told", func() bool {
				return statusOf(t, second, last).Message == "Waiting for a free place: 4 before you."
			})
			wantEqual(t, "its status", statusOf(t, second, last).Status+" "+statusOf(t, first, last).Reason, "pending Queued")
			end()
			wantQueue(4)
			kubetest.Eventually(t, "it has moved", func() bool {
				return statusOf(t, first, last).Message == "Waiting for a free place: 3 before you."
			})
			wantEqual(t, "the length of the queue", first.queue.Waiting(), 4)
			noError(t, stopFirst())
			end()
			wantQueue(3)
			// Somebody has asked, and that is written like a use.
			kubetest.Eventually(t, "the question counts", func() bool {
				pod, known := second.cache.Pod(last)
				return known && pod.Annotations[instance.ActivitySourceAnnotation] == string(instance.SourceQueue)
			})
		})
	}
}

// A launch is refused that finds no room in the queue, and one that waits can be stopped.
func TestQueueIsFull(t *testing.T) {
	template := kubetest.Template("jupyter", kubetest.WithTemplateAnnotation(instance.MaxInstancesAnnotation, "1"))
	server := kubetest.NewServer(time.Now, template, kubetest.Pod(kubetest.ID(1), time.Now()))
	a := startLimited(t, server, "--max-queued=1")
	wantEqual(t, "the first", visitor{key: testAPIKey}.api(t, a).code, 200)
	wantLimit(t, visitor{key: testAPIKey}.api(t, a), "template-max-instances", time.Minute, time.Minute)
	waiting, _ := line(t, server)
	wantEqual(t, "a stop", call(t, "DELETE", a.url(apiServer, "/applications/jupyter/"+waiting[0]), "").code, 200)
	wantEqual(t, "after it", visitor{key: testAPIKey}.api(t, a).code, 200)
}
