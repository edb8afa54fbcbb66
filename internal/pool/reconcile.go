package pool

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/workqueue"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kube"
	"github.com/binder-project/binder-deploy-kubernetes/internal/podtemplate"
)

// reconcile gives a template the warm pods that it asks for, and returns when to look
// again. A template whose pods fail or are refused is no error: its pool pauses. An
// error is the API server's.
func (t *term) reconcile(ctx context.Context, name string) (again time.Duration, err error) {
	template, err := t.deps.Cache.Template(ctx, name)
	if err != nil && !errors.Is(err, podtemplate.ErrUnknown) {
		return 0, err
	}
	before := t.recall(name)
	seen, size := t.look(name, template, before)
	todo := planPool(seen, t.deps.Now(), t.deps.StartTimeout)
	refused, err := t.carryOut(ctx, template, todo)
	if refused != nil {
		todo.failures = todo.failures.withOneMore(t.deps.Now())
		todo.lookAgain = min(todo.lookAgain, todo.failures.pause())
	}
	if todo.failures.last.After(before.failures.last) {
		t.reportFailure(ctx, name, todo.failures, refused)
	}
	t.remember(name, memory{todo.failures, todo.demand, size})
	return todo.lookAgain, err
}

// look gathers what planPool decides by. template is nil if there is none of the name.
// A template whose pool size is not valid has no pool; an Event on it says so.
func (t *term) look(name string, template *corev1.PodTemplate, before memory) (v view, size sized) {
	v = view{pods: t.deps.Cache.WarmPods(name), failures: before.failures, demand: before.demand, warnings: t.deps.Cache.Warnings}
	if template == nil {
		return v, sized{}
	}
	v.hash = podtemplate.Hash(template)
	bounds, _ := podtemplate.PoolSize(template) // 0 with an error
	if bounds.IsFixed() {
		v.size = bounds.Most
		return v, sized{}
	}
	size = before.sized.next(t.deps.Cache, template, t.deps.Now())
	v.size, v.spare, v.follows = bounds.Within(size.size), spare(size.size), true
	return v, size
}

// reportFailure tells of a failure that made the pool pause. refused is the cause if
// a pod was refused; otherwise pods have failed.
func (t *term) reportFailure(ctx context.Context, name string, f failures, refused error) {
	t.deps.Metrics.PoolFailed(name)
	log := t.deps.Log.With("template", name, "failures", f.count, "pause", f.pause().String())
	if refused != nil {
		log = log.With("error", refused)
	}
	log.WarnContext(ctx, "warm pods fail, the pool does not grow for a while")
}

// carryOut does what a plan says, several writes at the same time. refused says why
// a pod of this template cannot be created. err is the first error of another kind.
func (t *term) carryOut(ctx context.Context, template *corev1.PodTemplate, todo plan) (refused, err error) {
	pods, err := t.newPods(template, todo.create)
	if errors.As(err, new(*podtemplate.Error)) {
		refused, err = err, nil
	}
	var mu sync.Mutex
	workqueue.ParallelizeUntil(ctx, kube.Writers, len(todo.remove)+len(pods), func(i int) {
		var failed error
		if i < len(todo.remove) {
			failed = t.remove(ctx, todo.remove[i])
		} else {
			failed = t.create(ctx, pods[i-len(todo.remove)])
		}
		mu.Lock()
		defer mu.Unlock()
		switch {
		case failed == nil:
		case errors.As(failed, new(*podtemplate.Error)):
			refused = failed
		case err == nil:
			err = failed
		}
	})
	return refused, err
}

// newPods makes warm pods of a template: all of them, or none and why not.
func (t *term) newPods(template *corev1.PodTemplate, number int) ([]*corev1.Pod, error) {
	var pods []*corev1.Pod
	for range number {
		id, err := instance.NewID(t.deps.Random)
		if err != nil {
			return nil, err
		}
		token, err := instance.NewToken(t.deps.Random)
		if err != nil {
			return nil, err
		}
		pod, err := podtemplate.NewPod(template, id, token)
		if err != nil {
			return nil, notKeptWarm(template.Name, err)
		}
		pod.Labels[instance.PoolLabel] = instance.PoolWarm
		pods = append(pods, pod)
	}
	return pods, nil
}

// create adds a pod to a pool.
func (t *term) create(ctx context.Context, pod *corev1.Pod) error {
	ctx, cancel := context.WithTimeout(ctx, kube.WriteTimeout)
	defer cancel()
	template := instance.TemplateOf(pod)
	created, err := kube.CreatePod(ctx, t.deps.Pods, pod)
	switch {
	case apierrors.IsAlreadyExists(err):
		// The id is random, so an attempt whose answer got lost created it. The watch
		// will deliver it.
		return nil
	case kube.IsRefused(err):
		return notKeptWarm(template, err)
	case err != nil:
		return fmt.Errorf("create warm pod %s: %w", pod.Name, err)
	}
	t.deps.Cache.Wrote(created)
	t.deps.Log.DebugContext(ctx, "warm pod created", "pod", pod.Name, "template", template)
	return nil
}

// remove deletes a warm pod, unless it has changed since it was read: it may have
// been claimed. It needs no tombstone, because nobody knows its id.
func (t *term) remove(ctx context.Context, r removal) error {
	ctx, cancel := context.WithTimeout(ctx, kube.WriteTimeout)
	defer cancel()
	pod := r.pod
	log := t.deps.Log.With("pod", pod.Name, "template", instance.TemplateOf(pod), "reason", r.reason)
	only := metav1.NewUIDPreconditions(string(pod.UID))
	only.ResourceVersion = &pod.ResourceVersion
	err := t.deps.Pods.Delete(ctx, pod.Name, metav1.DeleteOptions{Preconditions: only})
	if apierrors.IsConflict(err) {
		log.DebugContext(ctx, "warm pod not deleted, it has changed") // the watch brings it again
		return nil
	}
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("delete warm pod %s: %w", pod.Name, err)
	}
	now := t.deps.Now()
	t.deps.Cache.Wrote(instance.Deleted(pod, now))
	if r.reason == removeFailed {
		inst := instance.FromPod(pod, t.deps.Cache.Warnings(pod), now, t.deps.StartTimeout)
		log = log.With("cause", inst.Reason, "fault", inst.Fault, "message", inst.Message, "detail", inst.Detail)
	}
	log.InfoContext(ctx, "warm pod deleted")
	return nil
}

// notKeptWarm is the error of a template whose pods cannot be made, or are refused by
// the API server: by validation, pod security or a quota.
func notKeptWarm(template string, err error) error {
	return &podtemplate.Error{Template: template, Use: "kept warm", Err: err}
}
