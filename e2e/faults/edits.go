package faults

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	clientcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"

	"github.com/binder-project/binder-deploy-kubernetes/e2e/harness"
)

const (
	edits     = 100
	editEvery = 100 * time.Millisecond
	// bystanders are launched in addition to the load, and foreigners are pods that are not the
	// service's. Half of all instances are never edited.
	bystanders, foreigners = 16, 3
	// editedWithin bounds the end of an edited instance, once nobody uses it and what keeps it
	// is undone: a wrong time is replaced by now, and then its timeout and lag pass.
	editedWithin = 90 * time.Second

	finalizer = "e2e.binder-project.org/hand"
)

// editFaults are what people do to pods by hand.
func editFaults() []Fault {
	return []Fault{{
		Name: "a hundred edits of pods by hand", Make: editByHand, Hold: 5 * time.Second, Within: 30 * time.Second,
		Harmless: append(served(), Launches, Polls, Stops),
	}}
}

// editor edits pods by hand, and knows what it has edited.
type editor struct {
	world   *World
	pods    clientcorev1.PodInterface
	random  *rand.Rand
	spared  map[string]bool       // by id: true for instances that are never edited
	edited  map[string]corev1.Pod // the pods as they were before their first edit, by name
	foreign []string              // the names of pods that are not the service's
}

// editByHand edits pods at random: those of instances that are used, culled and stopped, and
// labels of pods that are not the service's.
func editByHand(ctx context.Context, w *World, random *rand.Rand) (func(context.Context) error, error) {
	e := &editor{
		world: w, pods: w.Suite.Kube.Client.CoreV1().Pods(harness.InstancesNamespace), random: random,
		spared: map[string]bool{}, edited: map[string]corev1.Pod{},
	}
	var launches sync.WaitGroup
	for range bystanders {
		launches.Go(func() {
			if id, ok := w.Load.launch(ctx, template, Idle, usedTimeout); ok {
				w.Load.awaitDeployed(ctx, template, id)
			}
		})
	}
	launches.Wait()
	if err := e.makeForeign(ctx); err != nil {
		return nil, err
	}
	for made := 0; made < edits && pause(ctx, editEvery); {
		done, err := e.edit(ctx)
		if err != nil {
			return e.giveBack, err
		}
		if done {
			made++
		}
	}
	return e.giveBack, ctx.Err()
}

// makeForeign makes pods that are not the service's, and so must be left alone.
func (e *editor) makeForeign(ctx context.Context) error {
	made, err := e.world.Suite.Kube.Client.CoreV1().PodTemplates(harness.InstancesNamespace).Get(ctx, template, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("read the template: %w", err)
	}
	for n := range foreigners {
		pod := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("foreign-", n), OwnerReferences: []metav1.OwnerReference{{
				APIVersion: "v1", Kind: "PodTemplate", Name: made.Name, UID: made.UID, Controller: new(true),
			}}},
			Spec: made.Template.Spec,
		}
		if _, err := e.pods.Create(ctx, pod, metav1.CreateOptions{}); err != nil {
			return fmt.Errorf("make a pod that is not the service's: %w", err)
		}
		e.foreign = append(e.foreign, pod.Name)
	}
	return nil
}

// edit edits one pod. done is false if no pod may be edited: the load launches more.
func (e *editor) edit(ctx context.Context) (done bool, err error) {
	var may, others []string
	for _, entry := range e.world.Ledger.Entries() {
		if entry.Deployed.IsZero() || !entry.Left.IsZero() || !entry.Told.IsZero() {
			continue
		}
		if _, known := e.spared[entry.ID]; !known {
			e.spared[entry.ID] = e.random.IntN(2) == 0
		}
		if e.spared[entry.ID] {
			others = append(others, entry.ID)
		} else {
			may = append(may, entry.ID)
		}
	}
	if len(may) == 0 || len(others) == 0 {
		return false, nil
	}
	other := pick(e.random, others)
	if e.random.IntN(10) == 0 {
		labels := map[string]any{idLabel: other, templateLabel: template}
		if e.random.IntN(2) == 0 { // the service leaves alone what another controller has made
			labels[managedByLabel] = "binder-deploy-kubernetes"
		}
		return true, e.patch(ctx, pick(e.random, e.foreign), metadata{"labels": labels})
	}
	id := pick(e.random, may)
	name := harness.PodName(id)
	pod, err := e.pods.Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read a pod: %w", err)
	}
	e.world.Ledger.Change(id, func(e *Entry) { e.Edited = true })
	if _, known := e.edited[name]; !known {
		e.edited[name] = *pod
	}
	patch := editOf(e.random, other, time.Now())
	if patch == nil {
		return true, ignoreGone(e.pods.Delete(ctx, name, *metav1.NewDeleteOptions(0)))
	}
	return true, e.patch(ctx, name, patch)
}

