package queue

import (
	"context"
	"errors"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/util/workqueue"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kube"
)

// term is one term of leading. What it remembers ends with it.
type term struct {
	*Queue
	tries map[string]try // by id
}

// try is an attempt to give an instance its place, of which it is not known that it went well.
type try struct {
	version string    // of the pod, which the write named
	refused time.Time // when the API server has refused it; zero if it may yet have accepted it
}

// Run gives places for one term of leading: until ctx is done.
func (q *Queue) Run(ctx context.Context) {
	t := &term{q, map[string]try{}}
	if !t.takeOver(ctx) {
		return
	}
	look := time.NewTimer(0)
	defer look.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-q.changed:
		case <-look.C:
		}
		if t.pass(ctx) {
			look.Reset(lookAgain)
			select {
			case <-ctx.Done():
				return
			case <-time.After(passPause):
			}
		}
	}
}

// takeOver makes the cache have every place that the leader before has given, and sees to it that it
// can give no other. It reports false if the term has ended before that.
func (t *term) takeOver(ctx context.Context) bool {
	for wait := takeover; ; wait = lookAgain {
		select {
		case <-ctx.Done():
			return false
		case <-time.After(wait):
		}
		err := t.readPods(ctx)
		if err == nil {
			err = t.begin(ctx)
		}
		if err == nil {
			return true
		}
		t.deps.Log.WarnContext(ctx, "the queue could not be taken over, so no waiting instance is admitted yet; will be tried again", "error", err)
	}
}

// readPods reads all pods from the API server as they are now: the watch may be late.
func (t *term) readPods(ctx context.Context) error {
	opts := metav1.ListOptions{LabelSelector: instance.Selector().String(), Limit: pageSize}
	for {
		page, err := t.readPage(ctx, opts)
		if err != nil {
			return err
		}
		for i := range page.Items {
			t.deps.Cache.Wrote(&page.Items[i])
		}
		if opts.Continue = page.Continue; opts.Continue == "" {
			return nil
		}
	}
}

func (t *term) readPage(ctx context.Context, opts metav1.ListOptions) (*corev1.PodList, error) {
	ctx, cancel := context.WithTimeout(ctx, kube.WriteTimeout)
	defer cancel()
	return t.deps.Pods.List(ctx, opts)
}

// begin writes to the pods of all that wait. A write of the leader before that is still under way
// names an earlier version, so it fails from then on.
func (t *term) begin(ctx context.Context) error {
	waiting, _ := t.look(ctx)
	change := map[string]any{instance.QueueTermAnnotation: instance.FormatTime(t.deps.Now())}
	err := t.each(ctx, waiting, func(pod *corev1.Pod) (*corev1.Pod, error) {
		written, err := kube.Annotate(ctx, t.deps.Pods, pod, change)
		if apierrors.IsConflict(err) { // somebody else has written, which is as good, if it is known
			return t.readPod(ctx, pod.Name)
		}
		return written, err
	})
	clear(t.tries) // these gave nobody a place
	return err
}

// readPod reads a pod as it is now.
func (t *term) readPod(ctx context.Context, name string) (*corev1.Pod, error) {
	page, err := t.readPage(ctx, metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector(metav1.ObjectNameField, name).String()})
	if err != nil {
		return nil, err
	}
	for i := range page.Items {
		if page.Items[i].Name == name {
			return &page.Items[i], nil
		}
	}
	return nil, apierrors.NewNotFound(corev1.Resource("pods"), name)
}

// pass gives all places that are free. It reports whether somebody waits after that.
func (t *term) pass(ctx context.Context) (wait bool) {
	t.waits.Store(true) // so that a change after the look counts
	if !t.deps.Sure() {
		return true
	}
	waiting, room := t.look(ctx)
	waiting, unsure := t.settle(waiting, &room)
	d := Decide(waiting, room)
	admitted := append(unsure, d.Admitted...)
	err := t.each(ctx, admitted, func(pod *corev1.Pod) (*corev1.Pod, error) {
		if ctx.Err() != nil || !t.deps.Sure() { // the next leader could give the same place to another
			return nil, errors.New("this replica may not lead any more")
		}
		now := t.deps.Now()
		metadata, spec := instance.Admission(pod, now, t.deps.MaxAge(pod))
		writing, cancel := context.WithTimeout(ctx, kube.CreateTimeout)
		defer cancel()
		written, err := kube.PatchPod(writing, t.deps.Pods, pod, metadata, spec)
		if err == nil {
			t.deps.Admitted(instance.TemplateOf(pod), max(0, now.Sub(instance.LaunchedAt(pod))))
		}
		return written, err
	})
	if err != nil && ctx.Err() == nil {
		t.deps.Log.WarnContext(ctx, "some waiting instances were not admitted, will be tried again", "error", err)
	}
	wait = len(waiting) > len(d.Admitted) || len(t.tries) > 0
	t.waits.Store(wait)
	return wait
}

// settle returns the instances that can be admitted: a client has asked about them, and the API server has
// not just refused that. unsure are those that may have one already: the answer was lost, and the
// watch has not told yet. They hold it, and are tried again.
func (t *term) settle(all []Waiting, room *Room) (waiting, unsure []Waiting) {
	now, tries := t.deps.Now(), map[string]try{}
	for _, w := range all {
		last, tried := t.tries[w.ID]
		if tried = tried && last.version == w.version; tried {
			tries[w.ID] = last
		}
		switch {
		case tried && last.refused.IsZero():
			room.hold(w.Template)
			unsure = append(unsure, w)
		case tried && now.Sub(last.refused).Abs() < refusedPause:
		case t.hasLeft(w, now):
		default:
			waiting = append(waiting, w)
		}
	}
	t.tries = tries
	return waiting, unsure
}

// each writes to the pods of waiting instances, several at a time, and remembers which writes did not
// clearly go well. What has changed since somebody looked is left for the next look. The error is
// one of the writes that may go well later; those that are refused are only logged.
func (t *term) each(ctx context.Context, all []Waiting, write func(*corev1.Pod) (*corev1.Pod, error)) error {
	var mu sync.Mutex
	var failed error
	workqueue.ParallelizeUntil(ctx, kube.Writers, len(all), func(i int) {
		pod, exists := t.deps.Cache.Pod(all[i].ID)
		if !exists || pod.ResourceVersion != all[i].version || !instance.IsQueued(pod) {
			return
		}
		written, err := write(pod)
		if err == nil {
			t.deps.Cache.Wrote(written)
		}
		mu.Lock()
		defer mu.Unlock()
		switch changed := apierrors.IsConflict(err); {
		case err == nil:
			delete(t.tries, all[i].ID)
		case apierrors.IsNotFound(err):
			t.tries[all[i].ID] = try{pod.ResourceVersion, t.deps.Now()}
		case kube.IsRefused(err):
			t.tries[all[i].ID] = try{pod.ResourceVersion, t.deps.Now()}
			t.deps.Log.WarnContext(ctx, "the API server refuses to give an instance that waits its place; others come first", "pod", pod.Name, "template", all[i].Template, "error", err)
		default: // a conflict, too: the write before may have made it
			t.tries[all[i].ID] = try{version: pod.ResourceVersion}
			if !changed {
				failed = err
			}
		}
	})
	return failed
}
