// Package launch starts and stops instances. A launch claims a warm pod or creates a
// new one, within the limits.
//
// It must never know HTTP or pages. It never decides when an instance ends by itself.
package launch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/binder-project/binder-deploy-kubernetes/internal/admission"
	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kube"
	"github.com/binder-project/binder-deploy-kubernetes/internal/podtemplate"
)

// StoppedMessage is the message of an instance that Stop ended.
const StoppedMessage = "Stopped by request."

var (
	// ErrNoRecord means that no instance has that template and id.
	ErrNoRecord = errors.New("there is no record for that template and id")
	// ErrUnsure means that this replica does not know such an instance, and others may.
	ErrUnsure = errors.New("whether there is such an instance is not known at the moment; try again shortly")
	// ErrCapacity means that a ResourceQuota allows no further instance at the moment.
	ErrCapacity = errors.New("no capacity for another instance")
	// ErrBusy means that too many launches are under way at this replica.
	ErrBusy = errors.New("too many launches at the same time")
)

// Request says what to launch.
type Request struct {
	Template string
	// Client is whose limits the launch counts for: a hash that admission.Clients made,
	// or "" for none.
	Client string
	// CullTimeout is how long the instance may be idle. 0 means the template's value,
	// or else the server's.
	CullTimeout time.Duration
	// IdempotencyKey makes a repeated request find the instance that the first one
	// launched. "" means that every request launches an instance of its own. It must
	// not contain a zero byte.
	IdempotencyKey string
	// Warm lets a request with an idempotency key claim a warm pod, which has an id already. Then
	// only requests that are Repeated find the instance, and only while it has a pod. One that is
	// made while another replica claims the pod waits for that, but no longer than claimWait. Such
	// a launch goes on when its context is done, once it writes: its client can come back.
	Warm bool
	// KeyMade is when NewKey made the key of a first request with Warm: soon after that, it claims
	// no pod any more.
	KeyMade time.Time
	// Repeated says that the client has sent the same request before, with Warm.
	Repeated bool
}

// Pods is the part of client-go's pod client that a Launcher writes with.
type Pods interface {
	kube.PodPatcher
	kube.PodCreator
}

// Cache is what a Launcher asks of the read model.
type Cache interface {
	Instance(id string) (instance.Instance, bool)
	Instances(template string) []instance.Instance
	Await(ctx context.Context, id string, good func(inst instance.Instance, known bool) bool) (instance.Instance, bool)
	Pod(id string) (*corev1.Pod, bool)
	WarmPods(template string) []*corev1.Pod
	// ClaimedFor returns the id of the instance whose pod has a value of instance.ClaimedForAnnotation.
	ClaimedFor(template, id string) (claimed string, known bool)
	Warnings(pod *corev1.Pod) []*corev1.Event
	OnInstance(updated func(id string), gone func(*corev1.Pod)) error
	Wrote(pod *corev1.Pod)
}

// Remover writes the tombstone of an instance and deletes its pod.
type Remover interface {
	Remove(ctx context.Context, pod *corev1.Pod, end instance.End) error
}

// Metrics counts what a Launcher does.
type Metrics interface {
	Launched(template, result string) // one of Results
	Claimed(template, result string)  // one of ClaimResults
	ClaimTook(d time.Duration)
	LaunchTook(template string, warm bool, d time.Duration)
	LaunchPhaseTook(template, phase string, d time.Duration) // of a cold launch
	LaunchFailed(template, reason string)                    // before it was deployed; one of instance.FailureLabels
	Ended(template, reason string, lived time.Duration)
}

// Deps are what a Launcher needs.
type Deps struct {
	Pods      Pods
	Cache     Cache
	Templates podtemplate.Source
	// Admission holds launches to the limits.
	Admission *admission.Admission
	Remover   Remover
	// RepeatableID makes the id of a launch with an idempotency key. Every replica
	// must make the same id of the same key and template, and nobody else may be able
	// to: an id is the only secret that guards an instance.
	RepeatableID func(idempotencyKey, template string) string
	// MaxAge is how long the instance of a pod may live, however active; 0 means no limit.
	MaxAge func(pod *corev1.Pod) time.Duration
	// StartTimeout is how long an instance may take to become ready. A warm pod that
	// has used up half of it is not claimed.
	StartTimeout time.Duration
	Metrics      Metrics
	// Announce is told of each launched instance when it is deployed; nil for nobody. It
	// must not block.
	Announce func(pod *corev1.Pod, warm bool, took time.Duration)
	Reporter Reporter // nil for nobody
	Log      *slog.Logger
	Now      func() time.Time
	// Random is the source of all other ids, and of tokens. It must be cryptographically secure, and
	// safe for use by several goroutines.
	Random io.Reader
}

// Launcher starts and stops instances. Every replica has one. Its methods may be
// called at the same time.
type Launcher struct {
	deps      Deps
	claiming  sync.Map      // the names of the warm pods that launches under way try to claim
	launching sync.Map      // by id: the measured launch that is still under way
	writing   chan struct{} // holds an element for each launch that writes
	quota     quota
}

// New returns a Launcher. It must be called before the read model runs.
func New(deps Deps) (*Launcher, error) {
	l := &Launcher{deps: deps, writing: make(chan struct{}, maxWriting)}
	return l, deps.Cache.OnInstance(l.followLaunch, l.forget)
}

