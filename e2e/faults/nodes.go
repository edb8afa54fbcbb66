package faults

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/binder-project/binder-deploy-kubernetes/e2e/harness"
)

// The second node of the local cluster has the instances, and nothing else.
const (
	secondNode  = "node2"
	secondTaint = "binder-project.org/second-node"
	kubelet     = "kubelet2"
	containerd  = "containerd2"
)

// AddNode adds the second node to the cluster, with the image of the instances.
func (c Cluster) AddNode(ctx context.Context) error {
	if err := c.command(ctx, "up", "--second-node"); err != nil {
		return err
	}
	return c.command(ctx, "load", filepath.Join(c.Dir, "images", "echo.tar"))
}

// RemoveNode removes the second node.
func (c Cluster) RemoveNode(ctx context.Context) error {
	return c.command(ctx, "down", "--second-node")
}

// onSecondNode places pods on the second node, with a folder that the application can fill.
func onSecondNode(spec *corev1.PodSpec) {
	spec.NodeSelector = map[string]string{corev1.LabelHostname: secondNode}
	spec.Tolerations = append(spec.Tolerations, corev1.Toleration{Key: secondTaint, Operator: corev1.TolerationOpExists})
	spec.Volumes = append(spec.Volumes, corev1.Volume{Name: "tmp", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}})
	app := &spec.Containers[0]
	app.VolumeMounts = append(app.VolumeMounts, corev1.VolumeMount{Name: "tmp", MountPath: "/tmp"})
}

// nodeFaults are what can happen to the node of the instances, and to one of these on it.
func nodeFaults() []Fault {
	all := Kinds()
	api := []Kind{Launches, Polls, Stops}
	return []Fault{
		{Name: "the kubelet stands still for 10 s", Make: caughtUp(pausePart(kubelet)), Hold: 10 * time.Second, Within: time.Minute, Harmless: all, Short: true},
		{Name: "the kubelet is stopped for 90 s", Make: excusing(telling(caughtUp(stopPart(kubelet)), notReady), startTimeout), Hold: 90 * time.Second, Within: 2 * time.Minute, Harmless: all},
		{Name: "containerd is restarted", Make: stopPart(containerd), Hold: time.Second, Within: time.Minute, Harmless: all},
		{
			Name: "the node is drained", Make: excusing(ending(drain, drained), ends...), Hold: 10 * time.Second,
			Within: time.Minute, Harmless: api, Ends: true, Cuts: true,
		},
		{
			Name: "the node is gone for 90 s", Make: excusing(ending(caughtUp(loseNode), lost), append(ends, startTimeout)...), Hold: 90 * time.Second,
			Within: 2 * time.Minute, Harmless: api, Ends: true, Cuts: true,
		},
		{Name: "an instance fills its disk", Make: fillDisk, Within: 30 * time.Second, Harmless: all},
		{Name: "an instance takes all its memory", Make: eatMemory, Within: 30 * time.Second, Harmless: all},
		// Five minutes after the node has fallen silent, Kubernetes deletes its pods.
		{
			Name: "the kubelet is stopped for 7 min", Make: excusing(ending(caughtUp(stopPart(kubelet)), silent), append(ends, startTimeout)...), Hold: 7 * time.Minute,
			Within: 3 * time.Minute, Harmless: api, Ends: true, Cuts: true,
		},
	}
}

// startTimeout is the reason of launches that have waited too long for a node.
const startTimeout = "StartTimeout"

// ends are the reasons of instances that somebody else deletes: while their pods are there,
// and then.
var ends = []string{"Deleting", "Gone"}

// What the service says of instances whose node is silent, and of those that Kubernetes has ended.
var (
	notReady = harness.Status{Status: "deployed", Message: "The node of the instance does not work at the moment."}

	drained = harness.Status{Status: "deleted", Reason: "Gone", Fault: "cluster", Message: "The operator of the cluster moved instances away from their node."}
	lost    = harness.Status{Status: "deleted", Reason: "Gone", Fault: "chance", Message: "The node of the instance is gone."}
	silent  = harness.Status{Status: "deleted", Reason: "Gone", Fault: "chance", Message: "The node of the instance does not work, or takes no instances any more."}

	evicted = harness.Status{Status: "failed", Reason: "Evicted", Fault: "visitor", Message: "The instance used more disk than it may, and was ended."}
	removed = harness.Status{Status: "deleted", Reason: "Failed", Fault: "visitor", Message: evicted.Message} // a minute later
)

