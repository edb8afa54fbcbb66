package main

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"

	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"

	"github.com/binder-project/binder-deploy-kubernetes/internal/metrics"
)

// testCluster is a read model that runs, on a fake API server.
type testCluster struct {
	*Cluster
	*kubetest.Server
}

// startCluster starts a read model on a fake API server with objects in it, and
// returns when it has read them and watches. It ends with the test.
func startCluster(t testing.TB, now func() time.Time, objects ...runtime.Object) *testCluster {
	t.Helper()
	return startClusterOn(t, kubetest.NewServer(now, objects...))
}

// startClusterOn starts one more read model on a fake API server.
func startClusterOn(t testing.TB, server *kubetest.Server) *testCluster {
	t.Helper()
	watches := len(server.Calls("watch"))
	cluster, err := NewCluster(server.Client, ClusterOptions{
		Namespace: "binder", InstancesNamespace: kubetest.Namespace, ProxyService: "binder-proxy", StartTimeout: kubetest.StartTimeout,
		Policy: cullPolicy{cullTimeout: time.Hour, startTimeout: kubetest.StartTimeout},
	}, server.Now)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { cluster.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		running.Wait()
	})
	kubetest.Eventually(t, "the caches have synced and the watches are open", func() bool {
		return cluster.Synced() && len(server.Calls("watch")) >= watches+len(cluster.informers())
	})
	return &testCluster{Cluster: cluster, Server: server}
}

// put creates or replaces a pod at the fake API server, under a new
// resourceVersion, and returns when the cache has it.
func (c *testCluster) put(t testing.TB, pod *corev1.Pod) {
	t.Helper()
	pod = pod.DeepCopy()
	pod.ResourceVersion = c.NextVersion()
	tracker := c.Client.Tracker()
	err := tracker.Update(kubetest.PodResource, pod, pod.Namespace)
	if apierrors.IsNotFound(err) {
		err = tracker.Add(pod)
	}
	if err != nil {
		t.Fatal(err)
	}
	kubetest.Eventually(t, "the cache has pod "+pod.Name, func() bool {
		cached, ok := lookup[*corev1.Pod](c.pods, pod.Namespace+"/"+pod.Name)
		return ok && cached.ResourceVersion == pod.ResourceVersion
	})
}

// drop takes a pod away at the fake API server, and returns when it is no
// longer in the cache.
func (c *testCluster) drop(t testing.TB, id string) {
	t.Helper()
	if err := c.Client.Tracker().Delete(kubetest.PodResource, kubetest.Namespace, instance.PodName(id)); err != nil {
		t.Fatal(err)
	}
	kubetest.Eventually(t, "the cache has lost pod "+instance.PodName(id), func() bool {
		_, ok := c.Pod(id)
		return !ok
	})
}

// metric is the value of a series, whose labels have these values in the order
// of their names; of a histogram, how much was observed.
func metric(t testing.TB, m *metrics.Metrics, name string, labels ...string) float64 {
	t.Helper()
	families, err := m.Registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		for _, series := range family.GetMetric() {
			var values []string
			for _, label := range series.GetLabel() {
				values = append(values, label.GetValue())
			}
			if family.GetName() == name && slices.Equal(values, labels) {
				// All but one of these are nil, and so 0.
				return series.GetCounter().GetValue() + series.GetGauge().GetValue() + float64(series.GetHistogram().GetSampleCount())
			}
		}
	}
	t.Fatalf("there is no metric %s with labels %q", name, labels)
	return 0
}
