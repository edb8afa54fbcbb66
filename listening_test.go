package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"

	"github.com/binder-project/binder-deploy-kubernetes/internal/podtemplate"

	"github.com/binder-project/binder-deploy-kubernetes/internal/earlyready"

	"github.com/binder-project/binder-deploy-kubernetes/internal/protocol"

	"github.com/binder-project/binder-deploy-kubernetes/internal/proxy"
)

// door is a pod's port that a test opens.
type door struct {
	mu    sync.Mutex
	open  bool
	dials []string
	at    []time.Time
}

func (d *door) dial(_ context.Context, address string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.dials, d.at = append(d.dials, address), append(d.at, time.Now())
	if d.open {
		return nil
	}
	return errors.New("connection refused")
}

func (d *door) unlock() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.open = true
}

func (d *door) knocks() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.dials)
}

// withDoor starts a read model whose pods are behind a door.
func withDoor(t testing.TB, pod *corev1.Pod) (*waitCluster, *door) {
	t.Helper()
	cluster, d := newWaitCluster(t, fake.NewClientset(pod)), &door{}
	cluster.listening.Dial = d.dial
	return cluster.start(t), d
}

// awaitSettledFor waits as clients do, for a time at most.
func awaitSettledFor(t testing.TB, cluster *waitCluster, atMost time.Duration) instance.Instance {
	ctx, cancel := context.WithTimeout(t.Context(), atMost)
	defer cancel()
	inst, _ := cluster.Await(ctx, waitID, func(inst instance.Instance, known bool) bool { return known && instance.Settled(inst.Status) })
	return inst
}

// TestListensBeforeReady: who waits is answered as soon as the port is open, and
// the rest of the service agrees with it.
func TestListensBeforeReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster, d := newWaitCluster(t, fake.NewClientset(waitPod("1", waitHasIP))), &door{}
		cluster.listening.Dial = d.dial
		var noticed []string
		if err := cluster.OnPod(func(pod *corev1.Pod) { noticed = append(noticed, pod.ResourceVersion) }, func(*corev1.Pod) {}); err != nil {
			t.Fatal(err)
		}
		cluster.start(t)
		synctest.Wait()
		noticed = nil
		time.AfterFunc(300*time.Millisecond, d.unlock)
		began := time.Now()
		inst := awaitSettledFor(t, cluster, time.Minute)
		if took := time.Since(began); took < 300*time.Millisecond || took > 330*time.Millisecond {
			t.Errorf("noticed after %s, the port is open after 300ms", took)
		}
		synctest.Wait()
		if inst.Status != instance.StatusDeployed || inst.Address != "192.0.2.7:8888" || inst.Message != "" {
			t.Errorf("it is %+v", inst)
		}
		if !slices.Equal(noticed, []string{"1"}) {
			t.Errorf("those who follow pods were told of versions %q, want of 1, once", noticed)
		}
		if all := cluster.Instances(""); len(all) != 1 || all[0].Status != instance.StatusDeployed {
			t.Errorf("the list has %+v", all)
		}
		for _, address := range d.dials {
			if address != "192.0.2.7:8888" {
				t.Errorf("dialled %s", address)
			}
		}
		before := d.knocks()
		awaitSettledFor(t, cluster, time.Minute)
		if d.knocks() != before {
			t.Error("it is asked again")
		}
	})
}

// TestProxyKnocks: a visitor whom another replica has sent is let in here.
func TestProxyKnocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster, d := withDoor(t, waitPod("1", waitHasIP))
		d.unlock()
		proxy := proxy.New(cluster, func(string, instance.Source) {}, protocol.NewAPIKey("key").Opens, slog.New(slog.DiscardHandler))
		if inst, known := proxy.Await(t.Context(), waitID); !known || inst.Address != "192.0.2.7:8888" {
			t.Errorf("it is %+v, known: %t", inst, known)
		}
	})
}

