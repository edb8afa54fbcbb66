package world

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/wait"
)

// The templates whose pods a kubelet runs, and the namespace of pods that the service
// does not see.
const (
	Warm          = "warm" // with a pool of PoolSize
	Cold          = "cold"
	BareNamespace = "binder-bench-bare"
	PoolSize      = 20

	echoImage   = "localhost/binder-echo:dev"
	echoPort    = 8888
	podsTimeout = 3 * time.Minute
	podsPoll    = 50 * time.Millisecond
	poolLabel   = "binder-project.org/pool"
)

// AddTemplate adds a template whose pods a kubelet runs, with a pool of a size.
func (w *World) AddTemplate(ctx context.Context, name string, pool int) error {
	template := &corev1.PodTemplate{
		ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{
			"binder-project.org/port": strconv.Itoa(echoPort), "binder-project.org/pool-size": strconv.Itoa(pool),
		}},
		Template: corev1.PodTemplateSpec{Spec: echoSpec()},
	}
	if _, err := w.Client.CoreV1().PodTemplates(Namespace).Create(ctx, template, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("create the template %s: %w", name, err)
	}
	return nil
}

// RemoveTemplate removes a template, with the pods of its pool and its instances. No
// replica may run, or it remembers the instances that it sees end.
func (w *World) RemoveTemplate(ctx context.Context, name string) error {
	err := w.Client.CoreV1().PodTemplates(Namespace).Delete(ctx, name, metav1.DeleteOptions{})
	return errors.Join(err, w.DeletePods(ctx, Namespace, "binder-project.org/template="+name))
}

// AwaitPool waits until the pool is full of pods that are Ready, and there are no other
// pods.
func (w *World) AwaitPool(ctx context.Context) error {
	return w.awaitPods(ctx, Namespace, PoolSize)
}

func (w *World) awaitPods(ctx context.Context, namespace string, count int) error {
	err := wait.PollUntilContextTimeout(ctx, podsPoll, podsTimeout, true, func(ctx context.Context) (bool, error) {
		list, err := w.Client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{ResourceVersion: "0"})
		return err == nil && len(list.Items) == count && !slices.ContainsFunc(list.Items, func(pod corev1.Pod) bool { return !isReady(&pod) }), err
	})
	if err != nil {
		return fmt.Errorf("wait for %d pods in %s: %w", count, namespace, err)
	}
	return nil
}

// DeleteInstances deletes the instances, and leaves the pool.
func (w *World) DeleteInstances(ctx context.Context) error {
	return w.DeletePods(ctx, Namespace, "!"+poolLabel)
}

// EndInstances deletes the instances as DeleteInstances does, but waits until the kubelet
// has ended them: so that it is quiet again.
func (w *World) EndInstances(ctx context.Context) error {
	return w.deletePods(ctx, Namespace, "!"+poolLabel, metav1.DeleteOptions{})
}

// DeletePods deletes pods at once, and waits until they are gone.
func (w *World) DeletePods(ctx context.Context, namespace, selector string) error {
	return w.deletePods(ctx, namespace, selector, metav1.DeleteOptions{GracePeriodSeconds: new(int64(0))})
}

func (w *World) deletePods(ctx context.Context, namespace, selector string, how metav1.DeleteOptions) error {
	pods := w.Client.CoreV1().Pods(namespace)
	chosen := metav1.ListOptions{LabelSelector: selector}
	if err := pods.DeleteCollection(ctx, how, chosen); err != nil {
		return fmt.Errorf("delete pods in %s: %w", namespace, err)
	}
	err := wait.PollUntilContextTimeout(ctx, podsPoll, podsTimeout, true, func(ctx context.Context) (bool, error) {
		list, err := pods.List(ctx, metav1.ListOptions{LabelSelector: selector, Limit: 1})
		return err == nil && len(list.Items) == 0, err
	})
	if err != nil {
		return fmt.Errorf("wait until pods in %s are gone: %w", namespace, err)
	}
	return nil
}

