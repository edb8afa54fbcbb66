package pool

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	k8stesting "k8s.io/client-go/testing"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kube"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
	"github.com/binder-project/binder-deploy-kubernetes/internal/podtemplate"
)

// startTimeout is not a multiple of resync, so that only a timer can meet it.
const startTimeout = 90 * time.Second

var (
	errAway  = errors.New("the API server is away")
	errQuota = apierrors.NewForbidden(kubetest.PodResource.GroupResource(), "x", errors.New("exceeded quota"))
)

// testPool is a pool in a world of its own.
type testPool struct {
	*kubetest.World
	t        testing.TB
	pool     *Pool
	log      *kubetest.LogBuffer
	failures atomic.Int64 // as a metric
}

func (p *testPool) PoolFailed(string) { p.failures.Add(1) }

// inBubble runs a test with fake time, by which the world and the work queue go.
func inBubble(t *testing.T, test func(t *testing.T, p *testPool)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		p := &testPool{World: kubetest.NewWorld(time.Now, podtemplate.ErrUnknown), t: t}
		log, lines := kubetest.RecordLog()
		pool, err := New(Deps{
			Pods: p.Client.CoreV1().Pods(kubetest.Namespace), Cache: p, StartTimeout: startTimeout,
			Metrics: p, Log: log, Now: time.Now, Random: rand.Reader,
		})
		if err != nil {
			t.Fatal(err)
		}
		p.pool, p.log = pool, lines
		test(t, p)
	})
}

// lead runs a term until the test, or the function that it returns, ends it.
func (p *testPool) lead() (stop func()) {
	ctx, cancel := context.WithCancel(p.t.Context())
	var running sync.WaitGroup
	running.Go(func() { p.pool.Run(ctx) })
	stop = func() {
		cancel()
		running.Wait()
	}
	p.t.Cleanup(stop)
	synctest.Wait()
	return stop
}

// put creates or replaces the template, and waits until the pool is at rest.
func (p *testPool) put(size string, changes ...func(*corev1.PodTemplate)) *corev1.PodTemplate {
	p.t.Helper()
	changes = append(changes, kubetest.WithTemplateAnnotation(instance.PoolSizeAnnotation, size))
	template := kubetest.Template(kubetest.TemplateName, changes...)
	p.Put(p.t, template)
	synctest.Wait()
	return template
}

func image(image string) func(*corev1.PodTemplate) {
	return func(template *corev1.PodTemplate) { template.Template.Spec.Containers[0].Image = image }
}

// change changes a pod, and waits until the pool is at rest.
func (p *testPool) change(name string, changes ...func(*corev1.Pod)) {
	p.t.Helper()
	for _, change := range changes {
		p.ChangePod(p.t, name, change)
	}
	synctest.Wait()
}

func claim(pod *corev1.Pod) { delete(pod.Labels, instance.PoolLabel) }

func ready(pod *corev1.Pod) { pod.Status = kubetest.Pod(kubetest.ID(1), time.Now()).Status }

func broken(pod *corev1.Pod) { pod.Status.Phase = corev1.PodFailed }

