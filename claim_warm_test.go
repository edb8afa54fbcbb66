package main

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"

	"github.com/binder-project/binder-deploy-kubernetes/internal/metrics"

	"github.com/binder-project/binder-deploy-kubernetes/internal/podtemplate"
)

func TestTemplatePoolSize(t *testing.T) {
	for value, want := range map[string]int{"0": 0, "3": 3, "1000": 1000, "1001": -1, "-1": -1, "two": -1, "": -1, "1.5": -1} {
		size, err := podtemplate.PoolSize(poolTemplate("jupyter", value))
		if want < 0 && (err == nil || size != 0) || want >= 0 && (err != nil || size != want) {
			t.Errorf("%q is %d, %v; want %d (-1 for an error)", value, size, err, want)
		}
	}
	if size, err := podtemplate.PoolSize(&corev1.PodTemplate{}); size != 0 || err != nil {
		t.Errorf("no annotation is %d, %v", size, err)
	}
}

// A template's pool size makes it no other version: its warm pods stay.
func TestPoolSizeIsNoVersion(t *testing.T) {
	if podtemplate.Hash(poolTemplate("jupyter", "1")) != podtemplate.Hash(poolTemplate("jupyter", "9")) {
		t.Error("the hash depends on the pool size")
	}
}

// TestPoolMetric counts what is warm, and nothing else.
func TestPoolMetric(t *testing.T) {
	template := poolTemplate("jupyter", "4")
	claimed := poolPod(t, template, 4, poolNoon)
	delete(claimed.Labels, instance.PoolLabel)
	server := newPoolServer(func() time.Time { return poolNoon },
		poolPod(t, template, 1, poolNoon), poolPod(t, template, 2, poolNoon), poolPod(t, template, 3, poolNoon, poolStarting),
		claimed, poolPod(t, template, 5, poolNoon, poolDeleting))
	cluster, read := poolCluster(t, server)
	read()
	metrics := metrics.New("test", metricValues())
	watchCluster(metrics, cluster)
	for state, want := range map[string]float64{"ready": 2, "starting": 1} {
		if got := poolMetric(t, metrics, "binder_pool_pods", state); got != want {
			t.Errorf("%v are %s, want %v", got, state, want)
		}
	}
	if got := poolMetric(t, metrics, "binder_instances", "deployed"); got != 1 {
		t.Errorf("%v instances are deployed, want the claimed one", got)
	}
}

func TestIsWarm(t *testing.T) {
	template := poolTemplate("jupyter", "1")
	for name, change := range map[string]func(*corev1.Pod){
		"claimed":   func(pod *corev1.Pod) { delete(pod.Labels, instance.PoolLabel) },
		"preload":   func(pod *corev1.Pod) { pod.Labels[instance.PreloadLabel] = "true" },
		"no id":     func(pod *corev1.Pod) { delete(pod.Labels, instance.IDLabel) },
		"no id 2":   func(pod *corev1.Pod) { pod.Labels[instance.IDLabel] = "1" },
		"not warm":  func(pod *corev1.Pod) { pod.Labels[instance.PoolLabel] = "cold" },
		"no labels": func(pod *corev1.Pod) { pod.Labels = nil },
	} {
		if pod := poolPod(t, template, 1, poolNoon, change); instance.IsWarm(pod) {
			t.Errorf("%s: is warm", name)
		}
	}
	if pod := poolPod(t, template, 1, poolNoon); !instance.IsWarm(pod) || instance.IsInstance(pod) {
		t.Error("a warm pod is not warm, or is an instance")
	}
}
