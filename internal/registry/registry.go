// Package registry gets templates from a Binder registry and turns them into
// PodTemplates.
//
// A Binder registry is an HTTP service that answers GET /templates/<name> with a JSON
// object. It is neither a registry of container images nor one of metrics. Clients
// choose the names that it is asked for, so this package bounds what made-up names
// can cost: the registry, this process, and the templates that exist.
//
// It does not know the cluster, and nothing of instances but their annotations.
package registry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"regexp"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/cache"

	"github.com/binder-project/binder-deploy-kubernetes/internal/podtemplate"
)

const (
	// freshFor is how long a template is used before the registry is asked again. While
	// the registry fails and there is a copy, it is also the time between two attempts.
	freshFor = 10 * time.Second
	// errorsFor is how long all other answers are used.
	errorsFor = 2 * time.Second
	// copiesFor is how long a template is used while the registry fails.
	copiesFor = time.Hour

	// maxAnswers bounds the recent answers, maxCopies the last good copies.
	maxAnswers = 1000
	maxCopies  = 1000
	// maxQuestions bounds the questions under way, each of which holds a request.
	maxQuestions = 1000
)

// validName matches the names that the registry is asked for: one path segment
// without special characters. No other name can be a template's.
var validName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,252}$`)

// Metrics counts what the registry answers.
type Metrics interface {
	// RegistryAsked counts one question, by its podtemplate.Result.
	RegistryAsked(result string)
}

// Deps are what a Registry needs.
type Deps struct {
	// BaseURL is the registry's address. It may have a path and end with a slash.
	BaseURL string
	// Key is the Authorization header of every question; "" sends none.
	Key string
	// UserAgent is the User-Agent header of every question.
	UserAgent string
	// Namespace is the namespace of the PodTemplates that are made.
	Namespace string
	Metrics   Metrics
	Log       *slog.Logger
	// Now is the clock by which answers and copies expire.
	Now func() time.Time
}

// Registry is a podtemplate.Source. It remembers answers for a short time, and uses
// the last good copy of a template while the registry fails. Its methods may be
// called at the same time.
type Registry struct {
	deps    Deps
	client  *http.Client
	timeout time.Duration // of one question

	mu     sync.Mutex
	asking map[string]*question // by template name: the questions under way
	// Both by template name. Made-up names fill recent; only names that the registry
	// has confirmed get into copies.
	recent *cache.LRUExpireCache // answer
	copies *cache.LRUExpireCache // *goodCopy
}

// answer is what Template returns. Either template or err is nil.
type answer struct {
	template *corev1.PodTemplate
	err      error
}

// question is a request to the registry that is shared by all who ask for one name.
type question struct {
	answered chan struct{} // closed when answer is set
	answer   answer
}

// goodCopy is the last template of a name that the registry had.
type goodCopy struct {
	template *corev1.PodTemplate
	received time.Time
	failing  bool // the registry has failed since
	warned   bool // that the template's services are ignored
}

// clock makes a function a cache.Clock.
type clock func() time.Time

func (c clock) Now() time.Time { return c() }

// New returns a Registry that has asked nothing yet.
func New(d Deps) *Registry {
	return &Registry{
		deps:    d,
		client:  newClient(),
		timeout: questionTimeout,
		asking:  map[string]*question{},
		recent:  cache.NewLRUExpireCacheWithClock(maxAnswers, clock(d.Now)),
		copies:  cache.NewLRUExpireCacheWithClock(maxCopies, clock(d.Now)),
	}
}

// Template implements podtemplate.Source. Its errors wrap podtemplate.ErrUnknown,
// podtemplate.ErrUnavailable, a *podtemplate.Error, or ctx's.
func (r *Registry) Template(ctx context.Context, name string) (*corev1.PodTemplate, error) {
	if !validName.MatchString(name) {
		return nil, fmt.Errorf("%w: %q", podtemplate.ErrUnknown, name)
	}
	q, first := r.question(name)
	if first {
		r.ask(ctx, name, q)
	}
	select {
	case <-q.answered:
		return q.answer.template, q.answer.err
	case <-ctx.Done():
		return nil, fmt.Errorf("wait for the registry: %w", ctx.Err())
	}
}

// question returns the question for a name: one that a recent answer has answered,
// the one under way, or a new one, which the caller must ask.
func (r *Registry) question(name string) (q *question, first bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if recent, ok := r.recent.Get(name); ok {
		return answered(recent.(answer)), false
	}
	if q, ok := r.asking[name]; ok {
		return q, false
	}
	if len(r.asking) >= maxQuestions {
		if good, ok := r.copyOf(name); ok {
			return answered(answer{template: good.template}), false
		}
		return answered(answer{err: fmt.Errorf("%w: too many questions at once", podtemplate.ErrUnavailable)}), false
	}
	q = &question{answered: make(chan struct{})}
	r.asking[name] = q
	return q, true
}

func answered(a answer) *question {
	q := &question{answered: make(chan struct{}), answer: a}
	close(q.answered)
	return q
}

// ask asks the registry and answers the question. It goes on when the client of ctx
// has gone, because others may wait for the same answer. A panic passes through it,
// but answers the question first: otherwise nobody could ask for the name again.
func (r *Registry) ask(ctx context.Context, name string, q *question) {
	var template *corev1.PodTemplate
	hasServices, err := false, fmt.Errorf("%w: the question was broken off", podtemplate.ErrUnavailable)
	defer func() {
		r.deps.Metrics.RegistryAsked(podtemplate.Result(err))
		r.mu.Lock()
		defer r.mu.Unlock()
		if err == nil {
			q.answer = r.keep(name, template, hasServices)
		} else {
			q.answer = r.fail(name, err)
		}
		delete(r.asking, name)
		close(q.answered)
	}()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.timeout)
	defer cancel()
	template, hasServices, err = r.get(ctx, name)
}

// get gets a template from the registry and makes a PodTemplate of it.
func (r *Registry) get(ctx context.Context, name string) (template *corev1.PodTemplate, hasServices bool, err error) {
	described, err := r.fetch(ctx, name)
	if err != nil {
		return nil, false, err
	}
	template, err = described.podTemplate(r.deps.Namespace)
	if err != nil {
		return nil, false, &podtemplate.Error{Template: name, Err: err}
	}
	return template, described.hasServices(), nil
}

// keep remembers a template that the registry has. The lock must be held.
func (r *Registry) keep(name string, template *corev1.PodTemplate, hasServices bool) answer {
	good := &goodCopy{template: template, received: r.deps.Now()}
	if before, ok := r.copyOf(name); ok {
		good.warned = before.warned
	}
	if hasServices && !good.warned {
		good.warned = true
		r.deps.Log.Warn("the services of a template are ignored", "template", name)
	}
	r.copies.Add(name, good, copiesFor)
	a := answer{template: template}
	r.recent.Add(name, a, freshFor)
	return a
}

// fail remembers that a question failed. If the registry is unavailable, the answer
// is the last good copy. Any other error is a definite answer about the template, and
// ends the use of the copy. The lock must be held.
func (r *Registry) fail(name string, err error) answer {
	if !errors.Is(err, podtemplate.ErrUnavailable) {
		r.copies.Remove(name)
	}
	good, ok := r.copyOf(name)
	if !ok {
		r.recent.Add(name, answer{err: err}, errorsFor)
		return answer{err: err}
	}
	age := r.deps.Now().Sub(good.received)
	if !good.failing {
		good.failing = true
		r.deps.Log.Warn("the registry fails, using the last copy of a template",
			"template", name, "age", age.Round(time.Second).String(), "error", err)
	}
	r.recent.Add(name, answer{template: good.template}, min(freshFor, copiesFor-age))
	return answer{template: good.template}
}

func (r *Registry) copyOf(name string) (*goodCopy, bool) {
	value, ok := r.copies.Get(name)
	if !ok {
		return nil, false
	}
	good, ok := value.(*goodCopy)
	return good, ok
}