// Launch starts an instance and returns its id. It costs one write: the claim of a
// warm pod, or the creation of a new one. Where launches can wait for a place, the instance has
// to be admitted then. The read model knows the instance when
// Launch returns, unless another replica created it and this replica's watch is late.
//
// The error wraps one of these:
//   - podtemplate.ErrUnknown or podtemplate.ErrUnavailable: the template is not found.
//   - *podtemplate.Error: no pod can be made of the template, or the API server
//     refuses the pod. The operator must fix the template.
//   - *admission.Refusal: a limit is reached, and the launch cannot wait for a place.
//   - ErrCapacity: a ResourceQuota is used up.
//   - ErrBusy: too many launches are under way. The client can try again shortly.
//   - Any other error: the API server did not answer, or the source of ids failed. The
//     client can try again.
func (l *Launcher) Launch(ctx context.Context, req Request) (id string, err error) {
	began, repeated := l.deps.Now(), false
	if req.IdempotencyKey == "" {
		id, err = l.launchPlain(ctx, req, began)
	} else {
		id, repeated, err = l.launchRepeatable(ctx, req, began)
	}
	if repeated {
		l.deps.Metrics.Launched(req.Template, resultRepeated)
	} else {
		l.deps.Metrics.Launched(req.Template, result(err))
	}
	return id, err
}

// launchPlain claims a warm pod, or else creates a pod with a random id.
func (l *Launcher) launchPlain(ctx context.Context, req Request, began time.Time) (string, error) {
	launch, err := l.admit(ctx, req, "")
	if err != nil {
		return "", err
	}
	defer launch.end()
	id, outcome, err := l.tryClaim(ctx, launch)
	if err == nil && outcome != claimed {
		id, err = l.createNew(ctx, launch)
	}
	if err != nil {
		return "", err
	}
	l.deps.Log.InfoContext(ctx, "launched", "pod", instance.PodName(id), "template", req.Template, "warm", outcome == claimed, "waits", launch.place.Full)
	l.measure(id, &measured{began: began, warm: outcome == claimed})
	return id, nil
}

// createNew creates a pod with a random id, and returns the id.
func (l *Launcher) createNew(ctx context.Context, launch *admitted) (string, error) {
	id, err := instance.NewID(l.deps.Random)
	if err != nil {
		return "", err
	}
	err = l.create(ctx, launch, id)
	if apierrors.IsAlreadyExists(err) {
		// Nobody else can have a random id, so the pod is this launch's own: the answer
		// was lost, and the HTTP client repeated the request.
		l.awaitDelivery(ctx, id)
		return id, nil
	}
	if err != nil {
		return "", err
	}
	return id, nil
}

// create creates the pod of an instance.
func (l *Launcher) create(ctx context.Context, launch *admitted, id string) error {
	template := launch.template
	if err := l.quota.check(template.Name, l.deps.Now()); err != nil {
		return err
	}
	token, err := instance.NewToken(l.deps.Random)
	if err != nil {
		return err
	}
	pod, err := podtemplate.NewPod(template, id, token)
	if err != nil {
		return &podtemplate.Error{Template: template.Name, Err: err}
	}
	maps.Copy(pod.Annotations, instance.LaunchAnnotations(l.deps.Now(), launch.CullTimeout))
	maps.Copy(pod.Labels, instance.LaunchLabels(launch.Client))
	pod.Spec.ActiveDeadlineSeconds = instance.Deadline(pod, 0, l.deps.MaxAge(pod))
	if launch.place.Queued {
		maps.Copy(pod.Annotations, instance.QueueAnnotations(launch.most))
		instance.Enqueue(pod)
	}
	launch.place.Expect(id)
	ctx, cancel := context.WithTimeout(ctx, kube.CreateTimeout)
	defer cancel()
	created, err := kube.CreatePod(ctx, l.deps.Pods, pod)
	switch {
	case err == nil:
		l.deps.Cache.Wrote(created)
		return nil
	case kube.IsQuota(err):
		l.quota.refuse(ctx, l.deps.Log, template.Name, l.deps.Now(), err)
		return fmt.Errorf("%w: %w", ErrCapacity, err)
	case kube.IsRefused(err):
		return &podtemplate.Error{Template: template.Name, Err: err}
	}
	return fmt.Errorf("create pod %s: %w", pod.Name, err)
}

// awaitDelivery waits a moment for the watch to deliver an instance whose pod was not
// returned by a write of this launch. It reports whether the instance is known.
func (l *Launcher) awaitDelivery(ctx context.Context, id string) bool {
	ctx, cancel := context.WithTimeout(ctx, instance.WatchDelay)
	defer cancel()
	_, known := l.deps.Cache.Await(ctx, id, func(_ instance.Instance, known bool) bool { return known })
	return known
}

// Stop deletes an instance, in use or not. From then on this replica answers that it
// is deleted. Stopping an instance that has ended is not an error.
//
// The error is ErrNoRecord if the template has no instance of that id. Any other error
// is the API server's; the client can try again.
func (l *Launcher) Stop(ctx context.Context, template, id string) error {
	inst, known := l.deps.Cache.Instance(id)
	if !known || inst.Template != template {
		return ErrNoRecord
	}
	pod, exists := l.deps.Cache.Pod(id)
	if !exists || pod.DeletionTimestamp != nil {
		return nil
	}
	err := l.deps.Remover.Remove(ctx, pod, instance.End{Reason: instance.EndStopped, Message: StoppedMessage})
	endedByOther := apierrors.IsNotFound(err)
	if err != nil && !endedByOther {
		return err
	}
	l.deps.Cache.Wrote(instance.Deleted(pod, l.deps.Now()))
	if !endedByOther {
		l.deps.Metrics.Ended(template, string(instance.EndStopped), instance.Lived(pod, l.deps.Now()))
		l.deps.Log.InfoContext(ctx, "stopped", "pod", instance.PodName(id), "template", template)
	}
	return nil
}
