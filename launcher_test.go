package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	k8stesting "k8s.io/client-go/testing"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"

	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"

	"github.com/binder-project/binder-deploy-kubernetes/internal/metrics"

	"github.com/binder-project/binder-deploy-kubernetes/internal/kube"

	"github.com/binder-project/binder-deploy-kubernetes/internal/tombstone"

	"github.com/binder-project/binder-deploy-kubernetes/internal/podtemplate"

	"github.com/binder-project/binder-deploy-kubernetes/internal/launch"

	"github.com/binder-project/binder-deploy-kubernetes/internal/protocol"
)

// testLauncher is a launcher on a cluster, and what it says of itself. Its ids
// are those of instances 1, 2, 3 and so on.
type testLauncher struct {
	*launch.Launcher
	log *kubetest.LogBuffer
}

// countingRandom is a source of the bytes of the ids that instanceID makes.
type countingRandom struct{ n byte }

func (r *countingRandom) Read(p []byte) (int, error) {
	r.n++
	return copy(p, append(bytes.Repeat([]byte{0}, 15), r.n)), nil
}

func newTestLauncher(t testing.TB, c *testCluster) testLauncher {
	t.Helper()
	log, lines := kubetest.RecordLog()
	launcher, err := launch.New(c.Client.CoreV1().Pods(kubetest.Namespace), c.Cluster, kubetest.StartTimeout, clusterTemplates{c.Cluster},
		&tombstone.Remover{Client: c.Server.Client, Namespace: kubetest.Namespace, Now: c.Server.Now}, metrics.New("test", metricValues()), log, c.Cluster.now, &countingRandom{}, protocol.NewAPIKey("a key").InstanceID)
	if err != nil {
		t.Fatal(err)
	}
	return testLauncher{launcher, lines}
}

// wantLaunches checks that one launch was counted, and with what result.
func (l testLauncher) wantLaunches(t testing.TB, result string) {
	t.Helper()
	for _, label := range []string{"ok", "unknown_template", "no_capacity", "bad_template", "error"} {
		want := 0.0
		if label == result {
			want = 1
		}
		if got := metric(t, l.Metrics, "binder_launches_total", label); got != want {
			t.Errorf("counted as %s are %v launches, want %v", label, got, want)
		}
	}
}

// held are the launches that have not come to an end.
func (l testLauncher) held() int {
	l.Mu.Lock()
	defer l.Mu.Unlock()
	return len(l.Launching)
}

// A launch is one write, and when it returns its instance is known.
func TestLaunch(t *testing.T) {
	c := startCluster(t, kubetest.ClockAt(kubetest.Noon), kubetest.Template("jupyter"))
	launcher := newTestLauncher(t, c)
	id, err := launcher.Launch(t.Context(), launch.Request{Template: "jupyter", CullTimeout: 90 * time.Second})
	if err != nil || id != kubetest.ID(1) {
		t.Fatalf("got id %q and error %v", id, err)
	}
	inst, known := c.Instance(id)
	if want := (instance.Instance{ID: id, Template: "jupyter", Status: instance.StatusPending, Message: "waiting for a node", Created: kubetest.Noon,
		LastActivity: kubetest.Noon, Source: instance.SourceLaunch, CullAt: kubetest.Noon.Add(kubetest.StartTimeout + 90*time.Second + flushLag(90*time.Second))}); !known || inst != want {
		t.Errorf("known is %+v, %t; want %+v", inst, known, want)
	}
	writes := c.Writes()
	if len(writes) != 1 || !writes[0].Matches("create", "pods") {
		t.Fatalf("the writes are %v, want one pod's creation", writes)
	}
	create := writes[0].(k8stesting.CreateActionImpl)
	if got := create.CreateOptions.FieldManager; got != "binder-deploy-kubernetes" {
		t.Errorf("the field manager is %q", got)
	}
	pod := create.Object.(*corev1.Pod)
	if pod.Annotations[instance.CullTimeoutAnnotation] != "1m30s" || pod.Annotations[instance.LastActivityAnnotation] != instance.FormatTime(kubetest.Noon) {
		t.Errorf("the pod's annotations are %v", pod.Annotations)
	}
	launcher.wantLaunches(t, "ok")
	if !strings.Contains(launcher.log.String(), "msg=launched id="+id+" template=jupyter") {
		t.Errorf("the log is %s", launcher.log)
	}
}

