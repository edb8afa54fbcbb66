package harness

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// startWait is how long a test waits for an instance to be deployed. It exceeds
// the start timeout, so that a failed start shows as a failed instance.
const startWait = StartTimeout + 10*time.Second

// LongTimeout is a cull timeout that no test reaches.
const LongTimeout = 30 * time.Minute

// Instance is a launched instance.
type Instance struct {
	suite    *Suite
	Template string
	ID       string
	Launched time.Time // just before the request
}

// Launch launches an instance and stops it when the test ends. timeout is its cull
// timeout; 0 means that the request has none.
func (s *Suite) Launch(t testing.TB, template string, timeout time.Duration) *Instance {
	t.Helper()
	return s.LaunchAt(t, s.API, template, timeout)
}

// LaunchAt is like Launch but sends the request to one replica.
func (s *Suite) LaunchAt(t testing.TB, api API, template string, timeout time.Duration) *Instance {
	t.Helper()
	request := map[string]any{"template-name": template}
	if timeout != 0 {
		request["cull-timeout"] = timeout.Milliseconds()
	}
	body, err := json.Marshal(request)
	if err != nil {
		t.Fatal(err)
	}
	launched := time.Now()
	var answer struct{ ID string }
	api.Do(t, http.MethodPost, "/applications/", string(body)).Decode(t, &answer)
	instance := s.Adopt(t, template, answer.ID)
	instance.Launched = launched
	return instance
}

// Adopt returns an instance that was launched by other means and stops it when the
// test ends.
func (s *Suite) Adopt(t testing.TB, template, id string) *Instance {
	t.Cleanup(func() {
		// The test's own context is already canceled.
		ctx, cancel := context.WithTimeout(context.Background(), requestTimeout)
		defer cancel()
		answer, err := s.API.Try(ctx, http.MethodDelete, "/applications/"+template+"/"+id, "", "Authorization", s.API.key)
		if err != nil || answer.Code != http.StatusOK {
			t.Errorf("stop %s: %v, %d %s", id, err, answer.Code, answer.Body)
		}
	})
	return &Instance{suite: s, Template: template, ID: id}
}

// Status returns the instance's status.
func (i *Instance) Status(t testing.TB) Status {
	t.Helper()
	return i.suite.API.Status(t, i.Template, i.ID)
}

// AwaitStatus waits until every replica reports the wanted status and returns it.
// Replicas learn of a change at slightly different times.
func (i *Instance) AwaitStatus(t testing.TB, within time.Duration, want string) Status {
	t.Helper()
	var got Status
	Until(t, within, "instance "+i.ID+" of "+i.Template, func(ctx context.Context) (err error) {
		got, err = i.suite.statusFromAll(ctx, i.Template, i.ID, func(s Status) bool { return s.Status == want })
		return err
	})
	return got
}

// AwaitEnd waits until the instance's pod is gone and every replica reports its
// tombstone with the given reason. While the pod exists, the reason is Deleting.
func (i *Instance) AwaitEnd(t testing.TB, within time.Duration, reason string) Status {
	t.Helper()
	var got Status
	Until(t, within, "instance "+i.ID+" of "+i.Template, func(ctx context.Context) (err error) {
		if err := i.suite.noPod(ctx, i); err != nil {
			return err
		}
		got, err = i.suite.statusFromAll(ctx, i.Template, i.ID, func(s Status) bool {
			return s.Status == "deleted" && s.Reason == reason
		})
		return err
	})
	return got
}

// AwaitDeployed waits until the instance is deployed.
func (i *Instance) AwaitDeployed(t testing.TB) *Instance {
	t.Helper()
	i.AwaitStatus(t, startWait, "deployed")
	return i
}

// URL returns the public URL of a path of the instance. path begins with a slash.
func (i *Instance) URL(path string) string { return "http://" + i.Location() + path }

// Location returns the location that the status of a deployed instance must have.
func (i *Instance) Location() string { return PublicHost + "/user/" + i.ID }

// Pod returns the instance's pod from the API server.
func (i *Instance) Pod(t testing.TB) *corev1.Pod {
	t.Helper()
	pod, err := i.suite.Kube.Client.CoreV1().Pods(InstancesNamespace).Get(t.Context(), i.PodName(), metav1.GetOptions{})
	if err != nil {
		t.Fatalf("get the pod of %s: %v", i.ID, err)
	}
	return pod
}

// PodName returns the name of the instance's pod, which is a hash of the id.
func (i *Instance) PodName() string { return PodName(i.ID) }

// PodName returns the name of the pod of an id.
func PodName(id string) string {
	return fmt.Sprintf("binder-%x", sha256.Sum256([]byte(id)))[:len("binder-")+32]
}

// statusFromAll returns an instance's status from the ready replicas. It returns an
// error if accept rejects the status of one of them.
func (s *Suite) statusFromAll(ctx context.Context, template, id string, accept func(Status) bool) (status Status, err error) {
	pods, err := s.replicaPods(ctx)
	if err != nil {
		return status, err
	}
	asked := 0
	for n := range pods {
		replica, ok := s.replica(&pods[n])
		if !ok {
			continue
		}
		asked++
		if status, err = replica.API.status(ctx, template, id); err != nil {
			return status, fmt.Errorf("replica %s: %w", replica.Name, err)
		}
		if !accept(status) {
			return status, fmt.Errorf("replica %s reports %+v", replica.Name, status)
		}
	}
	if asked == 0 {
		return status, errors.New("no replica is ready")
	}
	return status, nil
}

// noPod returns nil if the instance's pod is gone.
func (s *Suite) noPod(ctx context.Context, i *Instance) error {
	pod, err := s.Kube.Client.CoreV1().Pods(InstancesNamespace).Get(ctx, i.PodName(), metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return nil
	case err != nil:
		return err
	}
	return fmt.Errorf("pod %s still exists: phase %s, deletion timestamp %v", pod.Name, pod.Status.Phase, pod.DeletionTimestamp)
}
