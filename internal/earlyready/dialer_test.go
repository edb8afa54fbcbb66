package earlyready_test

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/binder-project/binder-deploy-kubernetes/internal/earlyready"
	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
	"github.com/binder-project/binder-deploy-kubernetes/internal/podtemplate"
)

var id = kubetest.ID(1)

// startingPod is a pod of a plain template whose container runs, but is not Ready.
func startingPod(t testing.TB, changes ...func(*corev1.Pod)) *corev1.Pod {
	t.Helper()
	pod, err := podtemplate.NewPod(kubetest.Template("plain"), id, kubetest.Token)
	if err != nil {
		t.Fatal(err)
	}
	pod.UID = "first"
	pod.Status = kubetest.Pod(id, kubetest.Noon).Status
	pod.Status.Conditions = nil
	for _, change := range changes {
		change(pod)
	}
	return pod
}

// fixture is a Dialer, and the world around it as a test makes it.
type fixture struct {
	*earlyready.Dialer

	mu     sync.Mutex
	pod    *corev1.Pod               // nil when there is none, or nobody waits for it
	open   bool                      // the pod's port
	dial   func(ctx context.Context) // called during an attempt, if it is not nil
	dialed []time.Time
	found  int
}

func newFixture(t testing.TB, pod *corev1.Pod) *fixture {
	f := &fixture{pod: pod}
	f.Dialer = earlyready.New(earlyready.Deps{
		Awaited: func(string) (*corev1.Pod, bool) {
			f.mu.Lock()
			defer f.mu.Unlock()
			return f.pod, f.pod != nil
		},
		Found: func(*corev1.Pod) { f.found++ },
		Dial: func(ctx context.Context, address string) error {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.dialed = append(f.dialed, time.Now())
			if address != "10.0.0.7:8888" {
				t.Errorf("dialed %s", address)
			}
			if f.dial != nil {
				f.dial(ctx)
			}
			if !f.open {
				return errors.New("connection refused")
			}
			return nil
		},
	})
	t.Cleanup(f.Close)
	return f
}

// await changes the world, and lets a client wait for some time.
func (f *fixture) await(d time.Duration, change func()) {
	f.mu.Lock()
	change()
	f.mu.Unlock()
	f.Watch(id)
	time.Sleep(d)
	synctest.Wait()
}

func (f *fixture) opens() { f.open = true }

func TestFindsAnOpenPort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pod := startingPod(t)
		f := newFixture(t, pod)
		f.await(300*time.Millisecond, func() {})
		if f.Listens(pod) || f.found > 0 {
			t.Error("found to listen though the port is closed")
		}
		f.await(20*time.Millisecond, f.opens)
		if !f.Listens(pod) || f.found != 1 {
			t.Errorf("20ms after the port was opened: listens %t, found %d times", f.Listens(pod), f.found)
		}
		attempts := len(f.dialed)
		f.await(time.Minute, func() {})
		if len(f.dialed) > attempts || f.found != 1 {
			t.Errorf("dialed %d times more, found %d times", len(f.dialed)-attempts, f.found)
		}
	})
}

// The cost grows with neither the number of clients nor, beyond a bound, the time.
func TestOneLoopForAnInstance(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pod := startingPod(t)
		f := newFixture(t, pod)
		for range 200 {
			f.Watch(id)
		}
		f.await(20*time.Second, func() {})
		attempts := len(f.dialed)
		if attempts < 200 || attempts > 300 {
			t.Errorf("dialed %d times in 20s", attempts)
		}
		if first := f.dialed[1].Sub(f.dialed[0]); first > 5*time.Millisecond {
			t.Errorf("the first pause is %s", first)
		}
		f.await(time.Minute, func() { f.pod = nil })
		if len(f.dialed) > attempts {
			t.Errorf("dialed %d times for nobody", len(f.dialed)-attempts)
		}
		f.await(0, func() { f.pod, f.open = pod, true })
		if !f.Listens(pod) {
			t.Error("the next client gets nothing")
		}
	})
}

