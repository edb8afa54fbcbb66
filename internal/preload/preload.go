// Package preload pulls the images of templates onto nodes before anybody waits for
// them. A preload is a DaemonSet: Kubernetes brings it to every node, also to those
// that join later, and counts the nodes that have the images. Any replica may begin
// a preload and tell how far it is; the elected leader keeps it in step with its
// template.
//
// It must never know of instances: a launch neither needs nor waits for a preload.
package preload

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/workqueue"

	"github.com/binder-project/binder-deploy-kubernetes/internal/controller"
	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kube"
	"github.com/binder-project/binder-deploy-kubernetes/internal/podtemplate"
)

// Cache is what a Preloader asks the read model.
type Cache interface {
	// Preloads returns the preloads of a template, or all for "", own writes
	// included and without those that are being deleted.
	Preloads(template string) []*appsv1.DaemonSet
	// PreloadPods returns the pods of a preload.
	PreloadPods(set *appsv1.DaemonSet) []*corev1.Pod
	// Warnings returns the Warning Events of a pod.
	Warnings(pod *corev1.Pod) []*corev1.Event
	// AwaitPreload returns the preloads of a template as soon as good accepts them, or
	// else when ctx is done.
	AwaitPreload(ctx context.Context, template string, good func([]*appsv1.DaemonSet) bool) []*appsv1.DaemonSet
	// OnPreload calls changed with the name of a template when the template or a
	// preload of it changes. It must be called before the cache runs.
	OnPreload(changed func(template string)) error
	// WrotePreload adds what a write has returned. A DaemonSet whose deletion was
	// accepted is given with its deletion time set.
	WrotePreload(set *appsv1.DaemonSet)
}

// DaemonSetWriter is the part of client-go's DaemonSet client that a Preloader uses.
type DaemonSetWriter interface {
	Create(ctx context.Context, set *appsv1.DaemonSet, opts metav1.CreateOptions) (*appsv1.DaemonSet, error)
	Delete(ctx context.Context, name string, opts metav1.DeleteOptions) error
}

// Deps are what a Preloader needs.
type Deps struct {
	DaemonSets DaemonSetWriter
	Cache      Cache
	// Templates is where templates come from: the cluster, or also a registry.
	Templates podtemplate.Source
	// Namespace is where instances and preloads live.
	Namespace string
	// HelperImage is the image of the container that waits while its pod holds the
	// template's images.
	HelperImage string
	Queues      workqueue.MetricsProvider // of the work queue; nil for none
	Log         *slog.Logger
	Now         func() time.Time
}

// Preloader begins preloads, tells how far they are, and keeps them in step with
// their templates.
type Preloader struct {
	deps       Deps
	controller *controller.Controller
}

// New returns a Preloader. It must be called before the cache runs.
func New(deps Deps) (*Preloader, error) {
	p := &Preloader{deps: deps, controller: controller.New(controller.Deps{
		Subject: "preload", Workers: workers, FirstRetry: firstRetry, LongestRetry: longestRetry, Queues: deps.Queues, Log: deps.Log,
	})}
	return p, deps.Cache.OnPreload(p.controller.Enqueue)
}

// Template is what the protocol tells of a template when its preload begins.
type Template struct {
	Name        string   `json:"name"`
	ImageSource string   `json:"image-source"` // the image that the application runs in
	Port        int      `json:"port"`         // where the application listens
	Images      []string `json:"images"`       // all images that are pulled
}

// Preload begins to pull a template's images onto all nodes. Repeating it changes
// nothing, unless the template has changed. The error is a *podtemplate.Error if the
// template, or the cluster, does not allow a preload.
func (p *Preloader) Preload(ctx context.Context, name string) (Template, error) {
	template, err := p.deps.Templates.Template(ctx, name)
	if err != nil {
		return Template{}, err
	}
	set, err := newDaemonSet(template, p.deps.Namespace, p.deps.HelperImage)
	if err != nil {
		return Template{}, notPreloaded(name, err)
	}
	port, err := podtemplate.Port(template)
	if err != nil {
		return Template{}, notPreloaded(name, err)
	}
	if err := p.create(ctx, set); err != nil {
		return Template{}, err
	}
	answer := Template{Name: name, ImageSource: podtemplate.ServingContainer(&template.Template.Spec, port).Image, Port: port}
	for _, volume := range set.Spec.Template.Spec.Volumes {
		answer.Images = append(answer.Images, volume.Image.Reference)
	}
	return answer, nil
}

// Status tells how far the preload of a template is; known is false if there is
// none. It costs the API server nothing.
func (p *Preloader) Status(ctx context.Context, name string) (progress Progress, known bool, err error) {
	template, err := p.deps.Templates.Template(ctx, name)
	if errors.Is(err, podtemplate.ErrUnknown) {
		return Progress{}, false, err
	}
	// Another replica may have begun it a moment ago.
	waitCtx, cancel := context.WithTimeout(ctx, instance.WatchDelay)
	defer cancel()
	sets := p.deps.Cache.AwaitPreload(waitCtx, name, func(sets []*appsv1.DaemonSet) bool { return len(sets) > 0 })
	if len(sets) == 0 {
		return Progress{}, false, err
	}
	hash := ""
	if err == nil {
		hash = podtemplate.Hash(template)
	}
	set := current(sets, hash)
	return progressOf(set, p.deps.Cache.PreloadPods(set), p.deps.Cache.Warnings, hash), true, nil
}

// current returns the preload of the template's current version, or else the newest.
func current(sets []*appsv1.DaemonSet, hash string) *appsv1.DaemonSet {
	rank := func(set *appsv1.DaemonSet) int {
		if set.Labels[instance.TemplateHashLabel] == hash {
			return 1
		}
		return 0
	}
	return slices.MaxFunc(sets, func(a, b *appsv1.DaemonSet) int {
		return cmp.Or(
			cmp.Compare(rank(a), rank(b)),
			a.CreationTimestamp.Compare(b.CreationTimestamp.Time),
			cmp.Compare(a.Name, b.Name),
		)
	})
}

func (p *Preloader) create(ctx context.Context, set *appsv1.DaemonSet) error {
	ctx, cancel := context.WithTimeout(ctx, kube.CreateTimeout)
	defer cancel()
	template := instance.TemplateOf(set)
	created, err := p.deps.DaemonSets.Create(ctx, set, metav1.CreateOptions{FieldManager: instance.ManagerName})
	switch {
	case apierrors.IsAlreadyExists(err): // the name is a hash of what is preloaded, so it is the same
		return nil
	case kube.IsRefused(err):
		return notPreloaded(template, err)
	case err != nil:
		return fmt.Errorf("create DaemonSet %s: %w", set.Name, err)
	}
	p.deps.Cache.WrotePreload(created)
	p.deps.Log.InfoContext(ctx, "preload begins", "template", template, "daemonset", set.Name)
	return nil
}

// notPreloaded is the error of a preload that the template, or the cluster, does not
// allow.
func notPreloaded(template string, err error) error {
	return &podtemplate.Error{Template: template, Use: "preloaded", Err: err}
}
