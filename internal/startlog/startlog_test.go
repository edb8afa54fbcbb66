package startlog

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
)

func onNodeSince(at time.Time) func(*corev1.Pod) {
	return func(pod *corev1.Pod) { pod.Status.StartTime = new(metav1.NewTime(at)) }
}

// starting is a pod whose application runs, and is not ready.
func starting(changes ...func(*corev1.Pod)) *corev1.Pod {
	return kubetest.Pod(kubetest.ID(1), kubetest.Noon, append([]func(*corev1.Pod){
		kubetest.NotReadySince(kubetest.Noon), onNodeSince(kubetest.Noon), kubetest.WithAnnotation(instance.TokenAnnotation, kubetest.Token), kubetest.WithAnnotation(instance.LogsAnnotation, instance.LogsOfStart),
	}, changes...)...)
}

// one is a read model of one pod.
type one struct {
	mu      sync.Mutex
	pod     *corev1.Pod
	changed chan struct{}
}

func newOne(pod *corev1.Pod) *one { return &one{pod: pod, changed: make(chan struct{})} }

func (o *one) put(pod *corev1.Pod) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.pod = pod
	close(o.changed)
	o.changed = make(chan struct{})
}

func (o *one) Pod(id string) (*corev1.Pod, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.pod, o.pod != nil && id == kubetest.ID(1)
}

func (o *one) Await(ctx context.Context, id string, good func(instance.Instance, bool) bool) (instance.Instance, bool) {
	for {
		o.mu.Lock()
		pod, changed := o.pod, o.changed
		o.mu.Unlock()
		inst := instance.FromPod(pod, nil, kubetest.Noon.Add(time.Minute), kubetest.StartTimeout)
		if good(inst, id == kubetest.ID(1)) || ctx.Err() != nil {
			return inst, true
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
}

// logs are Logs of one pod, whose log is what is written to the pipe.
func logs(t *testing.T, pod *corev1.Pod) (l *Logs, o *one, write *io.PipeWriter) {
	t.Helper()
	o = newOne(pod)
	read, write := io.Pipe()
	return New(Deps{Cache: o, Log: kubetest.NoLog(), Open: func(ctx context.Context, name string, opts *corev1.PodLogOptions) (io.ReadCloser, error) {
		if name != pod.Name || opts.Container != "notebook" || !opts.Follow || *opts.LimitBytes != maxLog {
			t.Errorf("opened the log of %s with %+v", name, opts)
		}
		context.AfterFunc(ctx, func() { _ = read.CloseWithError(ctx.Err()) })
		return read, nil
	}}), o, write
}

// The lines of a start arrive as they are written, as plain text and without secrets, and end when
// the instance is deployed.
func TestFollow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pod := starting()
		l, o, write := logs(t, pod)
		var got []string
		done := make(chan error)
		go func() {
			done <- l.Follow(t.Context(), kubetest.ID(1), func(lines string) error { got = append(got, lines); return nil })
		}()
		for _, said := range []string{
			"reading\n", "\x1b[31mred\x1b[0m and \u202ehidden\r\n", "at /user/" + kubetest.ID(1) + "/?token=" + kubetest.Token + "\n",
			strings.Repeat("x", 3*maxLine) + "\nnext\n", "two\nlines\n",
		} {
			_, _ = io.WriteString(write, said)
			synctest.Wait()
		}
		o.put(kubetest.Pod(kubetest.ID(1), kubetest.Noon))
		if err := <-done; err != nil {
			t.Error(err)
		}
		all := strings.Join(got, "\n")
		want := "reading\nred and hidden\nat /user/[id]/?token=[token]\n" + strings.Repeat("x", maxLine) + "\nnext\ntwo\nlines"
		if all != want {
			t.Errorf("got %q, want %q", all, want)
		}
		if got[0] != "reading" {
			t.Errorf("the first arrived as %q", got[0])
		}
	})
}

