// Package world fills the local cluster with instances that need no kubelet: pods on a node
// that exists only as an object. The service launches them itself, so they are as it writes
// them; their status is written here, as a kubelet would. Above a number, they are copies
// of these, written into etcd.
package world

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/util/retry"
)

const (
	// Namespace is where the instances are, and ServiceNamespace the service's own.
	Namespace        = "binder-bench-instances"
	ServiceNamespace = "binder-bench"
	// Template is the name of the PodTemplate whose instances need no kubelet.
	Template = "bench"

	// nodePrefix is what the name of the node starts with. Each run has a node of its own: the
	// controller manager may still think that the one of the last run is dead.
	nodePrefix   = "binder-bench-"
	managedBy    = "app.kubernetes.io/managed-by=" + manager
	manager      = "binder-bench"
	nodeLease    = "kube-node-lease"
	renewEvery   = 10 * time.Second
	leaseSeconds = 40
	cleanTimeout = 5 * time.Minute
)

// World is the instances on the node that exists only as an object.
type World struct {
	Client   kubernetes.Interface
	Config   *rest.Config
	store    *store
	node     string
	port     int // at which all instances listen, each at an address of its own
	ids      []string
	newest   *corev1.Pod // as it was when it was added: nobody had visited it
	progress io.Writer
	stop     context.CancelFunc
	renewed  chan struct{} // closed when the node's Lease is no longer renewed
}

// Connect returns the clients of a cluster, with no limit of requests per second.
func Connect(kubeconfig string) (kubernetes.Interface, *rest.Config, error) {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, nil, fmt.Errorf("read the kubeconfig: %w", err)
	}
	config.QPS = -1
	config.ContentType = "application/vnd.kubernetes.protobuf"
	config.AcceptContentTypes = "application/vnd.kubernetes.protobuf,application/json"
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, nil, fmt.Errorf("make a client: %w", err)
	}
	return client, config, nil
}

// New makes the namespaces, the node and the template in the local cluster whose files are
// in a directory. The instances' applications listen at port, on the loopback addresses
// that Address gives.
func New(ctx context.Context, cluster string, port int, progress io.Writer) (*World, error) {
	client, config, err := Connect(Kubeconfig(cluster))
	if err != nil {
		return nil, err
	}
	store, err := openStore(cluster)
	if err != nil {
		return nil, err
	}
	w := &World{
		Client: client, Config: config, store: store, port: port, progress: progress, renewed: make(chan struct{}),
		node: nodePrefix + randomHex()[:8],
	}
	if err := w.fill(ctx); err != nil {
		return nil, errors.Join(err, store.client.Close())
	}
	keeping, stop := context.WithCancel(context.WithoutCancel(ctx))
	w.stop = stop
	go w.keepNode(keeping)
	return w, nil
}

// Kubeconfig is the kubeconfig of the local cluster whose files are in a directory.
func Kubeconfig(cluster string) string { return filepath.Join(cluster, "kubeconfig") }

// fill makes what there is without instances, in place of what a killed run has left.
func (w *World) fill(ctx context.Context) error {
	cleaning, cancel := context.WithTimeout(ctx, cleanTimeout)
	defer cancel()
	if err := errors.Join(w.deleteNamespaces(cleaning), w.deleteNodes(cleaning)); err != nil {
		return err
	}
	for _, namespace := range namespaces() {
		if err := w.addNamespace(ctx, namespace); err != nil {
			return err
		}
	}
	if err := w.addNode(ctx); err != nil {
		return err
	}
	if _, err := w.Client.CoreV1().PodTemplates(Namespace).Create(ctx, w.template(), metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("create the template: %w", err)
	}
	return nil
}

// Close deletes the instances, and then the node: until they are gone it must count as
// alive, or the controller manager marks each of them.
func (w *World) Close(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, cleanTimeout)
	defer cancel()
	return errors.Join(w.deleteNamespaces(ctx), w.Leave(), w.deleteNodes(ctx))
}

// Leave ends the world, and leaves what it has made in the cluster.
func (w *World) Leave() error {
	w.stop()
	<-w.renewed
	return w.store.client.Close()
}

func (w *World) template() *corev1.PodTemplate {
	return &corev1.PodTemplate{
		ObjectMeta: metav1.ObjectMeta{Name: Template, Annotations: map[string]string{
			"binder-project.org/port": fmt.Sprint(w.port),
		}},
		Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{
			NodeName:    w.node,
			Tolerations: []corev1.Toleration{{Operator: corev1.TolerationOpExists}},
			Containers:  []corev1.Container{{Name: "application", Image: image, Ports: []corev1.ContainerPort{{ContainerPort: int32(w.port)}}}},
		}},
	}
}

// nodeMeta names the node, and its Lease.
func (w *World) nodeMeta() metav1.ObjectMeta {
	return metav1.ObjectMeta{Name: w.node, Labels: map[string]string{"app.kubernetes.io/managed-by": manager}}
}

// addNode makes the node. Its taint keeps all other pods away.
func (w *World) addNode(ctx context.Context) error {
	node := &corev1.Node{
		ObjectMeta: w.nodeMeta(),
		Spec:       corev1.NodeSpec{Taints: []corev1.Taint{{Key: ServiceNamespace, Effect: corev1.TaintEffectNoSchedule}}},
	}
	if _, err := w.Client.CoreV1().Nodes().Create(ctx, node, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("create the node: %w", err)
	}
	return w.renew(ctx)
}

