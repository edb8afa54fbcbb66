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

	"github.com/binder-project/binder-deploy-kubernetes/internal/admission"
	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
	"github.com/binder-project/binder-deploy-kubernetes/internal/launch"
	"github.com/binder-project/binder-deploy-kubernetes/internal/podtemplate"
	"github.com/binder-project/binder-deploy-kubernetes/internal/protocol"
)

const (
	podSecurityLabel = "pod-security.kubernetes.io/enforce"
	podsPath         = "/pods"
)

// awaitTemplate waits until the cache has a template.
func (r *replica) awaitTemplate(t testing.TB, name string) {
	t.Helper()
	kubetest.Eventually(t, "the cache has template "+name, func() bool {
		_, err := r.Template(t.Context(), name)
		return err == nil
	})
}

// A launch is one write and no read. The pod of the example template is admitted under the
// restricted Pod Security Standard.
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
	noError(t, err)
	calls := r.traffic.all()[before:]
	if len(calls) != 1 || calls[0].method != http.MethodPost || !strings.HasSuffix(calls[0].path, podsPath) || calls[0].code != http.StatusCreated {
		t.Errorf("the launch sent %v, want one POST of a pod", calls)
	}
	if inst, known := r.Instance(id); !known || inst.Status != instance.StatusPending {
		t.Errorf("after the launch: known is %t, %+v; want pending", known, inst)
	}
	pod, exists := s.pod(t, id)
	if !exists {
		t.Fatal("there is no pod")
	}
	if pod.Spec.AutomountServiceAccountToken == nil || *pod.Spec.AutomountServiceAccountToken || len(pod.Spec.Volumes) > 0 {
		t.Errorf("the pod has volumes %v, want none and no token", pod.Spec.Volumes)
	}
	wantEqual(t, "the cull timeout", pod.Annotations[instance.CullTimeoutAnnotation], "30m0s")
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
	wantEqual(t, "distinct ids", len(seen), launches)
	for _, r := range replicas {
		wantEqual(t, "writes of a replica", r.traffic.count(http.MethodPost, podsPath, 0), launches/len(replicas))
		kubetest.Eventually(t, "every replica knows every instance", func() bool { return len(r.Instances(kubetest.TemplateName)) == launches })
	}
}

// The API server lets a claim give a pod a deadline: an hour beyond the max age, counted
// from the pod's creation.
func TestIntegrationClaimSetsADeadline(t *testing.T) {
	s := parallelSandbox(t)
	s.putTemplate(t, kubetest.Template(kubetest.TemplateName, kubetest.WithTemplateAnnotation(instance.PoolSizeAnnotation, "1")))
	r := s.startReplica(t, time.Now)
	r.awaitTemplate(t, kubetest.TemplateName)
	template, err := r.Template(t.Context(), kubetest.TemplateName)
	noError(t, err)
	s.createPod(t, kubetest.ID(1), kubetest.WithLabel(instance.PoolLabel, instance.PoolWarm),
		kubetest.WithLabel(instance.TemplateHashLabel, podtemplate.Hash(template)))
	launcher := r.launcher(t)
	kubetest.Eventually(t, "the warm pod serves", func() bool {
		warm := r.WarmPods(kubetest.TemplateName)
		return len(warm) == 1 && instance.IsServing(warm[0])
	})
	id, err := launcher.Launch(t.Context(), launch.Request{Template: kubetest.TemplateName})
	noError(t, err)
	wantEqual(t, "the claimed pod", id, kubetest.ID(1))
	pod, err := s.client.CoreV1().Pods(s.namespace).Get(t.Context(), instance.PodName(id), metav1.GetOptions{})
	noError(t, err)
	if got := pod.Spec.ActiveDeadlineSeconds; got == nil || *got < 49*3600 || *got > 50*3600 {
		t.Errorf("the deadline is %v, want 49 hours and a moment", got)
	}
}

