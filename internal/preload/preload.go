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
	typedappsv1 "k8s.io/client-go/kubernetes/typed/apps/v1"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"

	"github.com/binder-project/binder-deploy-kubernetes/internal/kube"

	"github.com/binder-project/binder-deploy-kubernetes/internal/podtemplate"
)

// preloadInterval is how often preloads are looked at without a cause: for
// templates that no watch tells of, and to try again what has failed.
const preloadInterval = time.Minute

// Preloads is what a preloader asks the read model.
type Preloads interface {
	Preloads(template string) []*appsv1.DaemonSet
	PreloadPods(set *appsv1.DaemonSet) []*corev1.Pod
	AwaitPreload(ctx context.Context, template string, good func([]*appsv1.DaemonSet) bool) []*appsv1.DaemonSet
	OnPreload(changed func(template string)) error
}

// Preloader pulls templates' images onto nodes before anybody waits for them. A
// preload is a DaemonSet: Kubernetes brings it to every node, to those that join
// later too, and counts how far it is. Any replica may begin one and tell of it;
// the leader keeps it in step with its template.
type Preloader struct {
	DaemonSets  typedappsv1.DaemonSetInterface
	Cluster     Preloads
	namespace   string
	templates   podtemplate.Source
	helperImage string
	log         *slog.Logger
	changed     chan struct{} // a template or a preload has
}

// New makes a preloader. helperImage is what waits while its pod holds
// the images.
func New(daemonSets typedappsv1.DaemonSetInterface, cluster Preloads, namespace string, templates podtemplate.Source, helperImage string,
	log *slog.Logger) (*Preloader, error) {
	p := &Preloader{
		DaemonSets: daemonSets, Cluster: cluster, namespace: namespace, templates: templates, helperImage: helperImage,
		log: log, changed: make(chan struct{}, 1),
	}
	return p, cluster.OnPreload(func(string) {
		select {
		case p.changed <- struct{}{}:
		default: // will be seen with the change before
		}
	})
}

// PreloadedTemplate is a template in the protocol's words, as far as it
// concerns its images.
type PreloadedTemplate struct {
	Name        string   `json:"name"`
	ImageSource string   `json:"image-source"` // what the application runs in
	Port        int      `json:"port"`
	Images      []string `json:"images"` // all that are pulled
}

// Preload begins to pull a template's images onto all nodes. Doing so again
// changes nothing, unless the template has changed.
func (p *Preloader) Preload(ctx context.Context, name string) (PreloadedTemplate, error) {
	template, err := p.templates.Template(ctx, name)
	if err != nil {
		return PreloadedTemplate{}, err
	}
	set, err := BuildPreload(template, p.namespace, p.helperImage)
	if err != nil {
		return PreloadedTemplate{}, PreloadRefused(name, err)
	}
	port, err := podtemplate.Port(template)
	if err != nil {
		return PreloadedTemplate{}, PreloadRefused(name, err)
	}
	if err := p.create(ctx, set); err != nil {
		return PreloadedTemplate{}, err
	}
	waitCtx, cancel := context.WithTimeout(ctx, kube.OwnWriteWait)
	defer cancel()
	p.Cluster.AwaitPreload(waitCtx, name, func(sets []*appsv1.DaemonSet) bool {
		return slices.ContainsFunc(sets, func(s *appsv1.DaemonSet) bool { return s.Name == set.Name })
	})
	answer := PreloadedTemplate{Name: name, ImageSource: podtemplate.ServingContainer(&template.Template.Spec, port).Image, Port: port}
	for _, volume := range set.Spec.Template.Spec.Volumes {
		answer.Images = append(answer.Images, volume.Image.Reference)
	}
	return answer, nil
}

// Status tells how far the preload of a template is; known is false when there
// has never been one. It costs the cluster nothing.
func (p *Preloader) Status(ctx context.Context, name string) (preload Preload, known bool, err error) {
	template, err := p.templates.Template(ctx, name)
	if errors.Is(err, podtemplate.ErrUnknown) {
		return Preload{}, false, err
	}
	// Another replica may have begun it a moment ago.
	waitCtx, cancel := context.WithTimeout(ctx, instance.WatchDelay)
	defer cancel()
	sets := p.Cluster.AwaitPreload(waitCtx, name, func(sets []*appsv1.DaemonSet) bool { return len(sets) > 0 })
	if len(sets) == 0 {
		return Preload{}, false, err
	}
	hash := ""
	if err == nil {
		hash = podtemplate.Hash(template)
	}
	set := currentPreload(sets, hash)
	return ComputeStatus(set, p.Cluster.PreloadPods(set), hash), true, nil
}

