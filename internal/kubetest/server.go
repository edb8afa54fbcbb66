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

// PodResource names the resource of pods.
var PodResource = corev1.SchemeGroupVersion.WithResource("pods")

// Server is client-go's fake API server. It adds behaviour that this service relies on
// and the fake lacks. A created object gets a creation time and a UID. Each write of a pod gives
// it a new resourceVersion. A write or delete that requires another resourceVersion or
// UID than the pod's is a conflict.
type Server struct {
	Client *fake.Clientset
	Now    func() time.Time

	version atomic.Int64
	written func() // called after each write; can be nil
}

// NewServer returns a Server that has some objects. now is its clock.
func NewServer(now func() time.Time, objects ...runtime.Object) *Server {
	s := &Server{Client: fake.NewClientset(objects...), Now: now}
	s.version.Store(1000)
	s.Client.PrependReactor("*", "*", s.answer)
	s.Client.PrependWatchReactor("*", s.watch)
	return s
}

// nextVersion returns a resourceVersion that is newer than all before it.
func (s *Server) nextVersion() string { return fmt.Sprint(s.version.Add(1)) }

// answer adds what client-go's fake lacks, and reports successful writes.
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

// complete sets the metadata that the API server gives a new object.
func (s *Server) complete(object runtime.Object) {
	if meta, ok := object.(metav1.Object); ok {
		meta.SetCreationTimestamp(metav1.NewTime(s.Now()))
		meta.SetUID(types.UID("uid-of-" + meta.GetName()))
		meta.SetResourceVersion(s.nextVersion())
	}
}

// patchPod applies a merge patch of labels, annotations, the active deadline, which can only
// become earlier, and scheduling gates, which can only be removed.
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
		Spec struct {
			ActiveDeadlineSeconds *int64
			SchedulingGates       []corev1.PodSchedulingGate
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
	if gates := body.Spec.SchedulingGates; gates != nil {
		if slices.ContainsFunc(gates, func(gate corev1.PodSchedulingGate) bool { return !slices.Contains(pod.Spec.SchedulingGates, gate) }) {
			return nil, apierrors.NewInvalid(corev1.SchemeGroupVersion.WithKind("Pod").GroupKind(), pod.Name, nil)
		}
		pod.Spec.SchedulingGates = gates
	}
	if deadline, now := body.Spec.ActiveDeadlineSeconds, pod.Spec.ActiveDeadlineSeconds; deadline != nil {
		if now != nil && *deadline > *now {
			return nil, apierrors.NewInvalid(corev1.SchemeGroupVersion.WithKind("Pod").GroupKind(), pod.Name, nil)
		}
		pod.Spec.ActiveDeadlineSeconds = deadline
	}
	pod.ResourceVersion = s.nextVersion()
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

// StoredPod returns a copy of the server's pod of a name.
func (s *Server) StoredPod(name string) (*corev1.Pod, error) {
	obj, err := s.Client.Tracker().Get(PodResource, Namespace, name)
	if err != nil {
		return nil, err
	}
	return obj.(*corev1.Pod).DeepCopy(), nil
}

// PutPod creates or replaces a pod, as the kubelet or another replica does. It returns
// the pod with its new resourceVersion.
func (s *Server) PutPod(t testing.TB, pod *corev1.Pod) *corev1.Pod {
	t.Helper()
	pod = pod.DeepCopy()
	pod.ResourceVersion = s.nextVersion()
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

// ChangePod changes a pod of the server, as the kubelet or another replica does.
func (s *Server) ChangePod(t testing.TB, name string, change func(*corev1.Pod)) *corev1.Pod {
	t.Helper()
	pod, err := s.StoredPod(name)
	if err != nil {
		t.Fatal(err)
	}
	change(pod)
	return s.PutPod(t, pod)
}

// DropPod removes a pod at once, as a forced deletion does.
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

// FailOn makes calls of a verb and a resource fail with an error, until the returned
// function is called.
func (s *Server) FailOn(verb, resource string, err error) (stop func()) {
	var stopped atomic.Bool
	s.React(verb, resource, func(k8stesting.Action) (bool, runtime.Object, error) { return !stopped.Load(), nil, err })
	return func() { stopped.Store(true) }
}

// React adds a reactor before all others. It can be called at any time.
func (s *Server) React(verb, resource string, reaction k8stesting.ReactionFunc) {
	s.Client.Lock()
	defer s.Client.Unlock()
	s.Client.PrependReactor(verb, resource, reaction)
}

// brokenWatch delivers nothing until Expire.
type brokenWatch struct{ *watch.RaceFreeFakeWatcher }

// BreakFirstPodWatch makes the first watch of pods deliver nothing.
func (s *Server) BreakFirstPodWatch() brokenWatch {
	broken := brokenWatch{watch.NewRaceFreeFake()}
	var watches atomic.Int64
	s.Client.PrependWatchReactor("pods", func(k8stesting.Action) (bool, watch.Interface, error) {
		return watches.Add(1) == 1, broken, nil
	})
	return broken
}

// Expire ends the watch as an API server without the history does. After a pause the
// client lists everything again and opens a new watch.
func (b brokenWatch) Expire() {
	status := apierrors.NewResourceExpired("too old resource version").Status()
	b.Error(&status)
}

// Calls are calls to the API server, in order. They print as verb, resource and name.
type Calls []k8stesting.Action

func (c Calls) String() string {
	var all []string
	for _, action := range c {
		all = append(all, fmt.Sprintf("%s %s %s", action.GetVerb(), action.GetResource().Resource, NameOf(action)))
	}
	return fmt.Sprintf("%q", all)
}

// NameOf returns the name of the object that a call is about; "" if there is none.
func NameOf(action k8stesting.Action) string {
	switch action := action.(type) {
	case k8stesting.CreateActionImpl:
		return action.Object.(metav1.Object).GetName()
	case interface{ GetName() string }:
		return action.GetName()
	}
	return ""
}

// Writes returns all calls so far that change something.
func (s *Server) Writes() Calls { return s.Calls("create", "update", "patch", "delete") }

// Calls returns all calls so far of some verbs, without dry runs.
func (s *Server) Calls(verbs ...string) Calls {
	return slices.DeleteFunc(s.Client.Actions(), func(action k8stesting.Action) bool {
		return !slices.Contains(verbs, action.GetVerb()) || IsDryRun(action)
	})
}

// WritesOf returns the names of the objects of a resource that clients wrote with a verb,
// in order. It includes writes that were refused.
func (s *Server) WritesOf(verb, resource string) []string {
	var names []string
	for _, action := range s.Calls(verb) {
		if action.GetResource().Resource == resource {
			names = append(names, NameOf(action))
		}
	}
	return names
}

// IsDryRun reports whether a call is a delete that changes nothing.
func IsDryRun(action k8stesting.Action) bool {
	deletion, ok := action.(k8stesting.DeleteActionImpl)
	return ok && len(deletion.DeleteOptions.DryRun) > 0
}

// Conflict returns the error for a write that requires another version of a pod.
func Conflict(podName string) error {
	return apierrors.NewConflict(PodResource.GroupResource(), podName, fmt.Errorf("the object has been modified"))
}

// NotFound returns the error for a pod that does not exist.
func NotFound(podName string) error {
	return apierrors.NewNotFound(PodResource.GroupResource(), podName)
}