// metadata is a JSON merge patch of a pod's metadata.
type metadata map[string]any

func (e *editor) patch(ctx context.Context, name string, change metadata) error {
	data, err := json.Marshal(map[string]any{"metadata": change})
	if err != nil {
		return err
	}
	_, err = e.pods.Patch(ctx, name, types.MergePatchType, data, metav1.PatchOptions{})
	if apierrors.IsInvalid(err) { // a pod that is being deleted takes no finalizer
		return nil
	}
	return ignoreGone(err)
}

func ignoreGone(err error) error {
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("edit a pod: %w", err)
	}
	return nil
}

// editOf returns an edit at random; nil means that the pod is deleted without grace. other is
// the id of another instance.
func editOf(random *rand.Rand, other string, now time.Time) metadata {
	label := func(key string, value any) metadata {
		return metadata{"labels": map[string]any{key: value}}
	}
	annotation := func(key string, values ...any) metadata {
		return metadata{"annotations": map[string]any{key: pick(random, values)}}
	}
	times := []any{
		"garbage", "", nil, now.AddDate(100, 0, 0).Format(time.RFC3339), now.AddDate(-100, 0, 0).Format(time.RFC3339), now.Add(time.Hour).Format(time.RFC3339),
	}
	return pick(random, []metadata{
		label(idLabel, nil), label(idLabel, "garbage"), label(idLabel, fmt.Sprintf("%016x%016x", random.Uint64(), random.Uint64())), label(idLabel, other),
		label(templateLabel, nil), label(templateLabel, "garbage"),
		label(poolLabel, "warm"), label(poolLabel, "cold"),
		label(managedByLabel, nil), label(managedByLabel, "somebody"),
		annotation(lastActivity, times...), annotation(lastActivity, times...), annotation(launchedAt, times...),
		annotation(cullTimeout, "garbage", "", nil, "-5m", "0", "1ns", "100000h", "9999999999999h"),
		{"ownerReferences": []metav1.OwnerReference{{
			APIVersion: "v1", Kind: "ConfigMap", Name: "gone", UID: types.UID(fmt.Sprintf("%032x", random.Uint64())),
		}}},
		{"finalizers": []string{finalizer}},
		nil,
	})
}

func pick[T any](random *rand.Rand, from []T) T { return from[random.IntN(len(from))] }

// giveBack undoes what keeps or hides edited pods, and waits until all have ended. The
// pods that are not the service's must still be there.
func (e *editor) giveBack(ctx context.Context) error {
	var errs []error
	for name, before := range e.edited {
		change := metadata{
			"finalizers":  nil,
			"labels":      map[string]any{managedByLabel: before.Labels[managedByLabel]},
			"annotations": map[string]any{cullTimeout: before.Annotations[cullTimeout]},
		}
		errs = append(errs, e.patch(ctx, name, change))
		e.world.Ledger.Change(before.Labels[idLabel], func(e *Entry) { e.Unwanted = true })
	}
	left, err := e.awaitEnds(ctx)
	errs = append(errs, err)
	for _, pod := range left {
		e.world.Ledger.Complain("the pod %s, which was edited, has not ended within %s: labels %v, annotations %v, deleted at %v",
			pod.Name, editedWithin, pod.Labels, pod.Annotations, pod.DeletionTimestamp)
		errs = append(errs, ignoreGone(e.pods.Delete(ctx, pod.Name, *metav1.NewDeleteOptions(0))))
	}
	for _, name := range e.foreign {
		if pod, err := e.pods.Get(ctx, name, metav1.GetOptions{}); err != nil || pod.DeletionTimestamp != nil {
			e.world.Ledger.Complain("the pod %s is not the service's, and has been deleted: %v", name, err)
		}
		errs = append(errs, ignoreGone(e.pods.Delete(ctx, name, *metav1.NewDeleteOptions(0))))
	}
	return errors.Join(errs...)
}

// awaitEnds waits until the edited pods are gone, and returns those that are not in time.
func (e *editor) awaitEnds(ctx context.Context) (left []corev1.Pod, err error) {
	for until := time.Now().Add(editedWithin); ; pause(ctx, time.Second) {
		all, err := e.pods.List(ctx, metav1.ListOptions{})
		if err != nil {
			return nil, fmt.Errorf("list the pods: %w", err)
		}
		left = slices.DeleteFunc(all.Items, func(pod corev1.Pod) bool { return pod.UID != e.edited[pod.Name].UID })
		if len(left) == 0 || time.Now().After(until) {
			return left, nil
		}
	}
}
