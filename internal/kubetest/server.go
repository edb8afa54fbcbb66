package kubetest

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

var PodResource = corev1.SchemeGroupVersion.WithResource("pods")

// Server teaches client-go's fake what this service relies on in a real API
// server and the fake leaves out: a pod gets its creation time and UID, each
// write a new resourceVersion, and a write or delete that names another
// resourceVersion or UID than the pod's is a conflict.
type Server struct {
	Client  *fake.Clientset
	Now     func() time.Time
	version atomic.Int64
}

func NewServer(now func() time.Time, objects ...runtime.Object) *Server {
	s := &Server{Client: fake.NewClientset(objects...), Now: now}
	s.version.Store(1000)
	s.Client.PrependReactor("create", "pods", s.create)
	s.Client.PrependReactor("patch", "pods", s.patch)
	s.Client.PrependReactor("delete", "pods", s.delete)
	return s
}

func (s *Server) NextVersion() string { return fmt.Sprint(s.version.Add(1)) }

// create fills in the new pod and leaves the rest to client-go's fake.
func (s *Server) create(action k8stesting.Action) (bool, runtime.Object, error) {
	pod := action.(k8stesting.CreateAction).GetObject().(*corev1.Pod)
	pod.CreationTimestamp = metav1.NewTime(s.Now())
	pod.UID = types.UID("uid-of-" + pod.Name)
	pod.ResourceVersion = s.NextVersion()
	return false, nil, nil
}

func (s *Server) patch(action k8stesting.Action) (bool, runtime.Object, error) {
	patch := action.(k8stesting.PatchAction)
	pod, err := s.StoredPod(patch.GetName())
	if err != nil {
		return true, nil, err
	}
	read := pod.ResourceVersion
	if err := json.Unmarshal(patch.GetPatch(), pod); err != nil { // a merge patch that removes nothing
		return true, nil, err
	}
	if pod.ResourceVersion != read {
		return true, nil, Conflict(pod.Name)
	}
	pod.ResourceVersion = s.NextVersion()
	return true, pod, s.Client.Tracker().Update(PodResource, pod, Namespace)
}

// delete checks the preconditions and leaves the rest to client-go's fake, but for
// one that is only to be tried.
func (s *Server) delete(action k8stesting.Action) (bool, runtime.Object, error) {
	deletion := action.(k8stesting.DeleteActionImpl)
	pod, err := s.StoredPod(deletion.GetName())
	if err != nil {
		return true, nil, err
	}
	if only := deletion.DeleteOptions.Preconditions; only != nil {
		if only.UID != nil && *only.UID != pod.UID || only.ResourceVersion != nil && *only.ResourceVersion != pod.ResourceVersion {
			return true, nil, Conflict(pod.Name)
		}
	}
	return IsDryRun(action), nil, nil
}

func (s *Server) StoredPod(name string) (*corev1.Pod, error) {
	obj, err := s.Client.Tracker().Get(PodResource, Namespace, name)
	if err != nil {
		return nil, err
	}
	return obj.(*corev1.Pod), nil
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