// forbidden is how the API server refuses a pod: for a quota, and for all else.
func forbidden(why string) error {
	return apierrors.NewForbidden(kubetest.PodResource.GroupResource(), "binder-x", errors.New(why))
}

func TestLaunchFails(t *testing.T) {
	var bad *podtemplate.Error
	isBad := func(err error) bool { return errors.As(err, &bad) && bad.Template == "jupyter" }
	is := func(target error) func(error) bool { return func(err error) bool { return errors.Is(err, target) } }
	kind := schema.GroupKind{Kind: "Pod"}
	away := errors.New("the API server is away")
	for _, test := range []struct {
		name     string
		template *corev1.PodTemplate
		answer   error // of the API server; nil if it is not asked
		want     func(error) bool
		counted  string
	}{
		{"unknown template", kubetest.Template("other"), nil, is(podtemplate.ErrUnknown), "unknown_template"},
		{"bad annotation", kubetest.Template("jupyter", kubetest.WithTemplateAnnotation(instance.PortAnnotation, "http")), nil, isBad, "bad_template"},
		{"bad limit", kubetest.Template("jupyter", kubetest.WithTemplateAnnotation(instance.MaxInstancesAnnotation, "many")), nil, isBad, "bad_template"},
		{"no capacity", kubetest.Template("jupyter", kubetest.WithTemplateAnnotation(instance.MaxInstancesAnnotation, "1")), nil, is(launch.ErrCapacity), "no_capacity"},
		{"quota", kubetest.Template("jupyter"), forbidden("exceeded quota: instances, requested: pods=1, used: pods=20, limited: pods=20"), is(launch.ErrCapacity), "no_capacity"},
		{"quota not counted yet", kubetest.Template("jupyter"), forbidden("status unknown for quota: instances, resources: pods"), is(launch.ErrCapacity), "no_capacity"},
		{"pod security", kubetest.Template("jupyter"), forbidden(`violates PodSecurity "baseline:latest": hostNetwork`), isBad, "bad_template"},
		{"invalid", kubetest.Template("jupyter"), apierrors.NewInvalid(kind, "binder-x", nil), isBad, "bad_template"},
		{"bad request", kubetest.Template("jupyter"), apierrors.NewBadRequest("no such field"), isBad, "bad_template"},
		{"overloaded", kubetest.Template("jupyter"), apierrors.NewTooManyRequests("later", 1), apierrors.IsTooManyRequests, "error"},
		{"away", kubetest.Template("jupyter"), away, is(away), "error"},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := startCluster(t, kubetest.ClockAt(kubetest.Noon), test.template, kubetest.Pod(kubetest.ID(99), kubetest.Noon))
			launcher := newTestLauncher(t, c)
			if test.answer != nil {
				c.FailOn("create", "pods", test.answer)
			}
			id, err := launcher.Launch(t.Context(), launch.Request{Template: "jupyter"})
			if id != "" || err == nil || !test.want(err) {
				t.Errorf("got id %q and error %v", id, err)
			}
			if asked := len(c.Writes()) > 0; asked != (test.answer != nil) {
				t.Errorf("the writes are %v", c.Writes())
			}
			launcher.wantLaunches(t, test.counted)
			if launcher.held() > 0 {
				t.Error("the launch is held for one that may still be deployed")
			}
			if strings.Contains(launcher.log.String(), "launched") {
				t.Errorf("the log is %s", launcher.log)
			}
		})
	}
}

// A quota is the only refusal that may pass by itself.
func TestQuotaIsNoBadTemplate(t *testing.T) {
	c := startCluster(t, kubetest.ClockAt(kubetest.Noon), kubetest.Template("jupyter"))
	c.FailOn("create", "pods", forbidden("exceeded quota: instances"))
	_, err := newTestLauncher(t, c).Launch(t.Context(), launch.Request{Template: "jupyter"})
	if bad := (*podtemplate.Error)(nil); errors.As(err, &bad) {
		t.Errorf("got %v", err)
	}
	if kube.IsQuota(errors.New("exceeded quota")) || kube.IsQuota(nil) {
		t.Error("what is not the API server's answer is a quota")
	}
}