// TestManyWaitOneKnocks: the cost does not grow with the clients, nor for ever
// with the time.
func TestManyWaitOneKnocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster, d := withDoor(t, waitPod("1", waitHasIP))
		var waiting sync.WaitGroup
		for range 200 {
			waiting.Go(func() { awaitSettledFor(t, cluster, 20*time.Second) })
		}
		waiting.Wait()
		synctest.Wait()
		knocks := d.knocks()
		if knocks < 100 || knocks > 20*10+100 {
			t.Errorf("dialled %d times in 20s", knocks)
		}
		if first := d.at[1].Sub(d.at[0]); first != earlyready.ShortestKnockPause {
			t.Errorf("the first pause is %s", first)
		}
		// Nobody waits any more.
		time.Sleep(time.Minute)
		if more := d.knocks() - knocks; more > 1 {
			t.Errorf("dialled %d times for nobody", more)
		}
		// And the next one is served again.
		d.unlock()
		if inst := awaitSettledFor(t, cluster, time.Second); inst.Status != instance.StatusDeployed {
			t.Errorf("it is %s", inst.Status)
		}
	})
}

// TestNotKnocked: where more than an open port is asked for, or there is nobody
// to ask, it is left to the kubelet.
func TestNotKnocked(t *testing.T) {
	ended := corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 1}}
	for _, row := range []struct {
		name   string
		change func(*corev1.Pod)
	}{
		{"a probe of the template's own", func(pod *corev1.Pod) { delete(pod.Annotations, instance.ReadyWhenAnnotation) }},
		{"no address yet", func(pod *corev1.Pod) { pod.Status.PodIP = "" }},
		{"the container has just ended", func(pod *corev1.Pod) { pod.Status.ContainerStatuses[0].State = ended }},
		{"the container has ended before", func(pod *corev1.Pod) { pod.Status.ContainerStatuses[0].LastTerminationState = ended }},
		{"being deleted", waitDeleting},
		{"failed", waitFailed},
		{"a pod that is nobody's yet", func(pod *corev1.Pod) { pod.Labels[instance.PoolLabel] = "warm" }},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cluster, d := withDoor(t, waitPod("1", waitHasIP, row.change))
				d.unlock()
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				inst, _ := cluster.Await(ctx, waitID, func(instance.Instance, bool) bool { return false })
				if d.knocks() > 0 || inst.Status == instance.StatusDeployed {
					t.Errorf("dialled %q, and it is %q", d.dials, inst.Status)
				}
			})
		})
	}
}

// TestHeardIsForgotten: what was heard is true of one pod until it says more
// itself, and is kept no longer.
func TestHeardIsForgotten(t *testing.T) {
	restarting := func(pod *corev1.Pod) {
		pod.Status.ContainerStatuses[0].State = corev1.ContainerState{
			Waiting: &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff"},
		}
		pod.Status.ContainerStatuses[0].LastTerminationState = corev1.ContainerState{
			Terminated: &corev1.ContainerStateTerminated{ExitCode: 1},
		}
	}
	another := func(pod *corev1.Pod) { pod.UID = "uid-2" }
	for _, row := range []struct {
		name     string
		next     []func(*corev1.Pod)
		want     instance.Status
		remember bool
	}{
		{"still starting", nil, instance.StatusDeployed, true},
		{"Ready", []func(*corev1.Pod){waitReady}, instance.StatusDeployed, false},
		{"broken down", []func(*corev1.Pod){restarting}, instance.StatusDeploying, false},
		{"failed", []func(*corev1.Pod){waitFailed}, instance.StatusFailed, false},
		{"deleted", []func(*corev1.Pod){waitDeleting}, instance.StatusDeleted, false},
		{"another pod of that name", []func(*corev1.Pod){another}, instance.StatusDeploying, true},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cluster, d := withDoor(t, waitPod("1", waitHasIP))
				d.unlock()
				if inst := awaitSettledFor(t, cluster, time.Second); inst.Status != instance.StatusDeployed {
					t.Fatalf("it is %s", inst.Status)
				}
				cluster.put(t, waitPod("2", append(row.next, waitHasIP)...))
				synctest.Wait()
				if inst, _ := cluster.Instance(waitID); inst.Status != row.want {
					t.Errorf("it is %s, want %s", inst.Status, row.want)
				}
				if remembered := len(cluster.listening.Heard) > 0; remembered != row.remember {
					t.Errorf("remembered: %t, want %t", remembered, row.remember)
				}
			})
		})
	}
}

