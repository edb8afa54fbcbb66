package world

import (
	"context"
	"crypto/rand"
	"fmt"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/apimachinery/pkg/util/wait"
)

const (
	// Launched is how many instances the service launches. More are only counted, listed
	// and kept in memory, and copies do for that.
	Launched = 1000

	idLabel            = "binder-project.org/id"
	tokenAnnotation    = "binder-project.org/token"
	launchedAnnotation = "binder-project.org/launched"
	activityAnnotation = "binder-project.org/last-activity"
	timeLayout         = "2006-01-02T15:04:05.000Z07:00"
)

// Copy adds copies of the newest instance until there are size instances,
// and the API server has them all.
func (w *World) Copy(ctx context.Context, size int) error {
	if size <= len(w.ids) {
		return nil
	}
	original := w.newest
	err := w.add(ctx, size, changers, func(ctx context.Context, number int) (*corev1.Pod, error) {
		pod := copyOf(original, randomHex(), number)
		return pod, w.store.put(ctx, pod)
	})
	if err != nil {
		return fmt.Errorf("copy an instance: %w", err)
	}
	return w.awaitStore(ctx)
}

// copyOf returns a pod as the API server stores it, which differs from the original in
// what each instance has of its own.
func copyOf(original *corev1.Pod, id string, number int) *corev1.Pod {
	pod, token, address := original.DeepCopy(), randomHex(), Address(number)
	pod.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}
	pod.Name, pod.UID, pod.CreationTimestamp = podName(id), uuid.NewUUID(), metav1.Now()
	pod.ResourceVersion = "" // etcd's revision stands for it
	own := strings.NewReplacer(original.Labels[idLabel], id, original.Annotations[tokenAnnotation], token)
	pod.Labels[idLabel], pod.Annotations[tokenAnnotation] = id, token
	now := time.Now().UTC().Format(timeLayout)
	pod.Annotations[launchedAnnotation], pod.Annotations[activityAnnotation] = now, now
	for _, container := range pod.Spec.Containers {
		for i, variable := range container.Env {
			container.Env[i].Value = own.Replace(variable.Value)
		}
	}
	pod.Status.PodIP, pod.Status.PodIPs = address, []corev1.PodIP{{IP: address}}
	return pod
}

// awaitStore waits until the API server has seen all changes in etcd. Until then, it would
// answer a replica that starts from its cache, without the newest.
func (w *World) awaitStore(ctx context.Context) error {
	newest := metav1.GetOptions{ResourceVersion: strconv.FormatInt(w.store.changed, 10)}
	err := wait.PollUntilContextTimeout(ctx, podsPoll, podsTimeout, true, func(ctx context.Context) (bool, error) {
		_, err := w.Client.CoreV1().Pods(Namespace).Get(ctx, "none", newest)
		if apierrors.IsTimeout(err) { // it waits for a few seconds only
			return false, nil
		}
		return true, ignoreGone(err)
	})
	if err != nil {
		return fmt.Errorf("wait until the API server has seen what etcd has: %w", err)
	}
	return nil
}

// randomHex returns 32 random digits, as ids and tokens are.
func randomHex() string {
	var random [16]byte
	_, _ = rand.Read(random[:]) // it never fails
	return fmt.Sprintf("%x", random)
}