// needsMore returns changes of a pod after which an open port does not make it Ready.
func needsMore() map[string]func(*corev1.Pod) {
	exited := corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{}}
	own := &corev1.Probe{ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/api", Port: intstr.FromInt32(8888)}}}
	return map[string]func(*corev1.Pod){
		"no ready-when annotation": func(p *corev1.Pod) { delete(p.Annotations, instance.ReadyWhenAnnotation) },
		"unknown annotation value": kubetest.WithAnnotation(instance.ReadyWhenAnnotation, "fed"),
		"Ready":                    func(p *corev1.Pod) { p.Status = kubetest.Pod(id, kubetest.Noon).Status },
		"no address":               func(p *corev1.Pod) { p.Status.PodIP = "" },
		"deleted":                  func(p *corev1.Pod) { p.DeletionTimestamp = &metav1.Time{} },
		"failed":                   func(p *corev1.Pod) { p.Status.Phase = corev1.PodFailed },
		"completed":                func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded },
		"container exited":         func(p *corev1.Pod) { p.Status.ContainerStatuses[0].State = exited },
		"container was restarted":  func(p *corev1.Pod) { p.Status.ContainerStatuses[0].LastTerminationState = exited },
		"a readiness gate":         func(p *corev1.Pod) { p.Spec.ReadinessGates = make([]corev1.PodReadinessGate, 1) },
		"host network":             func(p *corev1.Pod) { p.Spec.HostNetwork = true },
		"a postStart hook": func(p *corev1.Pod) {
			p.Spec.Containers[0].Lifecycle = &corev1.Lifecycle{PostStart: &corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: []string{"true"}}}}
		},
		"a startup probe":         func(p *corev1.Pod) { p.Spec.Containers[0].StartupProbe = own },
		"another readiness probe": func(p *corev1.Pod) { p.Spec.Containers[0].ReadinessProbe = own },
		"a probe of another port": func(p *corev1.Pod) { p.Spec.Containers[0].ReadinessProbe.TCPSocket.Port = intstr.FromInt32(80) },
		"a probe of another host": func(p *corev1.Pod) { p.Spec.Containers[0].ReadinessProbe.TCPSocket.Host = "10.0.0.1" },
		"a probe with a delay":    func(p *corev1.Pod) { p.Spec.Containers[0].ReadinessProbe.InitialDelaySeconds = 5 },
		"a probe of three dials":  func(p *corev1.Pod) { p.Spec.Containers[0].ReadinessProbe.SuccessThreshold = 3 },
		"a startup probe of an init container": func(p *corev1.Pod) {
			p.Spec.InitContainers = []corev1.Container{{StartupProbe: own}}
		},
		"a readiness probe of a second container": func(p *corev1.Pod) {
			p.Spec.Containers = append(p.Spec.Containers, p.Spec.Containers[0])
		},
		"an init container runs": func(p *corev1.Pod) {
			p.Status.InitContainerStatuses = make([]corev1.ContainerStatus, 1)
			p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodInitialized, Status: corev1.ConditionFalse}}
		},
		"init containers of unknown state": func(p *corev1.Pod) { p.Status.InitContainerStatuses = make([]corev1.ContainerStatus, 1) },
		"a second container does not run": func(p *corev1.Pod) {
			p.Status.ContainerStatuses = append(p.Status.ContainerStatuses, corev1.ContainerStatus{State: kubetest.Waiting("ContainerCreating", "")})
		},
	}
}

func TestPodNeedsMoreThanItsPort(t *testing.T) {
	for name, change := range needsMore() {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				before, pod := startingPod(t), startingPod(t, change)
				f := newFixture(t, pod)
				f.await(10*time.Second, f.opens)
				if len(f.dialed) > 0 || f.Listens(pod) {
					t.Errorf("dialed %d times, listens: %t", len(f.dialed), f.Listens(pod))
				}
				// It may come to need more after it was found to listen.
				f.await(0, func() { f.pod = before })
				if !f.Listens(before) || f.Listens(pod) {
					t.Errorf("it listens before: %t, now: %t; want true, false", f.Listens(before), f.Listens(pod))
				}
				f.Observe(pod)
				if f.Listens(before) {
					t.Error("the pod is remembered")
				}
			})
		})
	}
}