// excusing lets launches fail for some reasons because of a fault.
func excusing(fault maker, reasons ...string) maker {
	return func(ctx context.Context, w *World, random *rand.Rand) (func(context.Context) error, error) {
		w.Ledger.Excuse(reasons...)
		return fault(ctx, w, random)
	}
}

// catchUp is how long a node may take to end the pods that were deleted while its kubelet was
// away. Meanwhile it also starts those that were launched.
const catchUp = 3 * time.Minute

// caughtUp makes a fault of the kubelet, which is undone once the kubelet has ended the pods
// that were deleted meanwhile: the service cannot end them without it. A kubelet that comes back
// may find instances not Ready at first, which are deploying then.
func caughtUp(fault maker) maker {
	return func(ctx context.Context, w *World, random *rand.Rand) (func(context.Context) error, error) {
		undo, err := fault(ctx, w, random)
		return func(ctx context.Context) error {
			for _, entry := range w.Ledger.Entries() {
				w.Ledger.Change(entry.ID, func(e *Entry) { e.Restarts = true })
			}
			if err := undo(ctx); err != nil {
				return err
			}
			w.Mended()
			back := time.Now()
			for pause(ctx, 500*time.Millisecond) {
				left, err := w.deletedBefore(ctx, back)
				if err != nil {
					return err
				}
				if left == 0 {
					return nil
				}
				if time.Since(back) > catchUp {
					return fmt.Errorf("%s has not ended %d pods within %s", secondNode, left, catchUp)
				}
			}
			return ctx.Err()
		}, err
	}
}

// deletedBefore counts the pods of the second node that were deleted before a time and are
// still there.
func (w *World) deletedBefore(ctx context.Context, before time.Time) (left int, err error) {
	pods, err := w.Suite.Kube.Client.CoreV1().Pods(harness.InstancesNamespace).
		List(ctx, metav1.ListOptions{FieldSelector: "spec.nodeName=" + secondNode})
	if err != nil {
		return 0, fmt.Errorf("list the pods of %s: %w", secondNode, err)
	}
	for _, pod := range pods.Items {
		if pod.DeletionTimestamp != nil && pod.DeletionTimestamp.Time.Before(before) {
			left++
		}
	}
	return left, nil
}

// telling makes a fault that the service must tell of before it is undone, of each instance in use.
func telling(fault maker, want harness.Status) maker {
	return func(ctx context.Context, w *World, random *rand.Rand) (func(context.Context) error, error) {
		ids := w.inUse()
		undo, err := fault(ctx, w, random)
		return func(ctx context.Context) error {
			w.awaitAllTold(ctx, ids, want)
			return undo(ctx)
		}, err
	}
}

// ending makes a fault that ends the instances in use. The service must say so of each of them
// before it is undone, and once it is.
func ending(fault maker, want harness.Status) maker {
	return func(ctx context.Context, w *World, random *rand.Rand) (func(context.Context) error, error) {
		ids := w.inUse()
		undo, err := telling(fault, want)(ctx, w, random)
		return func(ctx context.Context) error {
			if err := undo(ctx); err != nil {
				return err
			}
			w.awaitAllTold(ctx, ids, want)
			return nil
		}, err
	}
}

// inUse returns the ids of the instances in use.
func (w *World) inUse() (ids []string) {
	for _, entry := range w.Ledger.Entries() {
		if entry.Plan == Used && !entry.Deployed.IsZero() && entry.Left.IsZero() {
			ids = append(ids, entry.ID)
		}
	}
	return ids
}

// awaitAllTold is awaitTold for several instances of which the same is true.
func (w *World) awaitAllTold(ctx context.Context, ids []string, want harness.Status) {
	for _, id := range ids {
		w.awaitTold(ctx, id, 90*time.Second, says(want))
	}
}

// says returns whether a status is the wanted one. Its message may go on with what to do.
func says(want harness.Status) func(harness.Status) bool {
	return func(got harness.Status) bool {
		return got.Status == want.Status && got.Reason == want.Reason && got.Fault == want.Fault && strings.HasPrefix(got.Message, want.Message)
	}
}