func TestLaunchNeedsRandomness(t *testing.T) {
	broken := errors.New("no entropy")
	for name, random := range map[string]io.Reader{"fails": iotest.ErrReader(broken), "ends early": strings.NewReader("15 bytes only..")} {
		c := startCluster(t, kubetest.ClockAt(kubetest.Noon), kubetest.Template("jupyter"))
		launcher := newTestLauncher(t, c)
		launcher.Random = random
		if id, err := launcher.Launch(t.Context(), launch.Request{Template: "jupyter"}); id != "" || err == nil {
			t.Errorf("%s: got id %q and error %v", name, id, err)
		}
		if writes := c.Writes(); len(writes) > 0 {
			t.Errorf("%s: the writes are %v", name, writes)
		}
		launcher.wantLaunches(t, "error")
	}
}

func TestNewID(t *testing.T) {
	random := bytes.NewReader([]byte("0123456789abcdefABCDEFGHIJKLMNOP"))
	for _, want := range []string{"30313233343536373839616263646566", "4142434445464748494a4b4c4d4e4f50"} {
		if got, err := instance.NewID(random); got != want || err != nil || !instance.ValidID(got) {
			t.Errorf("got %q, %v; want %q", got, err, want)
		}
	}
}

// Only what is or may come to be of use takes a place, and only of its template.
func TestLaunchCapacity(t *testing.T) {
	c := startCluster(t, kubetest.ClockAt(kubetest.Noon),
		kubetest.Template("jupyter", kubetest.WithTemplateAnnotation(instance.MaxInstancesAnnotation, "3")),
		kubetest.Pod(kubetest.ID(11), kubetest.Noon, kubetest.Unscheduled), kubetest.Pod(kubetest.ID(12), kubetest.Noon),
		kubetest.Pod(kubetest.ID(13), kubetest.Noon, kubetest.Broken), kubetest.Pod(kubetest.ID(14), kubetest.Noon, kubetest.Completed), kubetest.Pod(kubetest.ID(15), kubetest.Noon, kubetest.Deleting),
		kubetest.Pod(kubetest.ID(16), kubetest.Noon, kubetest.OfTemplate("other")), kubetest.Pod(kubetest.ID(17), kubetest.Noon, kubetest.WithLabel(instance.PoolLabel, "warm")),
		kubetest.Tombstone(kubetest.Pod(kubetest.ID(18), kubetest.Noon), instance.EndCulled, ""))
	launcher := newTestLauncher(t, c)
	if _, err := launcher.Launch(t.Context(), launch.Request{Template: "jupyter"}); err != nil {
		t.Errorf("the third of three: %v", err)
	}
	_, err := launcher.Launch(t.Context(), launch.Request{Template: "jupyter"})
	if !errors.Is(err, launch.ErrCapacity) || !strings.Contains(err.Error(), `"jupyter" has 3 of at most 3`) {
		t.Errorf("the fourth of three: %v", err)
	}
	c.drop(t, kubetest.ID(12))
	if _, err := launcher.Launch(t.Context(), launch.Request{Template: "jupyter"}); err != nil {
		t.Errorf("after one has ended: %v", err)
	}
}

// A watch that lags holds a launch up for a moment only.
func TestLaunchDoesNotWaitLongForTheWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startCluster(t, time.Now, kubetest.Template("jupyter"))
		launcher := newTestLauncher(t, c)
		c.React("create", "pods", func(action k8stesting.Action) (bool, runtime.Object, error) {
			return true, action.(k8stesting.CreateAction).GetObject(), nil // and the watch never hears of it
		})
		began := time.Now()
		id, err := launcher.Launch(t.Context(), launch.Request{Template: "jupyter"})
		if id != kubetest.ID(1) || err != nil {
			t.Errorf("got id %q and error %v", id, err)
		}
		if took := time.Since(began); took != kube.OwnWriteWait {
			t.Errorf("took %s, want %s", took, kube.OwnWriteWait)
		}
	})
}

// hangingPods are at an API server that does not answer.
type hangingPods struct{ typedcorev1.PodInterface }

