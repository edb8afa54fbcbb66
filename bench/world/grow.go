package world

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

const (
	// image is not pulled: no kubelet sees the pods.
	image = "registry.example/binder/application:1"
	// writers is how many instances are made at a time.
	writers       = 64
	progressEvery = 5 * time.Second
)

// Launch launches an instance through the service's API, and returns its id.
type Launch func(ctx context.Context, template string) (id string, err error)

// IDs returns the ids of all instances.
func (w *World) IDs() []string { return w.ids }

// Port returns the port at which all instances listen.
func (w *World) Port() int { return w.port }

// Address returns the IP address of the instance with a number: each has its own, and all
// are on the loopback interface.
func Address(number int) string {
	return net.IPv4(127, byte(1+number>>16), byte(number>>8), byte(number)).String()
}

// Grow launches instances until there are size, and makes them run.
func (w *World) Grow(ctx context.Context, size int, launch Launch) error {
	return w.add(ctx, size, writers, func(ctx context.Context, number int) (*corev1.Pod, error) {
		id, err := launch(ctx, Template)
		if err != nil {
			return nil, fmt.Errorf("launch instance %d: %w", number, err)
		}
		return w.run(ctx, id, number)
	})
}

// add adds instances until there are size, several at a time. one adds the instance with a
// number, and returns its pod.
func (w *World) add(ctx context.Context, size, several int, one func(ctx context.Context, number int) (*corev1.Pod, error)) error {
	told := w.counter(size)
	var mu sync.Mutex
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(several)
	for number := len(w.ids); number < size && ctx.Err() == nil; number++ {
		group.Go(func() error {
			pod, err := one(ctx, number)
			if err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			w.ids, w.newest = append(w.ids, pod.Labels[idLabel]), pod
			told(len(w.ids))
			return nil
		})
	}
	return group.Wait()
}

// counter returns a function that says at intervals how many instances there are. It must
// not be called twice at a time.
func (w *World) counter(size int) func(count int) {
	began, reported := time.Now(), time.Now()
	return func(count int) {
		if time.Since(reported) > progressEvery || count == size {
			reported = time.Now()
			fmt.Fprintf(w.progress, "   %d of %d instances after %s\n", count, size, time.Since(began).Round(time.Second))
		}
	}
}

// run writes the status of a pod whose application serves, and returns the pod.
func (w *World) run(ctx context.Context, id string, number int) (*corev1.Pod, error) {
	status, err := json.Marshal(map[string]any{"status": runningStatus(Address(number))})
	if err != nil {
		return nil, fmt.Errorf("encode a status: %w", err)
	}
	pod, err := w.Client.CoreV1().Pods(Namespace).Patch(ctx, podName(id), types.StrategicMergePatchType, status, metav1.PatchOptions{}, "status")
	if err != nil {
		return nil, fmt.Errorf("write the status of a pod: %w", err)
	}
	return pod, nil
}

// podName is the name of an instance's pod, as docs/operate.md has it.
func podName(id string) string {
	return fmt.Sprintf("binder-%.16x", sha256.Sum256([]byte(id)))
}

// runningStatus is what a kubelet writes of a pod that is Ready.
func runningStatus(address string) corev1.PodStatus {
	now := metav1.Now()
	status := corev1.PodStatus{
		Phase: corev1.PodRunning, PodIP: address, PodIPs: []corev1.PodIP{{IP: address}},
		HostIP: "192.0.2.1", HostIPs: []corev1.HostIP{{IP: "192.0.2.1"}}, StartTime: &now, QOSClass: corev1.PodQOSBestEffort,
		ContainerStatuses: []corev1.ContainerStatus{{
			Name: "application", Ready: true, Started: new(true), Image: image,
			ImageID:     "registry.example/binder/application@sha256:" + digest(address),
			ContainerID: "containerd://" + digest("container"+address),
			State:       corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: now}},
		}},
	}
	for _, kind := range []corev1.PodConditionType{
		"PodReadyToStartContainers", corev1.PodInitialized, corev1.PodReady, corev1.ContainersReady, corev1.PodScheduled,
	} {
		status.Conditions = append(status.Conditions, corev1.PodCondition{Type: kind, Status: corev1.ConditionTrue, LastTransitionTime: now})
	}
	return status
}

// digest stands for the 64 hex digits of a SHA-256 digest.
func digest(of string) string {
	text := strconv.Quote(of)
	for len(text) < 32 {
		text += text
	}
	return fmt.Sprintf("%x", text[:32])
}