// after lets time pass.
func (p *testPool) after(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// names returns the names of the pods on the server, the warm ones first.
func (p *testPool) names() (warm, claimed []string) {
	p.t.Helper()
	list, err := p.Client.CoreV1().Pods(kubetest.Namespace).List(p.t.Context(), metav1.ListOptions{})
	if err != nil {
		p.t.Fatal(err)
	}
	for i := range list.Items {
		if instance.IsWarm(&list.Items[i]) {
			warm = append(warm, list.Items[i].Name)
		} else {
			claimed = append(claimed, list.Items[i].Name)
		}
	}
	return warm, claimed
}

// want checks how many pods there are, and how many creates and deletes were tried.
func (p *testPool) want(when string, warm, creates, deletes int) (names []string) {
	p.t.Helper()
	names, _ = p.names()
	gotCreates, gotDeletes := len(p.WritesOf("create", "pods")), len(p.WritesOf("delete", "pods"))
	if len(names) != warm || gotCreates != creates || gotDeletes != deletes {
		p.t.Fatalf("%s: %d warm pods after %d creates and %d deletes; want %d, %d, %d",
			when, len(names), gotCreates, gotDeletes, warm, creates, deletes)
	}
	return names
}

func (p *testPool) wantLines(level string, want int) {
	p.t.Helper()
	if got := strings.Count(p.log.String(), "level="+level); got != want {
		p.t.Errorf("%d log lines of level %s, want %d:\n%s", got, level, want, p.log)
	}
}

// TestLife goes through the life of a pool in which only events tell it what to do.
func TestLife(t *testing.T) {
	inBubble(t, func(t *testing.T, p *testPool) {
		p.lead()
		template := p.put("3")
		first := p.want("filled", 3, 3, 0)[0]
		pod, err := p.StoredPod(first)
		if err != nil {
			t.Fatal(err)
		}
		if _, used := pod.Annotations[instance.LastActivityAnnotation]; used || instance.IsInstance(pod) ||
			pod.Labels[instance.TemplateHashLabel] != podtemplate.Hash(template) {
			t.Errorf("a warm pod has labels %v and annotations %v", pod.Labels, pod.Annotations)
		}

		p.change(first, claim)
		p.after(pausePerClaim)
		p.want("the claimed pod is replaced", 3, 4, 0)
		template = p.put("3", image("app:2"))
		for _, name := range p.want("of the new version", 3, 7, 3) {
			if pod, err := p.StoredPod(name); err != nil || pod.Labels[instance.TemplateHashLabel] != podtemplate.Hash(template) {
				t.Errorf("a warm pod has labels %v, error %v", pod.Labels, err)
			}
		}
		p.put("1", image("app:2"))
		p.DropPod(t, p.want("smaller", 1, 7, 5)[0])
		synctest.Wait() // an empty pool does not wait for more claims
		p.want("the lost pod is replaced", 1, 8, 5)

		if err := p.Client.CoreV1().PodTemplates(kubetest.Namespace).Delete(t.Context(), template.Name, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		p.want("the template is gone", 0, 8, 6)
		if _, claimed := p.names(); !slices.Equal(claimed, []string{first}) {
			t.Errorf("claimed pods are %q, want %q", claimed, first)
		}
		for _, call := range p.Writes() {
			if call.GetResource().Resource == "events" {
				t.Error("a warm pod has a tombstone")
			}
		}
		p.wantLines("ERROR", 0)
		p.wantLines("WARN", 0)
	})
}

// TestBurst has several pods claimed one after the other. Timers alone tell when to refill.
func TestBurst(t *testing.T) {
	inBubble(t, func(t *testing.T, p *testPool) {
		p.lead()
		p.put("8")
		p.want("some start", 4, 4, 0)
		p.after(startingTime)
		all := p.want("the others start although these are slow", 8, 8, 0)
		for _, name := range all {
			p.change(name, ready)
		}
		for _, name := range all[:3] {
			p.after(100 * time.Millisecond)
			p.change(name, claim)
		}
		p.want("the burst passes", 5, 8, 0)
		p.after(2 * pausePerClaim)
		p.want("in the pause", 5, 8, 0)
		p.after(pausePerClaim)
		p.want("after the pause", 8, 11, 0)
		p.wantLines("ERROR", 0)
	})
}

// TestReadsOwnWrites looks at pools whose own writes the watch has not delivered.
func TestReadsOwnWrites(t *testing.T) {
	lookAgain := func(p *testPool) {
		for range 5 {
			p.pool.controller.Enqueue(kubetest.TemplateName)
			synctest.Wait()
		}
	}
	t.Run("creates", func(t *testing.T) {
		inBubble(t, func(t *testing.T, p *testPool) {
			p.put("4")
			p.PauseWatch()
			p.lead()
			lookAgain(p)
			p.want("created once", 4, 4, 0)
		})
	})
	t.Run("deletes", func(t *testing.T) {
		inBubble(t, func(t *testing.T, p *testPool) {
			p.lead()
			p.put("4")
			pause := sync.OnceFunc(p.PauseWatch)
			p.React("delete", "pods", func(k8stesting.Action) (bool, runtime.Object, error) {
				pause()
				return false, nil, nil
			})
			p.put("1")
			lookAgain(p)
			p.want("deleted once", 1, 4, 3)
		})
	})
	t.Run("never delivered", func(t *testing.T) {
		inBubble(t, func(t *testing.T, p *testPool) {
			p.pool.deps.StartTimeout = time.Hour
			p.put("1")
			p.PauseWatch()
			p.lead()
			p.DropPod(t, p.want("created", 1, 1, 0)[0])
			p.ResumeWatch()
			p.after(3*resync + time.Second)
			p.want("forgotten and replaced", 1, 2, 0)
		})
	})
}

// TestPauses has a quota refuse two of three creates.
func TestPauses(t *testing.T) {
	inBubble(t, func(t *testing.T, p *testPool) {
		tries := 0
		p.React("create", "pods", func(k8stesting.Action) (bool, runtime.Object, error) {
			tries++
			return tries%3 != 1 && tries < 10, nil, errQuota
		})
		p.lead()
		p.put("3")
		p.want("at once", 1, 3, 0)
		p.after(4 * time.Second)
		p.want("in the first pause", 1, 3, 0)
		p.after(time.Second)
		p.want("after it", 2, 5, 0)
		p.after(9 * time.Second)
		p.want("in the second pause", 2, 5, 0)
		if got := p.failures.Load(); got != 2 {
			t.Errorf("%d failures are counted, want one a pause", got)
		}
		p.wantLines("WARN", 2)
		tries = 10
		p.put("3", image("app:2"))
		p.want("another version starts at once", 3, 8, 2)
		p.wantLines("ERROR", 0)
	})
}

// TestReplacesFailed covers failures in a row, and when they are forgotten.
func TestReplacesFailed(t *testing.T) {
	inBubble(t, func(t *testing.T, p *testPool) {
		p.lead()
		p.put("1")
		p.change(p.want("filled", 1, 1, 0)[0], broken)
		p.want("failed", 0, 1, 1)
		p.after(firstPause)
		p.change(p.want("after the pause", 1, 2, 1)[0], ready)
		// It serves for the length of the pause and a second, and then is claimed: the
		// failure is forgotten, although nothing happened when the pause had passed.
		p.after(firstPause + time.Second)
		p.change(p.want("still there", 1, 2, 1)[0], claim)
		p.change(p.want("replaced", 1, 3, 1)[0], broken)
		p.after(firstPause)
		p.want("after the first pause again", 1, 4, 2)
		p.after(startTimeout + instance.ReportLag - time.Second)
		p.want("may still start", 1, 4, 2)
		p.after(time.Second)
		p.want("has not started in time", 0, 4, 3)
		p.wantLines("INFO", 3) // each delete
		if got := p.failures.Load(); got != 3 {
			t.Errorf("%d failures are counted, want 3", got)
		}
	})
}

// TestSparesTheClaimed has a launch claim a pod just before it would be deleted.
func TestSparesTheClaimed(t *testing.T) {
	inBubble(t, func(t *testing.T, p *testPool) {
		p.lead()
		p.put("1")
		name := p.want("filled", 1, 1, 0)[0]
		p.React("delete", "pods", func(k8stesting.Action) (bool, runtime.Object, error) {
			p.ChangePod(t, name, claim)
			return false, nil, nil
		})
		p.put("0")
		p.want("tried once", 0, 1, 1)
		if _, claimed := p.names(); !slices.Equal(claimed, []string{name}) {
			t.Errorf("claimed pods are %q, want %q", claimed, name)
		}
		p.wantLines("ERROR", 0)
	})
}

// TestLostAnswers covers writes that were done by an attempt whose answer got lost.
func TestLostAnswers(t *testing.T) {
	inBubble(t, func(t *testing.T, p *testPool) {
		p.lead()
		p.React("create", "pods", func(action k8stesting.Action) (bool, runtime.Object, error) {
			pod := action.(k8stesting.CreateAction).GetObject().(*corev1.Pod)
			pod.CreationTimestamp = metav1.Now()
			p.PutPod(t, pod)
			return true, nil, apierrors.NewAlreadyExists(kubetest.PodResource.GroupResource(), pod.Name)
		})
		p.put("2")
		p.want("exist already", 2, 2, 0)
		p.React("delete", "pods", func(action k8stesting.Action) (bool, runtime.Object, error) {
			p.DropPod(t, kubetest.NameOf(action))
			return false, nil, nil
		})
		p.put("1")
		p.want("gone already", 1, 2, 1)
		p.wantLines("ERROR", 0)
	})
}

// TestBadTemplates covers templates that no pod is kept warm of.
func TestBadTemplates(t *testing.T) {
	for _, test := range []struct {
		name, size string
		change     func(*corev1.PodTemplate)
		warnings   int
		failures   int64
	}{
		{"bad size", "two", image("app:1"), 0, 0}, // an Event on the template tells
		{"no pod can be made", "2", kubetest.WithTemplateAnnotation(instance.PortAnnotation, "http"), 2, 2},
	} {
		t.Run(test.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, p *testPool) {
				p.lead()
				p.put(test.size, test.change)
				p.after(firstPause)
				if got := p.failures.Load(); got != test.failures {
					t.Errorf("%d failures are counted, want %d", got, test.failures)
				}
				p.pool.controller.Enqueue(kubetest.TemplateName)
				synctest.Wait()
				p.want("nothing to create", 0, 0, 0)
				p.wantLines("WARN", test.warnings)
				p.put("1")
				p.want("corrected", 1, 1, 0)
			})
		})
	}
}