// TestGoneIsForgotten: also when the pod goes without having been Ready, and
// when it goes just as it answers.
func TestGoneIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster, d := withDoor(t, waitPod("1", waitHasIP))
		remove := func() {
			if err := cluster.client.CoreV1().Pods(waitNamespace).Delete(t.Context(), instance.PodName(waitID), metav1.DeleteOptions{}); err != nil {
				t.Error(err)
			}
			synctest.Wait()
		}
		d.unlock()
		awaitSettledFor(t, cluster, time.Second)
		remove()
		if len(cluster.listening.Heard) > 0 {
			t.Error("the first one is remembered")
		}
		cluster.put(t, waitPod("3", waitHasIP))
		pod, _ := cluster.Pod(waitID)
		remove()
		current := func() (*corev1.Pod, bool) { return cluster.Pod(waitID) }
		if cluster.listening.Note(waitID, pod, current) || len(cluster.listening.Heard) > 0 {
			t.Error("the second one is remembered, though it is gone")
		}
		cluster.put(t, waitPod("5", waitHasIP, func(pod *corev1.Pod) { pod.UID = "uid-2" }))
		if cluster.listening.Note(waitID, pod, current) || len(cluster.listening.Heard) > 0 {
			t.Error("the second one is remembered, though another has its place")
		}
	})
}

// TestDialTCP asks a real port.
func TestDialTCP(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), waitPatience)
	defer cancel()
	if err := earlyready.DialTCP(ctx, listener.Addr().String()); err != nil {
		t.Errorf("a port that is open: %v", err)
	}
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	if earlyready.DialTCP(ctx, listener.Addr().String()) == nil {
		t.Error("a port that is closed answers")
	}
}

// TestReadyWhen: only where our probe is all that is waited for is the pod
// marked, whatever the template says.
func TestReadyWhen(t *testing.T) {
	own := &corev1.Probe{ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/api", Port: intstr.FromInt(8888)}}}
	delayed := podtemplate.ListenProbe(8888)
	delayed.InitialDelaySeconds = 10
	for _, row := range []struct {
		name   string
		change func(*corev1.PodSpec)
		want   bool
	}{
		{"no probe", func(*corev1.PodSpec) {}, true},
		{"a second container", func(spec *corev1.PodSpec) {
			spec.Containers = append(spec.Containers, corev1.Container{Name: "beside"})
		}, true},
		{"a liveness probe", func(spec *corev1.PodSpec) { spec.Containers[0].LivenessProbe = own }, true},
		{"a readiness probe", func(spec *corev1.PodSpec) { spec.Containers[0].ReadinessProbe = own }, false},
		{"a TCP probe with a delay", func(spec *corev1.PodSpec) { spec.Containers[0].ReadinessProbe = delayed }, false},
		{"a startup probe", func(spec *corev1.PodSpec) { spec.Containers[0].StartupProbe = own }, false},
		{"a probe of a second container", func(spec *corev1.PodSpec) {
			spec.Containers = append(spec.Containers, corev1.Container{Name: "beside", ReadinessProbe: own})
		}, false},
		{"a probe of a sidecar", func(spec *corev1.PodSpec) {
			spec.InitContainers = append(spec.InitContainers, corev1.Container{Name: "beside", StartupProbe: own})
		}, false},
		{"a readiness gate", func(spec *corev1.PodSpec) {
			spec.ReadinessGates = []corev1.PodReadinessGate{{ConditionType: "example.com/fed"}}
		}, false},
	} {
		template := &corev1.PodTemplate{ObjectMeta: metav1.ObjectMeta{Name: waitTemplate, Namespace: waitNamespace}}
		template.Template.Annotations = map[string]string{instance.ReadyWhenAnnotation: instance.ReadyWhenListening}
		template.Template.Spec.Containers = []corev1.Container{{Name: "app"}}
		row.change(&template.Template.Spec)
		pod, err := podtemplate.NewPod(template, waitID, time.Now(), 0)
		if err != nil {
			t.Fatal(err)
		}
		if value, marked := pod.Annotations[instance.ReadyWhenAnnotation]; marked != row.want || marked && value != instance.ReadyWhenListening {
			t.Errorf("%s: marked %t with %q, want %t", row.name, marked, value, row.want)
		}
	}
}