// client-go sends a request again if the answer is lost. That launches one instance.
func TestIntegrationLaunchSentTwice(t *testing.T) {
	s := parallelSandbox(t)
	s.putTemplate(t, kubetest.Template(kubetest.TemplateName))
	r := s.startReplica(t, time.Now, func(next http.RoundTripper) http.RoundTripper {
		return roundTripper(func(req *http.Request) (*http.Response, error) {
			if req.Method != http.MethodPost {
				return next.RoundTrip(req)
			}
			again := req.Clone(req.Context())
			body, bodyErr := req.GetBody()
			lost, err := next.RoundTrip(req)
			if err := errors.Join(bodyErr, err); err != nil {
				return nil, err
			}
			lost.Body.Close()
			again.Body = body
			return next.RoundTrip(again)
		})
	})
	r.awaitTemplate(t, kubetest.TemplateName)
	id, err := r.launcher(t).Launch(t.Context(), launch.Request{Template: kubetest.TemplateName})
	noError(t, err)
	wantEqual(t, "successful writes", r.traffic.count(http.MethodPost, podsPath, http.StatusCreated), 1)
	wantEqual(t, "conflicts", r.traffic.count(http.MethodPost, podsPath, http.StatusConflict), 1)
	if _, exists := s.pod(t, id); !exists || len(r.InstancePods()) != 1 {
		t.Errorf("pod %s exists: %t; there are %d pods, want one", id, exists, len(r.InstancePods()))
	}
}

// Several clients stop one instance at the same time through several replicas. None gets
// an error.
func TestIntegrationConcurrentStops(t *testing.T) {
	const instances, stops = 4, 3
	s := parallelSandbox(t)
	replicas := []*replica{s.startReplica(t, time.Now), s.startReplica(t, time.Now)}
	launchers := []*launch.Launcher{replicas[0].launcher(t), replicas[1].launcher(t)}
	var stopping sync.WaitGroup
	for n := range instances {
		s.createPod(t, kubetest.ID(n))
	}
	s.awaitPods(t, replicas, instances)
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

// The API server accepts these templates and refuses their pods.
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
	noError(t, err)
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
		wantError(t, ask(api.Routes(), http.MethodPost, "/applications/"+row.name, ""), http.StatusInternalServerError, protocol.TypeBadKubeRequest)
		if !strings.Contains(lines.String(), row.says) {
			t.Errorf("%s: %q is not in the log", row.name, row.says)
		}
	}
	if pods := r.InstancePods(); len(pods) > 0 {
		t.Errorf("there are %d pods", len(pods))
	}
}

// A launch beyond a ResourceQuota can be repeated later.
func TestIntegrationLaunchBeyondQuota(t *testing.T) {
	s := parallelSandbox(t)
	quotas := s.client.CoreV1().ResourceQuotas(s.namespace)
	_, err := quotas.Create(t.Context(), &corev1.ResourceQuota{
		ObjectMeta: metav1.ObjectMeta{Name: "instances"},
		Spec:       corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{corev1.ResourcePods: resource.MustParse("2")}},
	}, metav1.CreateOptions{})
	noError(t, err)
	eventuallyWithin(t, kubetest.Patience, "the quota is in force", func() bool {
		quota, err := quotas.Get(t.Context(), "instances", metav1.GetOptions{})
		return err == nil && len(quota.Status.Hard) > 0 && len(quota.Status.Used) > 0
	})
	s.putTemplate(t, kubetest.Template(kubetest.TemplateName))
	r := s.startReplica(t, time.Now)
	r.awaitTemplate(t, kubetest.TemplateName)
	launcher := r.launcher(t)
	routes := newTestAPI(r.Cache, launcher).Routes()

	var first string
	for n := range 3 {
		id, err := launcher.Launch(t.Context(), launch.Request{Template: kubetest.TemplateName})
		if want := n == 2; errors.Is(err, launch.ErrCapacity) != want || !want && err != nil {
			t.Fatalf("launch %d: got error %v, want one of capacity: %t", n, err, want)
		}
		if n == 0 {
			first = id
		}
	}
	res := ask(routes, http.MethodPost, "/applications/"+kubetest.TemplateName, "")
	wantError(t, res, http.StatusServiceUnavailable, protocol.TypeBadKubeRequest)
	wantEqual(t, "Retry-After", res.Header().Get("Retry-After"), "60")
	wantEqual(t, "launches without capacity", metric(t, r.metrics, "binder_launches_total", "no_capacity"), 2)

	noError(t, launcher.Stop(t.Context(), kubetest.TemplateName, first))
	eventuallyWithin(t, kubetest.Patience, "a launch succeeds again", func() bool {
		return ask(routes, http.MethodPost, "/applications/"+kubetest.TemplateName, "").Code == http.StatusOK
	})
}