// TestErrorsOfTheServer has every write fail for a while. Retries slow down, but
// not below one every few seconds: it is not the template's fault.
func TestErrorsOfTheServer(t *testing.T) {
	for verb, sizes := range map[string][3]string{"create": {"0", "1", "2"}, "delete": {"2", "1", "0"}} {
		t.Run(verb, func(t *testing.T) {
			inBubble(t, func(t *testing.T, p *testPool) {
				p.lead()
				p.put(sizes[0])
				mend := p.FailOn(verb, "pods", errAway)
				p.put(sizes[1])
				wantTry := func(number int) {
					t.Helper()
					if got := len(p.WritesOf(verb, "pods")); got != number {
						t.Fatalf("%d tries, want %d", got, number)
					}
				}
				for i, wait := range []time.Duration{0, 1, 2, 4, 5, 5, 5} {
					p.after(wait * time.Second)
					wantTry(i + 1)
					p.wantLines("ERROR", i+1)
				}
				mend()
				p.after(longestRetry)
				wantTry(8)
				if warm, _ := p.names(); len(warm) != 1 {
					t.Errorf("mended: %d warm pods, want 1", len(warm))
				}
				p.FailOn(verb, "pods", errAway)
				p.put(sizes[2])
				p.after(firstRetry)
				wantTry(8 + 2) // retries have started over
				if got := p.failures.Load(); got != 0 {
					t.Errorf("%d failures of pods are counted, want none", got)
				}
			})
		})
	}
}