// currentPreload is the one of the template's present version, else the newest.
func currentPreload(sets []*appsv1.DaemonSet, hash string) *appsv1.DaemonSet {
	return slices.MaxFunc(sets, func(a, b *appsv1.DaemonSet) int {
		if aIs, bIs := a.Labels[instance.TemplateHashLabel] == hash, b.Labels[instance.TemplateHashLabel] == hash; aIs != bIs {
			if aIs {
				return 1
			}
			return -1
		}
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Name, b.Name))
	})
}

// Run keeps the preloads in step with their templates until ctx is done.
func (p *Preloader) Run(ctx context.Context) {
	ticker := time.NewTicker(preloadInterval)
	defer ticker.Stop()
	for {
		p.Settle(ctx)
		select {
		case <-ctx.Done():
			return
		case <-p.changed:
		case <-ticker.C:
		}
	}
}

// Settle looks at every preload once. One whose template is gone ends; one whose
// template has changed begins anew, and the old one ends when the new one has
// been seen, so that a stop in between loses nothing.
func (p *Preloader) Settle(ctx context.Context) {
	byTemplate := map[string][]*appsv1.DaemonSet{}
	for _, set := range p.Cluster.Preloads("") {
		byTemplate[instance.TemplateOf(set)] = append(byTemplate[instance.TemplateOf(set)], set)
	}
	for name, sets := range byTemplate {
		if ctx.Err() != nil {
			return // no longer ours to do
		}
		if err := p.settleTemplate(ctx, name, sets); err != nil && ctx.Err() == nil {
			p.log.ErrorContext(ctx, "preload not in step with its template, will be tried again", "template", name, "error", err)
		}
	}
}

func (p *Preloader) settleTemplate(ctx context.Context, name string, sets []*appsv1.DaemonSet) error {
	template, err := p.templates.Template(ctx, name)
	if errors.Is(err, podtemplate.ErrUnknown) {
		p.log.InfoContext(ctx, "preload ends: its template is gone", "template", name)
		return p.delete(ctx, sets)
	}
	if err != nil {
		return err // where templates come from is away; nothing follows from that
	}
	wanted, err := BuildPreload(template, p.namespace, p.helperImage)
	if err != nil {
		return err
	}
	isWanted := func(set *appsv1.DaemonSet) bool { return set.Name == wanted.Name }
	if !slices.ContainsFunc(sets, isWanted) {
		return p.create(ctx, wanted)
	}
	return p.delete(ctx, slices.DeleteFunc(slices.Clone(sets), isWanted))
}

func (p *Preloader) create(ctx context.Context, set *appsv1.DaemonSet) error {
	ctx, cancel := context.WithTimeout(ctx, kube.CreateTimeout)
	defer cancel()
	_, err := p.DaemonSets.Create(ctx, set, metav1.CreateOptions{FieldManager: instance.ManagerName})
	switch {
	case apierrors.IsAlreadyExists(err): // its name says what it is
		return nil
	case apierrors.IsInvalid(err), apierrors.IsForbidden(err), apierrors.IsBadRequest(err):
		return PreloadRefused(instance.TemplateOf(set), err)
	case err != nil:
		return fmt.Errorf("create DaemonSet %s: %w", set.Name, err)
	}
	p.log.InfoContext(ctx, "preloading", "template", instance.TemplateOf(set), "daemonset", set.Name)
	return nil
}

// delete deletes just these, and with them, by Kubernetes, their pods.
func (p *Preloader) delete(ctx context.Context, sets []*appsv1.DaemonSet) error {
	ctx, cancel := context.WithTimeout(ctx, kube.WriteTimeout)
	defer cancel()
	var errs []error
	for _, set := range sets {
		err := p.DaemonSets.Delete(ctx, set.Name, metav1.DeleteOptions{
			Preconditions:     metav1.NewUIDPreconditions(string(set.UID)),
			PropagationPolicy: new(metav1.DeletePropagationBackground),
		})
		if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			errs = append(errs, fmt.Errorf("delete DaemonSet %s: %w", set.Name, err))
		}
	}
	return errors.Join(errs...)
}

// PreloadRefused is the error of a preload that the template, or the cluster, does
// not allow.
func PreloadRefused(template string, err error) error {
	return &podtemplate.Error{Template: template, Use: "preloaded", Err: err}
}
