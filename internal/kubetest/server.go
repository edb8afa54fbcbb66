package kubetest

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"sync/atomic"
	"testing"
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

// PodResource is the resource of pods.
var PodResource = corev1.SchemeGroupVersion.WithResource("pods")

// Server teaches client-go's fake what this service relies on in a real API server
// and the fake leaves out: a created object gets its creation time and UID, each
// write of a pod a new resourceVersion, and a write or delete that names another
// resourceVersion or UID than the pod's is a conflict.
type Server struct {
	Client *fake.Clientset
	Now    func() time.Time

	version atomic.Int64
	written func() // called after each write; nil for nobody
}

// NewServer returns a fake API server with objects in it.
func NewServer(now func() time.Time, objects ...runtime.Object) *Server {
	s := &Server{Client: fake.NewClientset(objects...), Now: now}
	s.version.Store(1000)
	s.Client.PrependReactor("*", "*", s.answer)
	return s
}

// NextVersion returns a resourceVersion that is newer than all before it.
func (s *Server) NextVersion() string { return fmt.Sprint(s.version.Add(1)) }

// answer does what client-go's fake leaves out, lets that do the rest, and tells of
// writes.
func (s *Server) answer(action k8stesting.Action) (handled bool, result runtime.Object, err error) {
	switch action := action.(type) {
	case k8stesting.CreateActionImpl:
		s.complete(action.GetObject())
	case k8stesting.PatchActionImpl:
		if action.Matches("patch", "pods") {
			if result, err = s.patchPod(action); err == nil {
				s.notify()
			}
			return true, result, err
		}
	case k8stesting.DeleteActionImpl:
		if action.Matches("delete", "pods") {
			if err := s.checkPreconditions(action); err != nil || IsDryRun(action) {
				return true, nil, err
			}
		}
	}
	handled, result, err = k8stesting.ObjectReaction(s.Client.Tracker())(action)
	if err == nil && isWrite(action) {
		s.notify()
	}
	return handled, result, err
}

func (s *Server) notify() {
	if s.written != nil {
		s.written()
	}
}

// complete fills in what the API server gives to a new object.
func (s *Server) complete(object runtime.Object) {
	if meta, ok := object.(metav1.Object); ok {
		meta.SetCreationTimestamp(metav1.NewTime(s.Now()))
		meta.SetUID(types.UID("uid-of-" + meta.GetName()))
		meta.SetResourceVersion(s.NextVersion())
	}
}

// patchPod applies a merge patch of labels and annotations.
func (s *Server) patchPod(patch k8stesting.PatchActionImpl) (*corev1.Pod, error) {
	pod, err := s.StoredPod(patch.GetName())
	if err != nil {
		return nil, err
	}
	var body struct {
		Metadata struct {
			ResourceVersion     string
			Labels, Annotations map[string]*string
		}
	}
	if err := json.Unmarshal(patch.GetPatch(), &body); err != nil {
		return nil, err
	}
	if named := body.Metadata.ResourceVersion; named != "" && named != pod.ResourceVersion {
		return nil, Conflict(pod.Name)
	}
	pod.Labels = merge(pod.Labels, body.Metadata.Labels)
	pod.Annotations = merge(pod.Annotations, body.Metadata.Annotations)
	pod.ResourceVersion = s.NextVersion()
	return pod, s.Client.Tracker().Update(PodResource, pod, pod.Namespace)
}

// merge is a JSON merge patch (RFC 7396): null removes.
func merge(into map[string]string, patch map[string]*string) map[string]string {
	into = maps.Clone(into)
	for key, value := range patch {
		switch {
		case value == nil:
			delete(into, key)
		case into == nil:
			into = map[string]string{key: *value}
		default:
			into[key] = *value
		}
	}
	return into
}

func (s *Server) checkPreconditions(deletion k8stesting.DeleteActionImpl) error {
	pod, err := s.StoredPod(deletion.GetName())
	if err != nil {
		return err
	}
	only := deletion.DeleteOptions.Preconditions
	if only == nil {
		return nil
	}
	if only.UID != nil && *only.UID != pod.UID || only.ResourceVersion != nil && *only.ResourceVersion != pod.ResourceVersion {
		return Conflict(pod.Name)
	}
	return nil
}

// StoredPod returns a copy of the pod that the server has under a name.
func (s *Server) StoredPod(name string) (*corev1.Pod, error) {
	obj, err := s.Client.Tracker().Get(PodResource, Namespace, name)
	if err != nil {
		return nil, err
	}
	return obj.(*corev1.Pod).DeepCopy(), nil
}