// TestNoTemplateNoConclusion: a template that cannot be read keeps its pods.
func TestNoTemplateNoConclusion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, lines := kubetest.RecordLog()
		pod := kubetest.Pod(kubetest.ID(1), time.Now(), kubetest.WithLabel(instance.PoolLabel, instance.PoolWarm))
		p := &testPool{World: kubetest.NewWorld(time.Now, errAway, pod), t: t, log: lines}
		pool, err := New(Deps{Cache: p, Metrics: p, Log: log, Now: time.Now})
		if err != nil {
			t.Fatal(err)
		}
		p.pool = pool
		p.lead()
		p.want("one attempt", 1, 0, 0)
		p.wantLines("ERROR", 1)
	})
}

// TestTerms: nothing is done between two terms, and the second starts with all that
// is to do, and with no memory of the first.
func TestTerms(t *testing.T) {
	inBubble(t, func(t *testing.T, p *testPool) {
		p.put("2")
		p.want("not leading yet", 0, 0, 0)
		stop := p.lead()
		p.change(p.want("leading", 2, 2, 0)[0], broken)
		p.want("paused", 1, 2, 1)
		stop()
		p.change(p.want("no leader", 1, 2, 1)[0], claim)
		p.after(time.Hour)
		p.want("no leader", 0, 2, 1)
		warm := kubetest.Pod(kubetest.ID(1), time.Now(), kubetest.OfTemplate("gone"), kubetest.WithLabel(instance.PoolLabel, instance.PoolWarm))
		p.PutPod(t, warm)

		stop = p.lead()
		p.change(p.want("second term", 2, 4, 2)[0], broken)
		stop()
		p.lead()
		p.want("third term, in the second's pause", 2, 5, 3)
	})
}

// endingPods ends the term at its first write. No write is quick or heeds that.
type endingPods struct {
	PodWriter
	end            context.CancelFunc
	begun, running atomic.Int64
}

func (p *endingPods) Create(context.Context, *corev1.Pod, metav1.CreateOptions) (*corev1.Pod, error) {
	p.end()
	p.begun.Add(1)
	p.running.Add(1)
	defer p.running.Add(-1)
	time.Sleep(time.Second)
	return nil, errAway
}

// TestTermEndsMidway: Run returns when the writes that had begun are done, and no
// other write begins.
func TestTermEndsMidway(t *testing.T) {
	for _, test := range []struct{ templates, size, most int }{{1, 100, kube.Writers}, {100, 1, workers}} {
		t.Run(fmt.Sprintf("%d templates", test.templates), func(t *testing.T) {
			inBubble(t, func(t *testing.T, p *testPool) {
				for i := range test.templates {
					p.put(fmt.Sprint(test.size), func(template *corev1.PodTemplate) { template.Name += fmt.Sprint("-", i) })
				}
				ctx, cancel := context.WithCancel(t.Context())
				pods := &endingPods{end: cancel}
				p.pool.deps.Pods = pods
				p.pool.Run(ctx) // what it started must end: a bubble waits for that
				if begun, running := int(pods.begun.Load()), pods.running.Load(); begun == 0 || begun > test.most || running != 0 {
					t.Errorf("%d writes have begun and %d are running, want at most %d and none", begun, running, test.most)
				}
				p.put("two")
				p.pool.Run(ctx)
				p.wantLines("WARN", 0)
				p.wantLines("ERROR", 0)
			})
		})
	}
}
