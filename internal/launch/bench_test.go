package launch

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"log/slog"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/binder-project/binder-deploy-kubernetes/internal/admission"
	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
)

// stillPods answers every write at once, and keeps nothing.
type stillPods struct{ pod *corev1.Pod }

func (p stillPods) Create(_ context.Context, pod *corev1.Pod, _ metav1.CreateOptions) (*corev1.Pod, error) {
	return pod, nil
}

func (p stillPods) Patch(context.Context, string, types.PatchType, []byte, metav1.PatchOptions, ...string) (*corev1.Pod, error) {
	return p.pod, nil
}

// stillCache is a read model in which nothing changes.
type stillCache struct {
	Cache
	template *corev1.PodTemplate
	warm     []*corev1.Pod
}

func (c stillCache) Template(context.Context, string) (*corev1.PodTemplate, error) {
	return c.template, nil
}
func (c stillCache) Instance(string) (instance.Instance, bool)        { return instance.Instance{}, false }
func (c stillCache) Pod(string) (*corev1.Pod, bool)                   { return nil, false }
func (c stillCache) Instances(string) []instance.Instance             { return nil }
func (c stillCache) ClientInstances(string) []instance.Instance       { return nil }
func (c stillCache) WarmPods(string) []*corev1.Pod                    { return append([]*corev1.Pod(nil), c.warm...) }
func (c stillCache) Warnings(*corev1.Pod) []*corev1.Event             { return nil }
func (c stillCache) OnInstance(func(string), func(*corev1.Pod)) error { return nil }
func (c stillCache) Wrote(*corev1.Pod)                                {}

// noMetrics counts nothing.
type noMetrics struct{}

func (noMetrics) Launched(string, string)                       {}
func (noMetrics) Claimed(string, string)                        {}
func (noMetrics) ClaimTook(time.Duration)                       {}
func (noMetrics) LaunchTook(string, bool, time.Duration)        {}
func (noMetrics) LaunchPhaseTook(string, string, time.Duration) {}
func (noMetrics) LaunchFailed(string, string)                   {}
func (noMetrics) Ended(string, string, time.Duration)           {}

// BenchmarkLaunch measures what a launch costs beside its write, with a pool of some ready
// pods or without one.
func BenchmarkLaunch(b *testing.B) {
	for _, pool := range []int{0, 20, 200} {
		b.Run(fmt.Sprintf("pool=%d", pool), func(b *testing.B) {
			template := poolTemplate(fmt.Sprint(pool))
			cache := stillCache{template: template}
			for n := range pool {
				cache.warm = append(cache.warm, warmPod(template, n))
			}
			l, err := New(Deps{
				Pods: stillPods{kubetest.Pod(kubetest.ID(1), kubetest.Noon)}, Cache: cache, Templates: cache,
				Admission: admission.New(admission.Deps{Instances: cache, Now: time.Now}),
				MaxAge:    func(*corev1.Pod) time.Duration { return time.Hour }, StartTimeout: kubetest.StartTimeout,
				Metrics: noMetrics{}, Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Now: time.Now, Random: rand.Reader,
			})
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := l.Launch(b.Context(), Request{Template: template.Name, Client: "0123456789abcdef"}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
