//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/binder-project/binder-deploy-kubernetes/e2e/harness"
)

const (
	poolSizeAnnotation = "binder-project.org/pool-size"
	// poolWait bounds the start of a dozen pods on a busy machine.
	poolWait = time.Minute
)

// warmPods returns a template's warm pods that are not being deleted.
func warmPods(ctx context.Context, template string) ([]corev1.Pod, error) {
	pods, err := suite.Kube.Client.CoreV1().Pods(harness.InstancesNamespace).List(ctx, metav1.ListOptions{
		LabelSelector: "binder-project.org/pool=warm,binder-project.org/template=" + template,
	})
	if err != nil {
		return nil, fmt.Errorf("list warm pods: %w", err)
	}
	return slices.DeleteFunc(pods.Items, func(pod corev1.Pod) bool { return pod.DeletionTimestamp != nil }), nil
}

// awaitWarm waits until a template has the wanted number of warm pods, all of them
// ready and accepted. It returns them by UID.
func awaitWarm(t *testing.T, template string, want int, accept func(corev1.Pod) bool) map[types.UID]corev1.Pod {
	t.Helper()
	var byUID map[types.UID]corev1.Pod
	harness.Until(t, poolWait, "the pool of "+template, func(ctx context.Context) error {
		pods, err := warmPods(ctx, template)
		if err != nil {
			return err
		}
		byUID = map[types.UID]corev1.Pod{}
		for _, pod := range pods {
			ready := slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
				return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
			})
			if ready && accept(pod) {
				byUID[pod.UID] = pod
			}
		}
		if len(pods) != want || len(byUID) != want {
			return fmt.Errorf("%d warm pods, %d of them ready and accepted; want %d", len(pods), len(byUID), want)
		}
		return nil
	})
	return byUID
}

func anyPod(corev1.Pod) bool { return true }

// newPool creates a template like echo-warm with its own pool. When the test ends,
// it deletes the template and checks that the warm pods go, too.
func newPool(t *testing.T, name string, size int, changes ...func(*corev1.PodTemplate)) {
	t.Helper()
	templates := suite.Kube.Client.CoreV1().PodTemplates(harness.InstancesNamespace)
	original, err := templates.Get(t.Context(), "echo-warm", metav1.GetOptions{})
	require.NoError(t, err)
	template := &corev1.PodTemplate{
		ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{
			"binder-project.org/port": "8888", poolSizeAnnotation: fmt.Sprint(size),
		}},
		Template: original.Template,
	}
	for _, change := range changes {
		change(template)
	}
	_, err = templates.Create(t.Context(), template, metav1.CreateOptions{})
	require.NoError(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), poolWait)
		defer cancel()
		if !assert.NoError(t, templates.Delete(ctx, name, metav1.DeleteOptions{})) {
			return
		}
		for {
			left, err := warmPods(ctx, name)
			if err == nil && len(left) == 0 {
				return
			}
			if ctx.Err() != nil {
				t.Errorf("warm pods left of the deleted template %s: %d, %v", name, len(left), err)
				return
			}
			pause(ctx, 100*time.Millisecond)
		}
	})
	suite.AwaitTemplate(t, name)
}

// changeTemplate patches a template.
func changeTemplate(t *testing.T, name string, patch map[string]any) {
	t.Helper()
	data, err := json.Marshal(patch)
	require.NoError(t, err)
	_, err = suite.Kube.Client.CoreV1().PodTemplates(harness.InstancesNamespace).
		Patch(t.Context(), name, types.StrategicMergePatchType, data, metav1.PatchOptions{})
	require.NoError(t, err)
}

func setPoolSize(t *testing.T, name, size string) {
	t.Helper()
	changeTemplate(t, name, map[string]any{"metadata": map[string]any{"annotations": map[string]string{poolSizeAnnotation: size}}})
}

// setCommand patches the container of a template.
func setCommand(t *testing.T, name string, container map[string]any) {
	t.Helper()
	container["name"] = "app"
	changeTemplate(t, name, map[string]any{"template": map[string]any{"spec": map[string]any{"containers": []any{container}}}})
}