// PutPod creates or replaces a pod under a new resourceVersion, as the kubelet or
// another replica does.
func (s *Server) PutPod(t testing.TB, pod *corev1.Pod) *corev1.Pod {
	t.Helper()
	pod = pod.DeepCopy()
	pod.ResourceVersion = s.NextVersion()
	tracker := s.Client.Tracker()
	err := tracker.Update(PodResource, pod, pod.Namespace)
	if apierrors.IsNotFound(err) {
		err = tracker.Add(pod)
	}
	if err != nil {
		t.Fatal(err)
	}
	s.notify()
	return pod
}

// ChangePod changes a pod that the server has, as the kubelet or another replica
// does.
func (s *Server) ChangePod(t testing.TB, name string, change func(*corev1.Pod)) *corev1.Pod {
	t.Helper()
	pod, err := s.StoredPod(name)
	if err != nil {
		t.Fatal(err)
	}
	change(pod)
	return s.PutPod(t, pod)
}

// DropPod takes a pod away, as kubectl or an eviction does.
func (s *Server) DropPod(t testing.TB, name string) {
	t.Helper()
	if err := s.Client.Tracker().Delete(PodResource, Namespace, name); err != nil {
		t.Fatal(err)
	}
	s.notify()
}

func isWrite(action k8stesting.Action) bool {
	return slices.Contains([]string{"create", "update", "patch", "delete"}, action.GetVerb())
}

// FailOn makes calls of a verb and a resource end with an error, until the
// function it returns is called.
func (s *Server) FailOn(verb, resource string, err error) (mend func()) {
	var mended atomic.Bool
	s.React(verb, resource, func(k8stesting.Action) (bool, runtime.Object, error) { return !mended.Load(), nil, err })
	return func() { mended.Store(true) }
}

// React puts a reactor before all others, at any time.
func (s *Server) React(verb, resource string, reaction k8stesting.ReactionFunc) {
	s.Client.Lock()
	defer s.Client.Unlock()
	s.Client.PrependReactor(verb, resource, reaction)
}

// brokenWatch is a watch that brings nothing of what happens.
type brokenWatch struct{ *watch.RaceFreeFakeWatcher }

// BreakFirstPodWatch makes the first watch of pods a broken one.
func (s *Server) BreakFirstPodWatch() brokenWatch {
	broken := brokenWatch{watch.NewRaceFreeFake()}
	var watches atomic.Int64
	s.Client.PrependWatchReactor("pods", func(k8stesting.Action) (bool, watch.Interface, error) {
		return watches.Add(1) == 1, broken, nil
	})
	return broken
}

// Expire ends the watch as an API server does that has lost the history: all is
// read again, after a pause, and watched anew.
func (b brokenWatch) Expire() {
	status := apierrors.NewResourceExpired("too old resource version").Status()
	b.Error(&status)
}

// Calls are calls of the API server, in order. They print as what they were.
type Calls []k8stesting.Action

func (c Calls) String() string {
	var all []string
	for _, action := range c {
		all = append(all, fmt.Sprintf("%s %s %s", action.GetVerb(), action.GetResource().Resource, NameOf(action)))
	}
	return fmt.Sprintf("%q", all)
}

// NameOf is of which object a call was.
func NameOf(action k8stesting.Action) string {
	switch action := action.(type) {
	case k8stesting.CreateActionImpl:
		return action.Object.(metav1.Object).GetName()
	case interface{ GetName() string }:
		return action.GetName()
	}
	return ""
}

// Writes are the calls so far that change something.
func (s *Server) Writes() Calls { return s.Calls("create", "update", "patch", "delete") }

// Calls are those so far of some verbs.
func (s *Server) Calls(verbs ...string) Calls {
	return slices.DeleteFunc(s.Client.Actions(), func(action k8stesting.Action) bool {
		return !slices.Contains(verbs, action.GetVerb()) || IsDryRun(action)
	})
}

// IsDryRun tells of a delete that it is only to be tried, and changes nothing.
func IsDryRun(action k8stesting.Action) bool {
	deletion, ok := action.(k8stesting.DeleteActionImpl)
	return ok && len(deletion.DeleteOptions.DryRun) > 0
}

func Conflict(podName string) error {
	return apierrors.NewConflict(PodResource.GroupResource(), podName, fmt.Errorf("the object has been modified"))
}

func NotFound(podName string) error {
	return apierrors.NewNotFound(PodResource.GroupResource(), podName)
}