// BarePod is a pod as the service makes it of a template, but for the labels by which the
// service would see it.
func BarePod(name string) *corev1.Pod {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: name,
			Labels: map[string]string{
				"app.kubernetes.io/managed-by": manager, idLabel: digest(name)[:32], poolLabel: "warm",
				"binder-project.org/template": "bare", "binder-project.org/template-hash": "0123456789",
			},
			Annotations: map[string]string{
				"binder-project.org/port": strconv.Itoa(echoPort), "binder-project.org/ready-when": "listening",
				"binder-project.org/template-name": "bare", "binder-project.org/token": digest(name)[:32],
				"kubectl.kubernetes.io/default-container": "application",
			},
		},
		Spec: echoSpec(),
	}
	pod.Spec.EnableServiceLinks, pod.Spec.AutomountServiceAccountToken = new(false), new(false)
	application := &pod.Spec.Containers[0]
	for _, variable := range []string{"BINDER_ID", "BINDER_TEMPLATE", "BINDER_BASE_URL", "BINDER_TOKEN"} {
		application.Env = append(application.Env, corev1.EnvVar{Name: variable, Value: digest(name)[:32]})
	}
	application.ReadinessProbe = &corev1.Probe{
		ProbeHandler:  corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt32(echoPort)}},
		PeriodSeconds: 1, FailureThreshold: 3600,
	}
	return pod
}

// BarePending is a BarePod on the node without a kubelet, where it stays pending.
func (w *World) BarePending(name string) *corev1.Pod {
	pod := BarePod(name)
	pod.Spec.NodeName = w.node
	pod.Spec.Tolerations = []corev1.Toleration{{Operator: corev1.TolerationOpExists}}
	return pod
}

// AddBarePods creates bare pods and waits until they are Ready.
func (w *World) AddBarePods(ctx context.Context, count int) error {
	for i := range count {
		if _, err := w.Client.CoreV1().Pods(BareNamespace).Create(ctx, BarePod(BareName(i)), metav1.CreateOptions{}); err != nil {
			return fmt.Errorf("create a bare pod: %w", err)
		}
	}
	return w.awaitPods(ctx, BareNamespace, count)
}

// BareCold creates a bare pod, and ends it as EndInstances does. It returns how long it took until a watch said
// Ready, in milliseconds.
func (w *World) BareCold(ctx context.Context) (took float64, err error) {
	ctx, cancel := context.WithTimeout(ctx, podsTimeout)
	defer cancel()
	pods := w.Client.CoreV1().Pods(BareNamespace)
	watch, err := pods.Watch(ctx, metav1.ListOptions{FieldSelector: "metadata.name=cold"})
	if err != nil {
		return 0, fmt.Errorf("watch a bare pod: %w", err)
	}
	defer watch.Stop()
	defer func() { err = errors.Join(err, w.deletePods(ctx, BareNamespace, "", metav1.DeleteOptions{})) }()
	began := time.Now()
	if _, err := pods.Create(ctx, BarePod("cold"), metav1.CreateOptions{}); err != nil {
		return 0, fmt.Errorf("create a bare pod: %w", err)
	}
	for event := range watch.ResultChan() {
		if pod, ok := event.Object.(*corev1.Pod); ok && isReady(pod) {
			return time.Since(began).Seconds() * 1000, nil
		}
	}
	return 0, errors.New("the watch of a bare pod has ended before it was Ready")
}

// BareName is the name of the bare pod with a number.
func BareName(number int) string { return fmt.Sprintf("bare-%d", number) }

func (w *World) addNamespace(ctx context.Context, name string) error {
	object := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
	if _, err := w.Client.CoreV1().Namespaces().Create(ctx, object, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("create the namespace %s: %w", name, err)
	}
	err := wait.PollUntilContextTimeout(ctx, podsPoll, podsTimeout, true, func(ctx context.Context) (bool, error) {
		_, err := w.Client.CoreV1().ServiceAccounts(name).Get(ctx, "default", metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return false, nil
		}
		return err == nil, err
	})
	if err != nil {
		return fmt.Errorf("wait for the default service account of %s: %w", name, err)
	}
	return nil
}

func isReady(pod *corev1.Pod) bool {
	return slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

// echoSpec is a small application with the settings that the shipped templates have.
func echoSpec() corev1.PodSpec {
	return corev1.PodSpec{
		TerminationGracePeriodSeconds: new(int64(1)),
		SecurityContext: &corev1.PodSecurityContext{
			RunAsNonRoot: new(true), RunAsUser: new(int64(1000)),
			SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
		},
		Containers: []corev1.Container{{
			Name: "application", Image: echoImage, ImagePullPolicy: corev1.PullIfNotPresent,
			Ports: []corev1.ContainerPort{{ContainerPort: echoPort}},
			Resources: corev1.ResourceRequirements{
				Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("10m"), corev1.ResourceMemory: resource.MustParse("16Mi")},
				Limits:   corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1"), corev1.ResourceMemory: resource.MustParse("128Mi")},
			},
			SecurityContext: &corev1.SecurityContext{
				AllowPrivilegeEscalation: new(false), ReadOnlyRootFilesystem: new(true),
				Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
			},
		}},
	}
}