func (hangingPods) Create(ctx context.Context, _ *corev1.Pod, _ metav1.CreateOptions) (*corev1.Pod, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// A client waits for the launch, and can try again.
func TestLaunchGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		launcher := newTestLauncher(t, startCluster(t, time.Now, kubetest.Template("jupyter")))
		launcher.Pods = hangingPods{launcher.Pods}
		began := time.Now()
		if id, err := launcher.Launch(t.Context(), launch.Request{Template: "jupyter"}); id != "" || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got id %q and error %v", id, err)
		}
		if took := time.Since(began); took != kube.CreateTimeout {
			t.Errorf("took %s, want %s", took, kube.CreateTimeout)
		}
		launcher.wantLaunches(t, "error")
	})
}

// A request that was lost on the way back has been repeated: the pod that then
// exists already is the launch's own.
func TestLaunchOfItsOwnPodAgain(t *testing.T) {
	c := startCluster(t, kubetest.ClockAt(kubetest.Noon), kubetest.Template("jupyter"))
	launcher := newTestLauncher(t, c)
	c.React("create", "pods", func(action k8stesting.Action) (bool, runtime.Object, error) {
		pod := action.(k8stesting.CreateAction).GetObject().(*corev1.Pod)
		pod.CreationTimestamp = metav1.NewTime(kubetest.Noon)
		if err := c.Client.Tracker().Add(pod); err != nil {
			return true, nil, err
		}
		return true, nil, apierrors.NewAlreadyExists(kubetest.PodResource.GroupResource(), pod.Name)
	})
	id, err := launcher.Launch(t.Context(), launch.Request{Template: "jupyter"})
	if id != kubetest.ID(1) || err != nil {
		t.Errorf("got id %q and error %v", id, err)
	}
	launcher.wantLaunches(t, "ok")
	if launcher.held() != 1 {
		t.Error("the launch is not held, and so will not be measured")
	}
}

// The time from the launch to the first moment of use is measured, by the
// replica that launched.
func TestLaunchDuration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startCluster(t, time.Now, kubetest.Template("jupyter"))
		launcher := newTestLauncher(t, c)
		id, err := launcher.Launch(t.Context(), launch.Request{Template: "jupyter"})
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		time.Sleep(time.Second)
		c.put(t, kubetest.Pod(id, began, kubetest.Starting))
		time.Sleep(3*time.Second - time.Since(began))
		for range 2 { // the second time is no launch
			c.put(t, kubetest.Pod(id, began))
			c.put(t, kubetest.Pod(kubetest.ID(9), began)) // another replica's
		}
		synctest.Wait()
		if got := metric(t, launcher.Metrics, "binder_launch_duration_seconds"); got != 1 {
			t.Errorf("%v launches were measured, want 1", got)
		}
		if !strings.Contains(launcher.log.String(), "msg=deployed id="+id+" template=jupyter duration=3s") {
			t.Errorf("the log is %s", launcher.log)
		}
		if launcher.held() > 0 {
			t.Error("a launch is held that has come to its end")
		}
	})
}

// A launch that comes to nothing is not measured, and not held for ever.
func TestLaunchComesToNothing(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*corev1.Pod) // nil for one that is deleted
		log    string
	}{
		"broken":    {kubetest.Broken, "level=WARN msg=\"launch failed\" id=" + kubetest.ID(1) + " template=jupyter reason=Error"},
		"completed": {kubetest.Completed, ""},
		"deleting":  {kubetest.Deleting, ""},
		"deleted":   {nil, ""},
	} {
		synctest.Test(t, func(t *testing.T) {
			c := startCluster(t, time.Now, kubetest.Template("jupyter"))
			launcher := newTestLauncher(t, c)
			id, err := launcher.Launch(t.Context(), launch.Request{Template: "jupyter"})
			if err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			if launcher.held() != 1 {
				t.Errorf("%s: %d launches are held, want the one", name, launcher.held())
			}
			if test.change == nil {
				c.drop(t, id)
			} else {
				c.put(t, kubetest.Pod(id, time.Now(), test.change))
			}
			synctest.Wait()
			if launcher.held() > 0 {
				t.Errorf("%s: the launch is still held", name)
			}
			if got := metric(t, launcher.Metrics, "binder_launch_duration_seconds"); got != 0 {
				t.Errorf("%s: %v launches were measured", name, got)
			}
			if !strings.Contains(launcher.log.String(), test.log) {
				t.Errorf("%s: the log is %s", name, launcher.log)
			}
		})
	}
}

