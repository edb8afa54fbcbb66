package harness

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	deploymentName = "binder-deploy-kubernetes"
	replicaLabel   = "app.kubernetes.io/name=" + deploymentName
)

// Replica is one pod of the service.
type Replica struct {
	Name        string
	ContainerID string // without the runtime's scheme
	Restarts    int32
	API         API
	Metrics     string // base URL
	Proxy       string // base URL
}

// Replicas waits until two replicas are ready and returns them.
func (s *Suite) Replicas(t testing.TB) []Replica {
	t.Helper()
	var ready []Replica
	Until(t, rolloutTimeout, "both replicas are ready", func(ctx context.Context) error {
		var err error
		if ready, err = s.ReadyReplicas(ctx); err == nil && len(ready) != 2 {
			err = fmt.Errorf("%d replicas are ready, want 2", len(ready))
		}
		return err
	})
	return ready
}

// ReadyReplicas returns the replicas that are ready now.
func (s *Suite) ReadyReplicas(ctx context.Context) (ready []Replica, err error) {
	pods, err := s.replicaPods(ctx)
	if err != nil {
		return nil, err
	}
	for i := range pods {
		if replica, ok := s.replica(&pods[i]); ok {
			ready = append(ready, replica)
		}
	}
	return ready, nil
}

// Leader returns the name of the replica that holds the Lease.
func (s *Suite) Leader(ctx context.Context) (string, error) {
	lease, err := s.Kube.Client.CoordinationV1().Leases(Namespace).Get(ctx, deploymentName, metav1.GetOptions{})
	if err != nil {
		return "", fmt.Errorf("read the Lease: %w", err)
	}
	if lease.Spec.HolderIdentity == nil || *lease.Spec.HolderIdentity == "" {
		return "", errors.New("nobody holds the Lease")
	}
	return *lease.Spec.HolderIdentity, nil
}

func (s *Suite) replicaPods(ctx context.Context) ([]corev1.Pod, error) {
	pods, err := s.Kube.Client.CoreV1().Pods(Namespace).List(ctx, metav1.ListOptions{LabelSelector: replicaLabel})
	if err != nil {
		return nil, fmt.Errorf("list the replicas: %w", err)
	}
	return pods.Items, nil
}

func (s *Suite) replica(pod *corev1.Pod) (Replica, bool) {
	if pod.DeletionTimestamp != nil || len(pod.Status.ContainerStatuses) != 1 || !pod.Status.ContainerStatuses[0].Ready {
		return Replica{}, false
	}
	status := pod.Status.ContainerStatuses[0]
	return Replica{
		Name:        pod.Name,
		ContainerID: containerID(status.ContainerID),
		Restarts:    status.RestartCount,
		API:         s.API.At("http://" + net.JoinHostPort(pod.Status.PodIP, "8084")),
		Metrics:     "http://" + net.JoinHostPort(pod.Status.PodIP, "9090"),
		Proxy:       "http://" + net.JoinHostPort(pod.Status.PodIP, "8000"),
	}, true
}

// PrintLogs prints the last log lines of each replica.
func (s *Suite) PrintLogs(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	pods, err := s.replicaPods(ctx)
	if err != nil {
		fmt.Fprintf(s.out, "e2e: no logs: %v\n", err)
		return
	}
	fmt.Fprintf(s.out, "e2e: all logs, also of replicas that are gone, are in %s\n", s.logDir())
	lines := int64(150)
	for _, pod := range pods {
		fmt.Fprintf(s.out, "e2e: last log lines of replica %s (%s):\n", pod.Name, pod.Status.Phase)
		logs, err := s.Kube.Client.CoreV1().Pods(Namespace).
			GetLogs(pod.Name, &corev1.PodLogOptions{TailLines: &lines}).Stream(ctx)
		if err != nil {
			fmt.Fprintf(s.out, "e2e: no logs: %v\n", err)
			continue
		}
		_, _ = io.Copy(s.out, logs) // best effort
		_ = logs.Close()
	}
}
