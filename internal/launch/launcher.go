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
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"

	"github.com/binder-project/binder-deploy-kubernetes/internal/metrics"

	"github.com/binder-project/binder-deploy-kubernetes/internal/kube"

	"github.com/binder-project/binder-deploy-kubernetes/internal/tombstone"

	"github.com/binder-project/binder-deploy-kubernetes/internal/podtemplate"
)

const StoppedMessage = "stopped by request"

var (
	// errNoRecord: there is no instance of that template and id.
	ErrNoRecord = errors.New("there is no record for that template and id")
	// errCapacity: a launch would be one too many; later it may not be.
	ErrCapacity = errors.New("no capacity for another instance")
)

// Request is what is asked of a launch.
type Request struct {
	Template string
	// CullTimeout is how long the instance may be idle; 0 for what the template
	// or the server says.
	CullTimeout time.Duration
	// IdempotencyKey, where it is not "", makes a repeated request find the
	// instance that the first one launched. It holds no zero byte.
	IdempotencyKey string
}

// Instances is what a launcher asks the read model.
type Instances interface {
	Instance(id string) (instance.Instance, bool)
	Instances(template string) []instance.Instance
	Await(ctx context.Context, id string, good func(inst instance.Instance, known bool) bool) (instance.Instance, bool)
	Pod(id string) (*corev1.Pod, bool)
	WarmPods(template string) []*corev1.Pod
	OnPod(updated, gone func(*corev1.Pod)) error
}

// Launcher creates and stops instances.
type Launcher struct {
	Pods         typedcorev1.PodInterface
	Instances    Instances
	startTimeout time.Duration
	templates    podtemplate.Source
	remover      *tombstone.Remover
	Metrics      *metrics.Metrics
	log          *slog.Logger
	now          func() time.Time
	Random       io.Reader
	// repeatableID makes the id of a repeatable launch.
	repeatableID func(idempotencyKey, template string) string

	Mu sync.Mutex
	// launching is when this replica began each launch that has not come to an
	// end yet, for the launch duration. One whose pod came and went while the
	// watch was broken stays.
	Launching map[string]time.Time

	Claiming Reservations
}

// New makes a launcher. random is where ids come from: an id is the only
// secret that guards an instance, so it must be unguessable; key is where those
// come from that a repeated request must find again.
func New(pods typedcorev1.PodInterface, instances Instances, startTimeout time.Duration, templates podtemplate.Source, remover *tombstone.Remover,
	metrics *metrics.Metrics, log *slog.Logger, now func() time.Time, random io.Reader, repeatableID func(idempotencyKey, template string) string) (*Launcher, error) {
	l := &Launcher{
		Pods: pods, Instances: instances, startTimeout: startTimeout, templates: templates, remover: remover,
		Metrics: metrics, log: log, now: now, Random: random, repeatableID: repeatableID,
		Launching: map[string]time.Time{},
	}
	return l, instances.OnPod(l.observe, func(pod *corev1.Pod) { l.forget(pod) })
}

// Launch starts an instance of a template and returns its id. It costs one
// write, be it the claim of a warm pod or a new one's creation. Errors wrap
// errUnknownTemplate, errRegistry, errCapacity, a *templateError, or are the API
// server's.
func (l *Launcher) Launch(ctx context.Context, req Request) (id string, err error) {
	defer func() { l.Metrics.Launched(LaunchResult(err)) }()

	if req.IdempotencyKey != "" {
		id = l.repeatableID(req.IdempotencyKey, req.Template)
		if _, known := l.Instances.Instance(id); known { // alive or over: it is not launched again
			return id, nil
		}
	}
	template, err := l.templates.Template(ctx, req.Template)
	if err != nil {
		return "", err
	}
	if err = l.checkCapacity(template); err == nil && id == "" {
		// Only without an idempotency key may a launch take a pod that is there
		// already: its id is its own, which a repeated request could not find again.
		if id, err = l.claim(ctx, template, req.CullTimeout); id != "" || err != nil {
			return id, err
		}
		if id, err = instance.NewID(l.Random); err != nil {
			return "", err
		}
	}
	if err == nil {
		err = l.create(ctx, template, id, req)
	}
	if errors.Is(err, ErrCapacity) && req.IdempotencyKey != "" && l.awaitKnown(ctx, id, instance.WatchDelay) {
		// The first request took the last place, at another replica, a moment
		// before this one was told.
		return id, nil
	}
	if err != nil {
		return "", err
	}
	l.awaitKnown(ctx, id, kube.OwnWriteWait)
	return id, nil
}

// awaitKnown waits until the watch has delivered an instance.
func (l *Launcher) awaitKnown(ctx context.Context, id string, atMost time.Duration) bool {
	ctx, cancel := context.WithTimeout(ctx, atMost)
	defer cancel()
	_, known := l.Instances.Await(ctx, id, func(_ instance.Instance, known bool) bool { return known })
	return known
}