func TestStop(t *testing.T) {
	const template = kubetest.TemplateName
	for _, test := range []struct {
		name     string
		objects  []runtime.Object
		template string
		want     error
		stops    bool
	}{
		{"deployed", []runtime.Object{kubetest.Pod(kubetest.ID(1), kubetest.Noon)}, template, nil, true},
		{"not yet deployed", []runtime.Object{kubetest.Pod(kubetest.ID(1), kubetest.Noon, kubetest.Unscheduled)}, template, nil, true},
		{"failed", []runtime.Object{kubetest.Pod(kubetest.ID(1), kubetest.Noon, kubetest.Broken)}, template, nil, true},
		{"over", []runtime.Object{kubetest.Tombstone(kubetest.Pod(kubetest.ID(1), kubetest.Noon), instance.EndCulled, "")}, template, nil, false},
		{"being deleted", []runtime.Object{kubetest.Pod(kubetest.ID(1), kubetest.Noon, kubetest.Deleting)}, template, nil, false},
		{"of another template", []runtime.Object{kubetest.Pod(kubetest.ID(1), kubetest.Noon)}, "other", launch.ErrNoRecord, false},
		{"nobody's", []runtime.Object{kubetest.Pod(kubetest.ID(1), kubetest.Noon, kubetest.WithLabel(instance.PoolLabel, "warm"))}, template, launch.ErrNoRecord, false},
		{"unknown", nil, template, launch.ErrNoRecord, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := startCluster(t, kubetest.ClockAt(kubetest.Noon), test.objects...)
			launcher := newTestLauncher(t, c)
			if err := launcher.Stop(t.Context(), test.template, kubetest.ID(1)); !errors.Is(err, test.want) {
				t.Errorf("got error %v, want %v", err, test.want)
			}
			ended := 0.0
			if test.stops {
				ended = 1
				pod := test.objects[0].(*corev1.Pod)
				// In use or not: with no resourceVersion.
				kubetest.WantRemoved(t, c.Writes(), pod, metav1.Preconditions{UID: &pod.UID})
				kubetest.Eventually(t, "the instance is known as stopped", func() bool {
					inst, _ := c.Instance(kubetest.ID(1))
					return inst.Reason == "Stopped" && inst.Message == "stopped by request"
				})
			} else if writes := c.Writes(); len(writes) > 0 {
				t.Errorf("the writes are %v", writes)
			}
			if got := metric(t, launcher.Metrics, "binder_culls_total", "Stopped"); got != ended {
				t.Errorf("counted are %v, want %v", got, ended)
			}
			if logged := strings.Contains(launcher.log.String(), "msg=stopped id="+kubetest.ID(1)); logged != test.stops {
				t.Errorf("the log is %s", launcher.log)
			}
		})
	}
}

// Somebody else was faster: it is stopped, and by us it was not.
func TestStopOfWhatIsGone(t *testing.T) {
	c := startCluster(t, kubetest.ClockAt(kubetest.Noon), kubetest.Pod(kubetest.ID(1), kubetest.Noon))
	launcher := newTestLauncher(t, c)
	c.FailOn("delete", "pods", kubetest.NotFound(instance.PodName(kubetest.ID(1))))
	if err := launcher.Stop(t.Context(), kubetest.TemplateName, kubetest.ID(1)); err != nil {
		t.Errorf("got error %v", err)
	}
	if got := metric(t, launcher.Metrics, "binder_culls_total", "Stopped"); got != 0 || strings.Contains(launcher.log.String(), "stopped") {
		t.Errorf("counted are %v, and the log is %q", got, launcher.log)
	}
}

func TestStopFails(t *testing.T) {
	c := startCluster(t, kubetest.ClockAt(kubetest.Noon), kubetest.Pod(kubetest.ID(1), kubetest.Noon))
	launcher := newTestLauncher(t, c)
	away := errors.New("the API server is away")
	c.FailOn("delete", "pods", away)
	if err := launcher.Stop(t.Context(), kubetest.TemplateName, kubetest.ID(1)); !errors.Is(err, away) {
		t.Errorf("got error %v, want %v", err, away)
	}
	if got := metric(t, launcher.Metrics, "binder_culls_total", "Stopped"); got != 0 {
		t.Errorf("counted are %v, want none", got)
	}
}