// TestWarmPodIsClaimed checks that a launch claims a warm pod, and that the pool is
// refilled.
func TestWarmPodIsClaimed(t *testing.T) {
	t.Parallel()
	warm := awaitWarm(t, "echo-warm", 3, anyPod)
	instance := suite.Launch(t, "echo-warm", harness.LongTimeout)
	status := instance.Status(t)
	assert.Equal(t, "deployed", status.Status, "must be deployed at once")
	assert.Equal(t, instance.Location(), status.Location)

	pod := instance.Pod(t)
	assert.Contains(t, warm, pod.UID)
	assert.Equal(t, []string{
		"app.kubernetes.io/managed-by", "binder-project.org/client", "binder-project.org/id", "binder-project.org/template", "binder-project.org/template-hash",
	}, slices.Sorted(maps.Keys(pod.Labels)), "must be the labels of a pod created for a launch")
	last, err := time.Parse(time.RFC3339, pod.Annotations[activityAnnotation])
	require.NoError(t, err)
	assert.WithinRange(t, last, instance.Launched.Add(-time.Second), time.Now())
	assert.Equal(t, harness.LongTimeout.String(), pod.Annotations["binder-project.org/cull-timeout"])
	if assert.NotNil(t, pod.Spec.ActiveDeadlineSeconds, "the kubelet ends it after its max age, if nobody else does") {
		assert.GreaterOrEqual(t, *pod.Spec.ActiveDeadlineSeconds, int64((13 * time.Hour).Seconds()))
	}
	assert.Equal(t, instance.ID, seenRequest(t, instance.URL("/")).Env["BINDER_ID"])

	awaitWarm(t, "echo-warm", 3, func(refilled corev1.Pod) bool { return refilled.UID != pod.UID })
}

// TestClaimedInstanceIsCulled checks that the cull timeout starts with the claim and
// not with the creation of the pod.
func TestClaimedInstanceIsCulled(t *testing.T) {
	t.Parallel()
	const timeout = 8 * time.Second
	newPool(t, "echo-warm-idle", 1)
	awaitWarm(t, "echo-warm-idle", 1, anyPod)
	pause(t.Context(), timeout) // now the pod is older than its timeout
	instance := suite.Launch(t, "echo-warm-idle", timeout)
	require.Equal(t, "deployed", instance.Status(t).Status)
	awaitCulled(t, instance, instance.Launched, timeout)
	instance.AwaitEnd(t, removalMargin, "Culled")
}

// TestWarmPodIsHidden checks that a warm pod cannot be used, even with its id.
func TestWarmPodIsHidden(t *testing.T) {
	t.Parallel()
	newPool(t, "echo-warm-hidden", 1)
	for _, pod := range awaitWarm(t, "echo-warm-hidden", 1, anyPod) {
		id := pod.Labels["binder-project.org/id"]
		for _, replica := range suite.Replicas(t) {
			path := "/applications/echo-warm-hidden/" + id
			replica.API.Do(t, http.MethodGet, path, "").WantError(t, 404, "noRecord")
			replica.API.Do(t, http.MethodDelete, path, "", "Authorization", suite.API.Key()).WantError(t, 404, "noRecord")
			assert.Empty(t, replica.API.List(t, "echo-warm-hidden"))
			for _, listed := range replica.API.List(t, "") {
				assert.NotEqual(t, id, listed.ID)
			}
			assert.GreaterOrEqual(t, value(scrape(t, replica)["binder_pool_pods"], "state", "ready"), 1.0)
		}
		code, page := visit(t, http.MethodGet, "http://"+harness.PublicHost+"/user/"+id+"/", nil)
		assert.Equal(t, http.StatusNotFound, code, page)
	}
}