// The API server accepts the Events about a template's annotations. A field selector of
// the template finds them.
func TestIntegrationTemplateWarning(t *testing.T) {
	s := parallelSandbox(t)
	s.putTemplate(t, kubetest.Template("my-project",
		kubetest.WithTemplateAnnotation(instance.IdlePathsAnnotation, "api/(kernels"),
		kubetest.WithTemplateAnnotation(instance.PortAnnotation, "http")))
	log, out := kubetest.RecordLog()
	r := s.startReplica(t, time.Now)
	warnings, err := podtemplate.NewWarnings(podtemplate.Deps{Events: r.client.CoreV1().Events(s.namespace), Templates: r.Cache, Log: log})
	noError(t, err)
	runUntilEnd(t, warnings.Run)
	var found []corev1.Event
	eventuallyWithin(t, kubetest.Patience, "there are two Events", func() bool {
		events, err := s.client.CoreV1().Events(s.namespace).List(t.Context(), metav1.ListOptions{
			FieldSelector: "involvedObject.kind=PodTemplate,involvedObject.name=my-project,reason=InvalidAnnotation",
		})
		noError(t, err)
		found = events.Items
		return len(found) == 2
	})
	for _, event := range found {
		if event.Type != corev1.EventTypeWarning || len(event.Labels) > 0 ||
			!strings.Contains(event.Message, instance.IdlePathsAnnotation) && !strings.Contains(event.Message, instance.PortAnnotation) {
			t.Errorf("got %+v", event)
		}
	}
	if strings.Contains(out.String(), "level=ERROR") {
		t.Errorf("the log is\n%s", out)
	}
}

// How far launches at three replicas exceed a client's limit depends on what they launch
// before the watches deliver it. It is bounded by the limit times the number of replicas.
func TestIntegrationOvershootOfLimits(t *testing.T) {
	const limit, launches = 10, 45
	s := parallelSandbox(t)
	s.putTemplate(t, kubetest.Template(kubetest.TemplateName))
	var replicas []*replica
	var launchers []*launch.Launcher
	for range 3 {
		r := s.startReplica(t, time.Now)
		r.awaitTemplate(t, kubetest.TemplateName)
		replicas = append(replicas, r)
		launchers = append(launchers, r.limitedLauncher(t, admission.Limits{MaxPerClient: limit}))
	}
	for _, row := range []struct {
		client string
		known  bool // whether each launch waits until every replica knows the one before
		most   int
	}{
		{"at-once", false, limit * len(replicas)},
		{"one-after-the-other", true, limit},
	} {
		var running sync.WaitGroup
		for n := range launches {
			var id string
			running.Go(func() {
				var err error
				id, err = launchers[n%len(launchers)].Launch(t.Context(), launch.Request{Template: kubetest.TemplateName, Client: row.client})
				if refusal := (*admission.Refusal)(nil); err != nil && !errors.As(err, &refusal) {
					t.Error(err)
				}
			})
			if !row.known {
				continue
			}
			if running.Wait(); id != "" {
				for _, r := range replicas {
					r.awaitPod(t, s, id)
				}
			}
		}
		running.Wait()
		pods, err := s.client.CoreV1().Pods(s.namespace).List(t.Context(), metav1.ListOptions{LabelSelector: instance.ClientLabel + "=" + row.client})
		noError(t, err)
		t.Logf("%s: %d instances, the limit is %d", row.client, len(pods.Items), limit)
		if got := len(pods.Items); got < limit || got > row.most {
			t.Errorf("%s: there are %d instances, want %d to %d", row.client, got, limit, row.most)
		}
	}
}
