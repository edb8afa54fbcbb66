package podtemplate

import (
	"reflect"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// ServingContainer returns the container that declares the port, else the first.
func ServingContainer(spec *corev1.PodSpec, port int) *corev1.Container {
	i := slices.IndexFunc(spec.Containers, func(c corev1.Container) bool {
		return slices.ContainsFunc(c.Ports, func(p corev1.ContainerPort) bool { return int(p.ContainerPort) == port })
	})
	return &spec.Containers[max(i, 0)]
}

// addReadinessProbe makes Ready mean that the port accepts connections, unless the
// template has a probe of its own.
func addReadinessProbe(spec *corev1.PodSpec, port int) {
	container := ServingContainer(spec, port)
	if container.ReadinessProbe == nil {
		container.ReadinessProbe = listenProbe(port)
	}
}

// listenProbe has a failureThreshold of an hour, so that a pod stays Ready while a
// kernel is too busy to accept a connection. It is a readiness probe and not a
// startup probe, because the kubelet runs the first readiness probe at once and the
// first startup probe after a period.
func listenProbe(port int) *corev1.Probe {
	return &corev1.Probe{
		ProbeHandler: corev1.ProbeHandler{
			TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt(port)},
		},
		PeriodSeconds:    1,
		FailureThreshold: 3600,
	}
}

// readyWhenListens reports whether a pod is Ready as soon as its port accepts
// connections: nothing but the probe of addReadinessProbe delays Ready.
func readyWhenListens(spec *corev1.PodSpec, port int) bool {
	if len(spec.ReadinessGates) > 0 {
		return false
	}
	serving := ServingContainer(spec, port)
	for _, containers := range [][]corev1.Container{spec.InitContainers, spec.Containers} {
		for i := range containers {
			c := &containers[i]
			hook := c.Lifecycle != nil && c.Lifecycle.PostStart != nil // it must end before the container counts as running
			if hook || c.StartupProbe != nil || c != serving && c.ReadinessProbe != nil {
				return false
			}
		}
	}
	return reflect.DeepEqual(serving.ReadinessProbe, listenProbe(port))
}
