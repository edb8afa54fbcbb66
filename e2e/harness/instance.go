package harness

import (
	"context"
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

// startWait is how long a test waits for an instance to be deployed: longer
// than the start timeout, so that what did not start says so itself.
const startWait = StartTimeout + 10*time.Second

// LongTimeout is for instances whose culling is not what a test is about.
const LongTimeout = 30 * time.Minute

// Instance is something that was launched.
type Instance struct {
	suite    *Suite
	Template string
	ID       string
	Launched time.Time // just before the request
}

// Launch starts an instance, which is stopped when the test ends. timeout is
// its cull timeout; 0 sends none.
func (s *Suite) Launch(t testing.TB, template string, timeout time.Duration) *Instance {
	t.Helper()
	return s.LaunchAt(t, s.API, template, timeout)
}

// LaunchAt does so through one replica.
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

// Adopt is for an instance that was launched by other means: it is stopped when
// the test ends.
func (s *Suite) Adopt(t testing.TB, template, id string) *Instance {
	t.Cleanup(func() {
		// The test's own context is over by now.
		ctx, cancel := context.WithTimeout(context.Background(), requestTimeout)
		defer cancel()
		answer, err := s.API.do(ctx, http.MethodDelete, "/applications/"+template+"/"+id, "", "Authorization", s.API.key)
		if err != nil || answer.Code != http.StatusOK {
			t.Errorf("stop %s: %v, %d %s", id, err, answer.Code, answer.Body)
		}
	})
	return &Instance{suite: s, Template: template, ID: id}
}

// Status asks for the instance's status.
func (i *Instance) Status(t testing.TB) Status {
	t.Helper()
	return i.suite.API.Status(t, i.Template, i.ID)
}

// AwaitStatus waits until every replica says that the instance has a status, and
// returns it. One may hear of a change a moment after the other.
func (i *Instance) AwaitStatus(t testing.TB, within time.Duration, want string) Status {
	t.Helper()
	var got Status
	Until(t, within, "instance "+i.ID+" of "+i.Template, func(ctx context.Context) (err error) {
		got, err = i.suite.everyStatus(ctx, i.Template, i.ID, func(s Status) bool { return s.Status == want })
		return err
	})
	return got
}

// AwaitEnd waits until nothing is left of the instance but its tombstone, with a
// reason. Until its pod is gone, a deleted instance's reason is Deleting.
func (i *Instance) AwaitEnd(t testing.TB, within time.Duration, reason string) Status {
	t.Helper()
	var got Status
	Until(t, within, "instance "+i.ID+" of "+i.Template, func(ctx context.Context) (err error) {
		if err := i.suite.noPod(ctx, i); err != nil {
			return err
		}
		got, err = i.suite.everyStatus(ctx, i.Template, i.ID, func(s Status) bool {
			return s.Status == "deleted" && s.Reason == reason
		})
		return err
	})
	return got
}

// AwaitDeployed waits until the instance can be visited.
func (i *Instance) AwaitDeployed(t testing.TB) *Instance {
	t.Helper()
	i.AwaitStatus(t, startWait, "deployed")
	return i
}

// URL is where a visitor finds a path of the instance; path begins with a slash.
func (i *Instance) URL(path string) string { return "http://" + i.Location() + path }

// Location is what a status should say, once the instance is deployed.
func (i *Instance) Location() string { return PublicHost + "/user/" + i.ID }

// Pod is the instance's pod as the API server has it.
func (i *Instance) Pod(t testing.TB) *corev1.Pod {
	t.Helper()
	pod, err := i.suite.Kube.Client.CoreV1().Pods(InstancesNamespace).Get(t.Context(), i.PodName(), metav1.GetOptions{})
	if err != nil {
		t.Fatalf("get the pod of %s: %v", i.ID, err)
	}
	return pod
}

// PodName is the name of the instance's pod.
func (i *Instance) PodName() string { return "binder-" + i.ID }

// everyStatus asks each replica that is ready for an instance. It is an error if
// one of them says what is not good.
func (s *Suite) everyStatus(ctx context.Context, template, id string, good func(Status) bool) (status Status, err error) {
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
		if !good(status) {
			return status, fmt.Errorf("replica %s says %+v", replica.Name, status)
		}
	}
	if asked == 0 {
		return status, errors.New("no replica is ready")
	}
	return status, nil
}

// noPod returns nil when the instance's pod is gone.
func (s *Suite) noPod(ctx context.Context, i *Instance) error {
	pod, err := s.Kube.Client.CoreV1().Pods(InstancesNamespace).Get(ctx, i.PodName(), metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return nil
	case err != nil:
		return err
	}
	return fmt.Errorf("pod %s is still there: phase %s, to be deleted at %v", pod.Name, pod.Status.Phase, pod.DeletionTimestamp)
}