// TestPoolFollowsItsTemplate checks that the pool follows changes of its template:
// another version, other sizes, and an invalid size.
func TestPoolFollowsItsTemplate(t *testing.T) {
	t.Parallel()
	const template = "echo-warm-changing"
	newPool(t, template, 2)
	old := awaitWarm(t, template, 2, anyPod)
	setCommand(t, template, map[string]any{"env": []any{map[string]string{"name": "BINDER_COLOUR", "value": "green"}}})
	renewed := awaitWarm(t, template, 2, func(pod corev1.Pod) bool {
		_, was := old[pod.UID]
		return !was
	})
	instance := suite.Launch(t, template, harness.LongTimeout)
	assert.Contains(t, renewed, instance.Pod(t).UID)
	assert.Equal(t, "green", seenRequest(t, instance.URL("/")).Env["BINDER_COLOUR"])

	setPoolSize(t, template, "1")
	awaitWarm(t, template, 1, anyPod)
	setPoolSize(t, template, "0")
	awaitWarm(t, template, 0, anyPod)
	setPoolSize(t, template, "1")
	awaitWarm(t, template, 1, anyPod)
	setPoolSize(t, template, "plenty")
	awaitWarm(t, template, 0, anyPod)
	suite.Launch(t, template, harness.LongTimeout).AwaitDeployed(t)
	assert.Equal(t, "deployed", instance.Status(t).Status, "a claimed pod must not follow the pool")
}

// TestFailingPoolBacksOff checks that the pool of a template whose pods cannot run
// backs off, and that it is filled at once when the template is fixed.
func TestFailingPoolBacksOff(t *testing.T) {
	t.Parallel()
	const template = "echo-warm-failing"
	newPool(t, template, 2, func(template *corev1.PodTemplate) {
		template.Template.Spec.RestartPolicy = corev1.RestartPolicyNever
		template.Template.Spec.Containers[0].Command = []string{"/no-such-program"}
	})
	uids := map[types.UID]bool{}
	const watched = 20 * time.Second // time for pauses of 5 s, 10 s and part of 20 s
	began := time.Now()
	harness.Until(t, 2*time.Minute, "the pool tries again", func(ctx context.Context) error {
		pods, err := warmPods(ctx, template)
		if err != nil {
			return err
		}
		for _, pod := range pods {
			uids[pod.UID] = true
		}
		took := time.Since(began)
		if took < watched && len(uids) > 6 {
			t.Errorf("%d pods in %s: the pool does not back off", len(uids), took)
			return nil
		}
		if took < watched || len(uids) < 4 {
			return fmt.Errorf("%d pods so far", len(uids))
		}
		return nil
	})
	setCommand(t, template, map[string]any{"command": nil})
	awaitWarm(t, template, 2, anyPod)
}

// TestConcurrentClaims launches 20 instances at once through two replicas, with 10
// warm pods. It is not parallel, because 30 pods are enough load for the cluster.
func TestConcurrentClaims(t *testing.T) {
	const template, size, launches = "echo-warm-crowd", 10, 20
	newPool(t, template, size)
	warm := awaitWarm(t, template, size, anyPod)
	replicas := suite.Replicas(t)
	instances := make([]*harness.Instance, launches)
	var running sync.WaitGroup
	for i := range launches {
		running.Go(func() { instances[i] = suite.LaunchAt(t, replicas[i%2].API, template, harness.LongTimeout) })
	}
	running.Wait()
	require.NotContains(t, instances, (*harness.Instance)(nil))

	ids, claimed := map[string]bool{}, 0
	for _, instance := range instances {
		ids[instance.ID] = true
		if _, was := warm[instance.Pod(t).UID]; was {
			claimed++
		}
	}
	assert.Len(t, ids, launches, "no pod must be claimed twice")
	t.Logf("%d of %d launches got one of the %d warm pods", claimed, launches, size)
	assert.GreaterOrEqual(t, claimed, size/2, "a lost race must be retried")
	for _, instance := range instances {
		instance.AwaitDeployed(t)
	}
	awaitWarm(t, template, size, anyPod)
}

// TestPoolFollowsLaunches checks that a pool whose size is a range grows to what its template's
// launches need. The leader looks again each 15 seconds.
func TestPoolFollowsLaunches(t *testing.T) {
	t.Parallel()
	const template = "echo-follows"
	newPool(t, template, 1)
	setPoolSize(t, template, "1..5")
	awaitWarm(t, template, 1, anyPod)
	for range 3 {
		suite.Launch(t, template, harness.LongTimeout)
	}
	awaitWarm(t, template, 3, anyPod)
}