// awaitTold waits until every replica says of an instance what it must, and complains if that
// takes too long.
func (w *World) awaitTold(ctx context.Context, id string, within time.Duration, accept func(harness.Status) bool) {
	var last string
	for until := time.Now().Add(within); time.Now().Before(until); pause(ctx, 500*time.Millisecond) {
		replicas, err := w.Suite.ReadyReplicas(ctx)
		if err != nil || len(replicas) == 0 {
			last = fmt.Sprintf("there are no replicas: %v", err)
			continue
		}
		if !slices.ContainsFunc(replicas, func(replica harness.Replica) bool {
			answer, err := replica.API.Try(ctx, http.MethodGet, "/applications/"+template+"/"+id, "")
			last = fmt.Sprintf("%s says %s %v", replica.Name, answer.Body, err)
			var status harness.Status
			return err != nil || json.Unmarshal(answer.Body, &status) != nil || !accept(status)
		}) {
			return
		}
	}
	w.Ledger.Complain("%s: after %s %s", id, within, last)
}

// drain empties the node by the command of docs/operate.md, and takes it into use again.
func drain(ctx context.Context, w *World, _ *rand.Rand) (func(context.Context) error, error) {
	kubeconfig := "--kubeconfig=" + w.Suite.Kube.Kubeconfig()
	err := w.Cluster.program(ctx, "kubectl", "drain", secondNode, "--ignore-daemonsets", "--delete-emptydir-data", "--force", "--timeout=1m", kubeconfig)
	return func(ctx context.Context) error {
		return w.Cluster.program(ctx, "kubectl", "uncordon", secondNode, kubeconfig)
	}, err
}

// loseNode kills the kubelet and deletes its Node, as a cloud does with a machine that is gone.
func loseNode(ctx context.Context, w *World, _ *rand.Rand) (func(context.Context) error, error) {
	err := w.Cluster.Stop(kubelet)
	if err == nil {
		err = w.Suite.Kube.Client.CoreV1().Nodes().Delete(ctx, secondNode, metav1.DeleteOptions{})
	}
	return w.Cluster.Start, err
}

// The template's limits are 64 MiB on disk and 128 MiB of memory.
const (
	tooMuchDisk   = 100 << 20
	tooMuchMemory = 500 << 20
)

// fillDisk lets an instance write more than it may. The kubelet measures volumes once a minute.
func fillDisk(ctx context.Context, w *World, _ *rand.Rand) (func(context.Context) error, error) {
	id, err := w.consume(ctx, fmt.Sprint("fill?bytes=", tooMuchDisk), 3*time.Minute)
	return func(ctx context.Context) error {
		filled := time.Now()
		w.awaitTold(ctx, id, 2*time.Minute, says(evicted))
		w.awaitTold(ctx, id, harness.FailedRetention+30*time.Second, says(removed))
		// It has ended before its time on purpose, as one that was stopped.
		w.Ledger.Change(id, func(e *Entry) { e.Plan, e.Asked, e.Left = Stopped, filled, filled })
		return nil
	}, err
}

// eatMemory lets an instance take more memory than it may. The template lets the kubelet start
// it again.
func eatMemory(ctx context.Context, w *World, _ *rand.Rand) (func(context.Context) error, error) {
	id, err := w.consume(ctx, fmt.Sprint("eat?bytes=", tooMuchMemory), 30*time.Second)
	return func(ctx context.Context) error {
		w.awaitTold(ctx, id, 20*time.Second, func(s harness.Status) bool {
			return s.Status == "deployed" && s.Restarts == 1 && s.RestartReason == "ran out of memory (limit 128Mi)"
		})
		return nil
	}, err
}

// consume launches an instance with a cull timeout and sends it a request, which it need not
// survive.
func (w *World) consume(ctx context.Context, path string, timeout time.Duration) (id string, err error) {
	id, ok := w.Load.launch(ctx, template, Idle, timeout)
	if !ok || !w.Load.awaitDeployed(ctx, template, id) {
		return id, errors.New("an instance was not deployed")
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address(id, path), nil)
	if err != nil {
		return id, fmt.Errorf("make a request: %w", err)
	}
	w.Ledger.Change(id, func(e *Entry) { e.Restarts = true })
	client := http.Client{Timeout: time.Minute}
	if response, err := client.Do(request); err == nil {
		_ = response.Body.Close()
	}
	return id, nil
}
