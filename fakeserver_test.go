package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/fake"
	k8stesting "k8s.io/client-go/testing"
)

var podResource = corev1.SchemeGroupVersion.WithResource("pods")

// fakeServer teaches client-go's fake what this service relies on in a real API
// server and the fake leaves out: a pod gets its creation time and UID, each
// write a new resourceVersion, and a write or delete that names another
// resourceVersion or UID than the pod's is a conflict.
type fakeServer struct {
	client  *fake.Clientset
	now     func() time.Time
	version atomic.Int64
}

func newFakeServer(now func() time.Time, objects ...runtime.Object) *fakeServer {
	s := &fakeServer{client: fake.NewClientset(objects...), now: now}
	s.version.Store(1000)
	s.client.PrependReactor("create", "pods", s.create)
	s.client.PrependReactor("patch", "pods", s.patch)
	s.client.PrependReactor("delete", "pods", s.delete)
	return s
}

func (s *fakeServer) nextVersion() string { return fmt.Sprint(s.version.Add(1)) }

// create fills in the new pod and leaves the rest to client-go's fake.
func (s *fakeServer) create(action k8stesting.Action) (bool, runtime.Object, error) {
	pod := action.(k8stesting.CreateAction).GetObject().(*corev1.Pod)
	pod.CreationTimestamp = metav1.NewTime(s.now())
	pod.UID = types.UID("uid-of-" + pod.Name)
	pod.ResourceVersion = s.nextVersion()
	return false, nil, nil
}

func (s *fakeServer) patch(action k8stesting.Action) (bool, runtime.Object, error) {
	patch := action.(k8stesting.PatchAction)
	pod, err := s.pod(patch.GetName())
	if err != nil {
		return true, nil, err
	}
	read := pod.ResourceVersion
	if err := json.Unmarshal(patch.GetPatch(), pod); err != nil { // a merge patch that removes nothing
		return true, nil, err
	}
	if pod.ResourceVersion != read {
		return true, nil, conflict(pod.Name)
	}
	pod.ResourceVersion = s.nextVersion()
	return true, pod, s.client.Tracker().Update(podResource, pod, testNamespace)
}

// delete checks the preconditions and leaves the rest to client-go's fake, but for
// one that is only to be tried.
func (s *fakeServer) delete(action k8stesting.Action) (bool, runtime.Object, error) {
	deletion := action.(k8stesting.DeleteActionImpl)
	pod, err := s.pod(deletion.GetName())
	if err != nil {
		return true, nil, err
	}
	if only := deletion.DeleteOptions.Preconditions; only != nil {
		if only.UID != nil && *only.UID != pod.UID || only.ResourceVersion != nil && *only.ResourceVersion != pod.ResourceVersion {
			return true, nil, conflict(pod.Name)
		}
	}
	return isDryRun(action), nil, nil
}

func (s *fakeServer) pod(name string) (*corev1.Pod, error) {
	obj, err := s.client.Tracker().Get(podResource, testNamespace, name)
	if err != nil {
		return nil, err
	}
	return obj.(*corev1.Pod), nil
}

// failOn makes calls of a verb and a resource end with an error, until the
// function it returns is called.
func (s *fakeServer) failOn(verb, resource string, err error) (mend func()) {
	var mended atomic.Bool
	s.react(verb, resource, func(k8stesting.Action) (bool, runtime.Object, error) { return !mended.Load(), nil, err })
	return func() { mended.Store(true) }
}

// react puts a reactor before all others, at any time.
func (s *fakeServer) react(verb, resource string, reaction k8stesting.ReactionFunc) {
	s.client.Lock()
	defer s.client.Unlock()
	s.client.PrependReactor(verb, resource, reaction)
}

// brokenWatch is a watch that brings nothing of what happens.
type brokenWatch struct{ *watch.RaceFreeFakeWatcher }

// breakFirstPodWatch makes the first watch of pods a broken one.
func (s *fakeServer) breakFirstPodWatch() brokenWatch {
	broken := brokenWatch{watch.NewRaceFreeFake()}
	var watches atomic.Int64
	s.client.PrependWatchReactor("pods", func(k8stesting.Action) (bool, watch.Interface, error) {
		return watches.Add(1) == 1, broken, nil
	})
	return broken
}

// expire ends the watch as an API server does that has lost the history: all is
// read again, after a pause, and watched anew.
func (b brokenWatch) expire() {
	status := apierrors.NewResourceExpired("too old resource version").Status()
	b.Error(&status)
}

// calls are calls of the API server, in order. They print as what they were.
type calls []k8stesting.Action

func (c calls) String() string {
	var all []string
	for _, action := range c {
		all = append(all, fmt.Sprintf("%s %s %s", action.GetVerb(), action.GetResource().Resource, nameOf(action)))
	}
	return fmt.Sprintf("%q", all)
}

// nameOf is of which object a call was.
func nameOf(action k8stesting.Action) string {
	switch action := action.(type) {
	case k8stesting.CreateActionImpl:
		return action.Object.(metav1.Object).GetName()
	case interface{ GetName() string }:
		return action.GetName()
	}
	return ""
}

// writes are the calls so far that change something.
func (s *fakeServer) writes() calls { return s.calls("create", "update", "patch", "delete") }

// calls are those so far of some verbs.
func (s *fakeServer) calls(verbs ...string) calls {
	return slices.DeleteFunc(s.client.Actions(), func(action k8stesting.Action) bool {
		return !slices.Contains(verbs, action.GetVerb()) || isDryRun(action)
	})
}

// isDryRun tells of a delete that it is only to be tried, and changes nothing.
func isDryRun(action k8stesting.Action) bool {
	deletion, ok := action.(k8stesting.DeleteActionImpl)
	return ok && len(deletion.DeleteOptions.DryRun) > 0
}

func conflict(podName string) error {
	return apierrors.NewConflict(podResource.GroupResource(), podName, fmt.Errorf("the object has been modified"))
}

func notFound(podName string) error {
	return apierrors.NewNotFound(podResource.GroupResource(), podName)
}