// A log is waited for until there is one. Nothing is read of an instance whose template does not
// allow it, and of one that is deployed.
func TestFollowOnlyWhatMayBeSeen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		send := func(string) error { t.Error("something was sent"); return nil }
		for name, pod := range map[string]*corev1.Pod{
			"not allowed": starting(kubetest.WithAnnotation(instance.LogsAnnotation, "all")),
			"unknown":     nil,
			"not ready any more, and used": kubetest.Pod(kubetest.ID(1), kubetest.Noon.Add(-time.Hour), kubetest.NotReadySince(kubetest.Noon), onNodeSince(kubetest.Noon.Add(-time.Hour)),
				kubetest.WithAnnotation(instance.LogsAnnotation, instance.LogsOfStart)),
		} {
			l := New(Deps{Cache: newOne(pod), Log: kubetest.NoLog()})
			if err := l.Follow(t.Context(), kubetest.ID(1), send); !errors.Is(err, ErrNone) {
				t.Errorf("%s: got %v", name, err)
			}
		}
		l, o, _ := logs(t, starting(kubetest.Unscheduled))
		done := make(chan error)
		go func() { done <- l.Follow(t.Context(), kubetest.ID(1), send) }()
		synctest.Wait()
		o.put(kubetest.Pod(kubetest.ID(1), kubetest.Noon, kubetest.WithAnnotation(instance.LogsAnnotation, instance.LogsOfStart)))
		if err := <-done; err != nil {
			t.Errorf("deployed before it had a log: %v", err)
		}
	})
}

// Only so many are followed, of one instance and in all, and not opened again and again. Those that
// wait for a log to begin do not count. What cannot be read is said to the operator.
func TestFollowIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, said := kubetest.RecordLog()
		refused := apierrors.NewForbidden(schema.GroupResource{Resource: "pods/log"}, "x", errors.New("no"))
		var opened []time.Time
		l := New(Deps{Cache: newOne(starting()), Log: log, Open: func(context.Context, string, *corev1.PodLogOptions) (io.ReadCloser, error) {
			opened = append(opened, time.Now())
			return nil, refused
		}})
		for range 3 {
			if err := l.Follow(t.Context(), kubetest.ID(1), nil); err != nil || !strings.Contains(said.String(), "the component start-logs gives the right to it") {
				t.Errorf("got %v, and the log %s", err, said)
			}
		}
		if len(opened) != 3 || opened[2].Sub(opened[0]) < 2*openPause {
			t.Errorf("opened at %v", opened)
		}

		o := newOne(starting(kubetest.Unscheduled))
		silent, _ := io.Pipe()
		waiting := New(Deps{Cache: o, Log: log, Open: func(ctx context.Context, _ string, _ *corev1.PodLogOptions) (io.ReadCloser, error) {
			context.AfterFunc(ctx, func() { _ = silent.Close() })
			return silent, nil
		}})
		ctx, cancel := context.WithCancel(t.Context())
		var busy atomic.Int64
		var all sync.WaitGroup
		for range 2 * maxFollowed {
			all.Go(func() {
				if errors.Is(waiting.Follow(ctx, kubetest.ID(1), nil), ErrBusy) {
					busy.Add(1)
				}
			})
		}
		synctest.Wait()
		if len(waiting.followed) != 0 || busy.Load() != 0 {
			t.Errorf("%d are followed without a log, and %d were refused", len(waiting.followed), busy.Load())
		}
		o.put(starting())
		time.Sleep(2 * openPause)
		synctest.Wait()
		if busy.Load() != 2*maxFollowed-maxOfOne || len(waiting.followed) != maxOfOne {
			t.Errorf("%d were refused, and %d are followed", busy.Load(), len(waiting.followed))
		}
		cancel()
		all.Wait()
		if len(waiting.followed) != 0 || waiting.ofID[kubetest.ID(1)].by != 0 {
			t.Errorf("something is left: %d, %v", len(waiting.followed), waiting.ofID)
		}
	})
}