// create makes the pod of an id, if it is not there already.
func (l *Launcher) create(ctx context.Context, template *corev1.PodTemplate, id string, req Request) error {
	pod, err := podtemplate.NewPod(template, id)
	if err != nil {
		return &podtemplate.Error{Template: template.Name, Err: err}
	}
	maps.Copy(pod.Annotations, instance.LaunchAnnotations(l.now(), req.CullTimeout))
	ctx, cancel := context.WithTimeout(ctx, kube.CreateTimeout)
	defer cancel()

	l.Mu.Lock()
	_, underWay := l.Launching[id]
	if !underWay {
		l.Launching[id] = l.now()
	}
	l.Mu.Unlock()
	_, err = l.Pods.Create(ctx, pod, metav1.CreateOptions{FieldManager: instance.ManagerName})
	if err == nil {
		l.log.InfoContext(ctx, "launched", "id", id, "template", template.Name)
		return nil
	}
	if apierrors.IsAlreadyExists(err) && req.IdempotencyKey == "" {
		// The client repeats a request that was lost on the way. The id is random: who
		// has it already can only be that earlier attempt.
		l.log.InfoContext(ctx, "launched", "id", id, "template", template.Name)
		return nil
	}
	if !underWay {
		l.forget(pod)
	}
	switch {
	case apierrors.IsAlreadyExists(err):
		// Who has the id can only be a request with the same idempotency key. When
		// that one began is not known here, and so not measured.
		l.log.InfoContext(ctx, "launched before", "id", id, "template", template.Name)
		return nil
	case kube.IsQuota(err):
		return fmt.Errorf("%w: %w", ErrCapacity, err)
	case apierrors.IsInvalid(err), apierrors.IsForbidden(err), apierrors.IsBadRequest(err):
		// The pod itself was refused: by validation, or by pod security.
		return &podtemplate.Error{Template: template.Name, Err: err}
	}
	return fmt.Errorf("create pod %s: %w", pod.Name, err)
}

// checkCapacity counts what the cache knows, so that several replicas at once
// may overshoot by the launches under way; a ResourceQuota does not.
func (l *Launcher) checkCapacity(template *corev1.PodTemplate) error {
	most, err := podtemplate.MaxInstances(template)
	if err != nil {
		return &podtemplate.Error{Template: template.Name, Err: err}
	}
	if most == 0 {
		return nil
	}
	alive := 0
	for _, inst := range l.Instances.Instances(template.Name) {
		if inst.Alive() {
			alive++
		}
	}
	if alive >= most {
		return fmt.Errorf("%w: template %q has %d of at most %d", ErrCapacity, template.Name, alive, most)
	}
	return nil
}

// Stop deletes an instance, in use or not. Stopping one that is over is no
// error; one that never was is errNoRecord.
func (l *Launcher) Stop(ctx context.Context, template, id string) error {
	inst, known := l.Instances.Instance(id)
	if !known || inst.Template != template {
		return ErrNoRecord
	}
	pod, exists := l.Instances.Pod(id)
	if !exists || pod.DeletionTimestamp != nil {
		return nil
	}
	err := l.remover.Remove(ctx, pod, instance.EndStopped, StoppedMessage, false)
	if apierrors.IsNotFound(err) {
		return nil // somebody else has ended it
	}
	if err != nil {
		return err
	}
	l.Metrics.Ended(string(instance.EndStopped))
	l.log.InfoContext(ctx, "stopped", "id", id, "template", template)
	return nil
}

// observe ends the measurement of a launch once it has come to something.
func (l *Launcher) observe(pod *corev1.Pod) {
	id := pod.Labels[instance.IDLabel]
	if !l.isLaunching(id) {
		return
	}
	inst, _ := l.Instances.Instance(id)
	if !instance.Settled(inst.Status) {
		return
	}
	began, ours := l.forget(pod)
	if !ours { // what the pod says and what was heard of it may come at once
		return
	}
	switch inst.Status {
	case instance.StatusDeployed:
		took := l.now().Sub(began)
		l.Metrics.LaunchTook(took)
		l.log.Info("deployed", "id", id, "template", inst.Template, "duration", took.Round(time.Millisecond).String())
	case instance.StatusFailed:
		l.log.Warn("launch failed", "id", id, "template", inst.Template, "reason", inst.Reason, "message", inst.Message)
	}
}

// begin starts the measurement of a launch.
func (l *Launcher) begin(pod *corev1.Pod, began time.Time) {
	l.Mu.Lock()
	defer l.Mu.Unlock()
	l.Launching[pod.Labels[instance.IDLabel]] = began
}

func (l *Launcher) isLaunching(id string) bool {
	l.Mu.Lock()
	defer l.Mu.Unlock()
	_, launching := l.Launching[id]
	return launching
}

// forget returns when the launch began, to one caller only.
func (l *Launcher) forget(pod *corev1.Pod) (began time.Time, ours bool) {
	l.Mu.Lock()
	defer l.Mu.Unlock()
	began, ours = l.Launching[pod.Labels[instance.IDLabel]]
	delete(l.Launching, pod.Labels[instance.IDLabel])
	return began, ours
}

// LaunchResult names what came of a launch, as a label of a metric.
func LaunchResult(err error) string {
	if errors.Is(err, ErrCapacity) {
		return "no_capacity"
	}
	return podtemplate.Result(err)
}