func TestPodNeedsOnlyItsPort(t *testing.T) {
	for name, change := range map[string]func(*corev1.Pod){
		"plain":               func(*corev1.Pod) {},
		"without its spec":    func(p *corev1.Pod) { p.Spec = corev1.PodSpec{} },
		"not reported to run": func(p *corev1.Pod) { p.Status.ContainerStatuses[0].State = kubetest.Waiting("ContainerCreating", "") },
		"a second container runs": func(p *corev1.Pod) {
			p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: "second"})
			p.Status.ContainerStatuses = append(p.Status.ContainerStatuses, p.Status.ContainerStatuses[0])
		},
		"init containers are done": func(p *corev1.Pod) {
			p.Status.InitContainerStatuses = make([]corev1.ContainerStatus, 1)
			p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodInitialized, Status: corev1.ConditionTrue}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				pod := startingPod(t, change)
				f := newFixture(t, pod)
				f.await(0, f.opens)
				f.Observe(pod)
				if !f.Listens(pod) || earlyready.NeedsMoreThanPort(pod) {
					t.Errorf("listens: %t, needs more: %t", f.Listens(pod), earlyready.NeedsMoreThanPort(pod))
				}
				if other := startingPod(t, change, func(p *corev1.Pod) { p.UID = "second" }); f.Listens(other) {
					t.Error("another pod of the name is taken for this one")
				}
				f.Forget(id)
				if f.Listens(pod) {
					t.Error("the pod is remembered")
				}
			})
		})
	}
}

// A pod can be deleted, replaced or become Ready during the attempt that succeeds.
func TestPodChangesDuringAnAttempt(t *testing.T) {
	for name, next := range map[string]*corev1.Pod{
		"gone":     nil,
		"replaced": startingPod(t, func(p *corev1.Pod) { p.UID = "second" }),
		"Ready":    startingPod(t, func(p *corev1.Pod) { p.Status = kubetest.Pod(id, kubetest.Noon).Status }),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				pod := startingPod(t)
				f := newFixture(t, pod)
				f.dial = func(context.Context) { f.pod, f.dial = next, nil }
				f.await(0, f.opens)
				if f.Listens(pod) || f.found > 0 {
					t.Errorf("listens: %t, found %d times", f.Listens(pod), f.found)
				}
			})
		})
	}
}

// An address that does not answer delays neither the next attempt nor the end.
func TestNoAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, startingPod(t))
		f.dial = func(ctx context.Context) {
			<-ctx.Done()
			time.Sleep(time.Millisecond)
		}
		f.await(0, func() {})
		time.Sleep(time.Second)
		began := time.Now()
		f.Close()
		if took := time.Since(began); took != time.Millisecond {
			t.Errorf("Close took %s, want it to cut the attempt short and to wait for its end", took)
		}
		attempts := len(f.dialed)
		if attempts < 3 {
			t.Errorf("dialed %d times in a second", attempts)
		}
		f.dial = nil
		f.await(time.Second, f.opens)
		if len(f.dialed) > attempts {
			t.Error("dialed after the end")
		}
	})
}

func TestDialsOverTheNetwork(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	_, port, _ := net.SplitHostPort(listener.Addr().String())
	pod := startingPod(t, kubetest.WithAnnotation(instance.PortAnnotation, port), func(p *corev1.Pod) {
		p.Spec, p.Status.PodIP = corev1.PodSpec{}, "127.0.0.1"
	})
	found := make(chan struct{})
	dialer := earlyready.New(earlyready.Deps{
		Awaited: func(string) (*corev1.Pod, bool) { return pod, true },
		Found:   func(*corev1.Pod) { close(found) },
	})
	defer dialer.Close()
	dialer.Watch(id)
	select {
	case <-found:
	case <-time.After(kubetest.Patience):
		t.Error("an open port was not found")
	}
}
