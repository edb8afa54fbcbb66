//go:build integration

package main

import (
	"errors"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"

	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"

	"github.com/binder-project/binder-deploy-kubernetes/internal/podtemplate"

	"github.com/binder-project/binder-deploy-kubernetes/internal/launch"

	"github.com/binder-project/binder-deploy-kubernetes/internal/protocol"
)

const (
	podSecurityLabel = "pod-security.kubernetes.io/enforce"
	podsPath         = "/pods"
)

// awaitTemplate waits until a replica knows a template.
func (r *replica) awaitTemplate(t testing.TB, name string) {
	t.Helper()
	kubetest.Eventually(t, "the cache has template "+name, func() bool {
		_, err := r.Template(t.Context(), name)
		return err == nil
	})
}

// A launch is one write and no read; and its pod, of a template under the
// restricted standard, is let in where that is enforced, with all its contract.
func TestIntegrationLaunchIsOneWrite(t *testing.T) {
	t.Parallel()
	s := newSandbox(t, map[string]string{podSecurityLabel: "restricted"})
	template := manifestTemplate(t)
	s.putTemplate(t, template)
	r := s.startReplica(t, time.Now)
	r.awaitTemplate(t, template.Name)
	launcher := r.launcher(t)

	before := len(r.traffic.all())
	id, err := launcher.Launch(t.Context(), launch.Request{Template: template.Name, CullTimeout: 30 * time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	calls := r.traffic.all()[before:]
	if len(calls) != 1 || calls[0].method != http.MethodPost || !strings.HasSuffix(calls[0].path, podsPath) || calls[0].code != http.StatusCreated {
		t.Errorf("the launch cost %v, want one POST of a pod", calls)
	}
	if inst, known := r.Instance(id); !known || inst.Status != instance.StatusPending {
		t.Errorf("after its launch the replica knows %t, %+v; want pending", known, inst)
	}
	pod, exists := s.pod(t, id)
	if !exists {
		t.Fatal("there is no pod")
	}
	if pod.Spec.AutomountServiceAccountToken == nil || *pod.Spec.AutomountServiceAccountToken || len(pod.Spec.Volumes) > 0 {
		t.Errorf("the pod has volumes %v, want none, and no token", pod.Spec.Volumes)
	}
	if got := pod.Annotations[instance.CullTimeoutAnnotation]; got != "30m0s" {
		t.Errorf("its cull timeout is %q", got)
	}
	if _, err := instance.LastActivity(pod); err != nil {
		t.Error(err)
	}
}

func TestIntegrationConcurrentLaunchesAreDistinct(t *testing.T) {
	t.Parallel()
	const launches = 24
	s := newSandbox(t, nil)
	s.putTemplate(t, kubetest.Template(kubetest.TemplateName))
	replicas := []*replica{s.startReplica(t, time.Now), s.startReplica(t, time.Now)}
	var mu sync.Mutex
	seen := map[string]bool{}
	var running sync.WaitGroup
	for _, r := range replicas {
		r.awaitTemplate(t, kubetest.TemplateName)
		launcher := r.launcher(t)
		for range launches / len(replicas) {
			running.Go(func() {
				id, err := launcher.Launch(t.Context(), launch.Request{Template: kubetest.TemplateName})
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				seen[id] = true
			})
		}
	}
	running.Wait()
	if len(seen) != launches {
		t.Errorf("%d launches have %d ids", launches, len(seen))
	}
	for _, r := range replicas {
		if writes := r.traffic.count(http.MethodPost, podsPath, 0); writes != launches/len(replicas) {
			t.Errorf("a replica wrote %d times for %d launches", writes, launches/len(replicas))
		}
		kubetest.Eventually(t, "every replica knows every instance", func() bool { return len(r.Instances(kubetest.TemplateName)) == launches })
	}
}

// The client's library sends a request again that was lost on its way, whether
// or not it had arrived. That is one launch all the same.
func TestIntegrationLaunchSentTwice(t *testing.T) {
	t.Parallel()
	s := newSandbox(t, nil)
	s.putTemplate(t, kubetest.Template(kubetest.TemplateName))
	r := s.startReplica(t, time.Now, func(next http.RoundTripper) http.RoundTripper {
		return roundTripper(func(req *http.Request) (*http.Response, error) {
			if req.Method != http.MethodPost {
				return next.RoundTrip(req)
			}
			again := req.Clone(req.Context())
			var err error
			if again.Body, err = req.GetBody(); err != nil {
				return nil, err
			}
			lost, err := next.RoundTrip(req)
			if err != nil {
				return nil, err
			}
			lost.Body.Close()
			return next.RoundTrip(again)
		})
	})
	r.awaitTemplate(t, kubetest.TemplateName)
	id, err := r.launcher(t).Launch(t.Context(), launch.Request{Template: kubetest.TemplateName})
	if err != nil {
		t.Fatal(err)
	}
	if created, twice := r.traffic.count(http.MethodPost, podsPath, http.StatusCreated), r.traffic.count(http.MethodPost, podsPath, http.StatusConflict); created != 1 || twice != 1 {
		t.Errorf("%d writes were taken and %d were conflicts, want one each", created, twice)
	}
	if _, exists := s.pod(t, id); !exists || len(r.InstancePods()) != 1 {
		t.Errorf("pod %s exists: %t; there are %d pods, want it alone", id, exists, len(r.InstancePods()))
	}
}

// Several stop one instance at the same time, on several replicas: it is
// stopped, and that is an error for nobody.
func TestIntegrationConcurrentStops(t *testing.T) {
	t.Parallel()
	const instances, stops = 4, 3
	s := newSandbox(t, nil)
	replicas := []*replica{s.startReplica(t, time.Now), s.startReplica(t, time.Now)}
	launchers := []*launch.Launcher{replicas[0].launcher(t), replicas[1].launcher(t)}
	var stopping sync.WaitGroup
	for n := range instances {
		s.createPod(t, kubetest.ID(n))
		for _, r := range replicas {
			r.awaitPod(t, s, kubetest.ID(n))
		}
	}
	for n := range instances {
		for i := range replicas {
			for range stops {
				stopping.Go(func() {
					if err := launchers[i].Stop(t.Context(), kubetest.TemplateName, kubetest.ID(n)); err != nil {
						t.Error(err)
					}
				})
			}
		}
	}
	stopping.Wait()
	for n := range instances {
		s.wantGone(t, kubetest.ID(n), instance.EndStopped)
	}
}

// What the API server's admission and validation make of templates that pass
// as templates and not as pods.
func TestIntegrationLaunchRefused(t *testing.T) {
	t.Parallel()
	s := newSandbox(t, map[string]string{podSecurityLabel: "baseline"})
	_, err := s.client.CoreV1().LimitRanges(s.namespace).Create(t.Context(), &corev1.LimitRange{
		ObjectMeta: metav1.ObjectMeta{Name: "instances"},
		Spec: corev1.LimitRangeSpec{Limits: []corev1.LimitRangeItem{{
			Type: corev1.LimitTypeContainer, Max: corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("1Gi")},
			Default: corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("64Mi")},
		}}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	rows := []struct {
		name   string
		change func(*corev1.PodSpec)
		says   string
	}{
		{"invalid", func(spec *corev1.PodSpec) { spec.NodeName = "node1" }, "nodeName"},
		{"insecure", func(spec *corev1.PodSpec) { spec.HostNetwork = true }, "PodSecurity"},
		{"greedy", func(spec *corev1.PodSpec) {
			spec.Containers[0].Resources.Limits = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("2Gi")}
		}, "maximum memory usage"},
		{"account", func(spec *corev1.PodSpec) { spec.ServiceAccountName = "nobody" }, "nobody"},
		{"priority", func(spec *corev1.PodSpec) { spec.PriorityClassName = "none-such" }, "none-such"},
	}
	for _, row := range rows {
		s.putTemplate(t, kubetest.Template(row.name, func(template *corev1.PodTemplate) { row.change(&template.Template.Spec) }))
	}
	r := s.startReplica(t, time.Now)
	api := newTestAPI(r.Cache, r.launcher(t))
	log, lines := kubetest.RecordLog()
	api.Log = log
	for _, row := range rows {
		r.awaitTemplate(t, row.name)
		_, err := api.Launcher.Launch(t.Context(), launch.Request{Template: row.name})
		var refused *podtemplate.Error
		if !errors.As(err, &refused) || errors.Is(err, launch.ErrCapacity) || !strings.Contains(err.Error(), row.says) {
			t.Errorf("%s: got %v, want a template error with %q in it", row.name, err, row.says)
		}
		wantError(t, ask(t, api.Routes(), http.MethodPost, "/applications/"+row.name, "", ""), http.StatusInternalServerError, protocol.TypeBadKubeRequest)
		if !strings.Contains(lines.String(), row.says) {
			t.Errorf("%s: the operator is not told %q", row.name, row.says)
		}
	}
	if pods := r.InstancePods(); len(pods) > 0 {
		t.Errorf("there are %d pods", len(pods))
	}
}

// A ResourceQuota is a limit that is reached, not a mistake: later there may be
// a place again.
func TestIntegrationLaunchBeyondQuota(t *testing.T) {
	t.Parallel()
	s := newSandbox(t, nil)
	quotas := s.client.CoreV1().ResourceQuotas(s.namespace)
	_, err := quotas.Create(t.Context(), &corev1.ResourceQuota{
		ObjectMeta: metav1.ObjectMeta{Name: "instances"},
		Spec:       corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{corev1.ResourcePods: resource.MustParse("2")}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	eventuallyWithin(t, kubetest.Patience, "the quota is in force", func() bool {
		quota, err := quotas.Get(t.Context(), "instances", metav1.GetOptions{})
		return err == nil && len(quota.Status.Hard) > 0 && len(quota.Status.Used) > 0
	})
	s.putTemplate(t, kubetest.Template(kubetest.TemplateName))
	r := s.startReplica(t, time.Now)
	r.awaitTemplate(t, kubetest.TemplateName)
	launcher := r.launcher(t)
	routes := newTestAPI(r.Cache, launcher).Routes()

	first, err := launcher.Launch(t.Context(), launch.Request{Template: kubetest.TemplateName})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := launcher.Launch(t.Context(), launch.Request{Template: kubetest.TemplateName}); err != nil {
		t.Fatal(err)
	}
	if _, err := launcher.Launch(t.Context(), launch.Request{Template: kubetest.TemplateName}); !errors.Is(err, launch.ErrCapacity) {
		t.Errorf("got %v, want an error of capacity", err)
	}
	res := ask(t, routes, http.MethodPost, "/applications/"+kubetest.TemplateName, "", "")
	wantError(t, res, http.StatusServiceUnavailable, protocol.TypeBadKubeRequest)
	if got := res.Header().Get("Retry-After"); got != "60" {
		t.Errorf("Retry-After is %q, want 60", got)
	}
	if got := metric(t, r.metrics, "binder_launches_total", "no_capacity"); got != 2 {
		t.Errorf("counted are %v launches without capacity, want 2", got)
	}

	if err := launcher.Stop(t.Context(), kubetest.TemplateName, first); err != nil {
		t.Fatal(err)
	}
	eventuallyWithin(t, kubetest.Patience, "there is a place again", func() bool {
		return ask(t, routes, http.MethodPost, "/applications/"+kubetest.TemplateName, "", "").Code == http.StatusOK
	})
}