// keepNode renews the node's Lease until ctx is done, so that the node counts as alive.
func (w *World) keepNode(ctx context.Context) {
	defer close(w.renewed)
	tick := time.NewTicker(renewEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if err := w.renew(ctx); err != nil && ctx.Err() == nil {
				fmt.Fprintf(w.progress, "the node's Lease is not renewed: %v\n", err)
			}
		}
	}
}

func (w *World) renew(ctx context.Context) error {
	now := metav1.NowMicro()
	lease := &coordinationv1.Lease{
		ObjectMeta: w.nodeMeta(),
		Spec:       coordinationv1.LeaseSpec{HolderIdentity: new(w.node), LeaseDurationSeconds: new(int32(leaseSeconds)), RenewTime: &now},
	}
	change, err := json.Marshal(map[string]any{"spec": lease.Spec})
	if err != nil {
		return fmt.Errorf("encode the node's Lease: %w", err)
	}
	leases := w.Client.CoordinationV1().Leases(nodeLease)
	_, err = leases.Patch(ctx, w.node, types.MergePatchType, change, metav1.PatchOptions{})
	if apierrors.IsNotFound(err) {
		_, err = leases.Create(ctx, lease, metav1.CreateOptions{})
	}
	if err != nil {
		return fmt.Errorf("renew the node's Lease: %w", err)
	}
	if err := retry.RetryOnConflict(retry.DefaultBackoff, func() error { return w.heartbeat(ctx) }); err != nil {
		return fmt.Errorf("write the node's status: %w", err)
	}
	return nil
}

// heartbeat writes that the node is ready. There is a conflict if the controller manager
// changes the node meanwhile, as it does when the node is new.
func (w *World) heartbeat(ctx context.Context) error {
	nodes := w.Client.CoreV1().Nodes()
	node, err := nodes.Get(ctx, w.node, metav1.GetOptions{})
	if err != nil {
		return err
	}
	node.Status.Conditions = []corev1.NodeCondition{{
		Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "KubeletReady",
		LastHeartbeatTime: metav1.Now(), LastTransitionTime: node.CreationTimestamp,
	}}
	_, err = nodes.UpdateStatus(ctx, node, metav1.UpdateOptions{})
	return err
}

// deleteNamespaces deletes the namespaces with all that is in them.
func (w *World) deleteNamespaces(ctx context.Context) error {
	var errs []error
	for _, namespace := range namespaces() {
		errs = append(errs, w.deleteAllPods(ctx, namespace))
	}
	errs = append(errs, w.awaitStore(ctx))
	for _, namespace := range namespaces() {
		errs = append(errs, ignoreGone(w.Client.CoreV1().Namespaces().Delete(ctx, namespace, metav1.DeleteOptions{})))
	}
	for _, namespace := range namespaces() {
		errs = append(errs, wait.PollUntilContextTimeout(ctx, podsPoll, cleanTimeout, true, func(ctx context.Context) (bool, error) {
			_, err := w.Client.CoreV1().Namespaces().Get(ctx, namespace, metav1.GetOptions{})
			return apierrors.IsNotFound(err), ignoreGone(err)
		}))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("delete the instances: %w", err)
	}
	return nil
}

// deleteNodes deletes the node, and those of runs that were killed. They must have no pods.
func (w *World) deleteNodes(ctx context.Context) error {
	ours := metav1.ListOptions{LabelSelector: managedBy}
	err := errors.Join(
		w.Client.CoreV1().Nodes().DeleteCollection(ctx, metav1.DeleteOptions{}, ours),
		w.Client.CoordinationV1().Leases(nodeLease).DeleteCollection(ctx, metav1.DeleteOptions{}, ours))
	if err != nil {
		return fmt.Errorf("delete the node: %w", err)
	}
	return nil
}

// deleteAllPods deletes the pods of a namespace. Those that a kubelet may run are deleted
// through the API, so that it hears of it and stops them, and those of nodes without one in etcd.
func (w *World) deleteAllPods(ctx context.Context, namespace string) error {
	nodes, err := w.Client.CoreV1().Nodes().List(ctx, metav1.ListOptions{LabelSelector: managedBy})
	if err != nil {
		return fmt.Errorf("list the nodes without a kubelet: %w", err)
	}
	var elsewhere []fields.Selector
	for _, node := range nodes.Items {
		elsewhere = append(elsewhere, fields.OneTermNotEqualSelector("spec.nodeName", node.Name))
	}
	now := metav1.DeleteOptions{GracePeriodSeconds: new(int64(0))}
	chosen := metav1.ListOptions{FieldSelector: fields.AndSelectors(elsewhere...).String()}
	if err := ignoreGone(w.Client.CoreV1().Pods(namespace).DeleteCollection(ctx, now, chosen)); err != nil {
		return fmt.Errorf("delete the pods of %s: %w", namespace, err)
	}
	return w.store.deletePods(ctx, namespace)
}

// namespaces are all that a benchmark makes.
func namespaces() []string { return []string{ServiceNamespace, Namespace, BareNamespace} }

func ignoreGone(err error) error {
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
