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

	// maxCopies bounds the names that are known: those of which there is a good copy. So it
	// also bounds the recent answers about them, and the questions under way.
	maxCopies = 1000
	// maxMisses bounds the recent answers about all other names, and maxUnknown the
	// questions under way about them.
	maxMisses  = 200
	maxUnknown = 64
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
	timeout time.Duration // of one question
	// Questions about names that are known, and about all others. Each client has
	// connections of its own, so that made-up names do not hold up the others.
	known, unknown *http.Client

	mu           sync.Mutex
	asking       map[string]*question // by template name: the questions under way
	askedUnknown int                  // how many questions under way are about unknown names
	// All by template name. Made-up names get into misses only.
	recent *cache.LRUExpireCache // answer, about a known name
	misses *cache.LRUExpireCache // answer, about any other
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
	client   *http.Client
	waiting  int                // the clients that wait for the answer
	end      context.CancelFunc // ends the question; nil for one that is answered
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
		known:   newClient(),
		unknown: newClient(),
		timeout: questionTimeout,
		asking:  map[string]*question{},
		recent:  cache.NewLRUExpireCacheWithClock(maxCopies, clock(d.Now)),
		misses:  cache.NewLRUExpireCacheWithClock(maxMisses, clock(d.Now)),
		copies:  cache.NewLRUExpireCacheWithClock(maxCopies, clock(d.Now)),
	}
}

// Template implements podtemplate.Source. Its errors wrap podtemplate.ErrUnknown,
// podtemplate.ErrUnavailable, a *podtemplate.Error, or ctx's.
func (r *Registry) Template(ctx context.Context, name string) (*corev1.PodTemplate, error) {
	if !validName.MatchString(name) {
		return nil, fmt.Errorf("%w: %q", podtemplate.ErrUnknown, name)
	}
	q, asking := r.question(ctx, name)
	stop := context.AfterFunc(ctx, func() { r.leave(name, q) })
	defer func() {
		// ctx may have ended before its function was started: then stop keeps it from that.
		if stop() {
			r.leave(name, q)
		}
	}()
	if asking != nil {
		r.ask(asking, name, q)
	}
	select {
	case <-q.answered:
		return q.answer.template, q.answer.err
	case <-ctx.Done():
		return nil, fmt.Errorf("wait for the registry: %w", ctx.Err())
	}
}

// question returns the question for a name, for which one more client waits: one that a
// recent answer has answered, the one under way, or a new one. The caller must ask a new
// one with the context asking, which is nil for the others.
func (r *Registry) question(ctx context.Context, name string) (q *question, asking context.Context) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, answers := range []*cache.LRUExpireCache{r.recent, r.misses} {
		if recent, ok := answers.Get(name); ok {
			return answered(recent.(answer)), nil
		}
	}
	if q, ok := r.asking[name]; ok {
		q.waiting++
		return q, nil
	}
	q = &question{answered: make(chan struct{}), client: r.known, waiting: 1}
	if _, known := r.copyOf(name); !known {
		if r.askedUnknown >= maxUnknown {
			return answered(answer{err: fmt.Errorf("%w: too many questions at once", podtemplate.ErrUnavailable)}), nil
		}
		r.askedUnknown++
		q.client = r.unknown
	}
	// The question goes on when the client of ctx has gone, if others wait for it.
	asking, q.end = context.WithTimeout(context.WithoutCancel(ctx), r.timeout)
	r.asking[name] = q
	return q, asking
}

func answered(a answer) *question {
	q := &question{answered: make(chan struct{}), answer: a}
	close(q.answered)
	return q
}

// leave is called once for each client of a question, when it has gone or has its answer.
// The last one ends a question that is under way.
func (r *Registry) leave(name string, q *question) {
	r.mu.Lock()
	defer r.mu.Unlock()
	q.waiting--
	if q.waiting > 0 || r.asking[name] != q {
		return
	}
	delete(r.asking, name) // a later caller needs a new question
	q.end()
}

// ask asks the registry and answers the question. A panic passes through it, but answers
// the question first: otherwise nobody could ask for the name again.
func (r *Registry) ask(ctx context.Context, name string, q *question) {
	var template *corev1.PodTemplate
	hasServices, err := false, fmt.Errorf("%w: the question was broken off", podtemplate.ErrUnavailable)
	defer func() {
		q.end()
		r.mu.Lock()
		defer r.mu.Unlock()
		if q.client == r.unknown {
			r.askedUnknown--
		}
		if r.asking[name] == q {
			delete(r.asking, name)
			r.deps.Metrics.RegistryAsked(podtemplate.Result(err))
			q.answer = r.remember(name, template, hasServices, err)
		} else { // nobody waits; that the question was ended says nothing about the registry
			q.answer = answer{err: err}
		}
		close(q.answered)
	}()
	template, hasServices, err = r.get(ctx, q.client, name)
}

// remember remembers what the registry has answered. The lock must be held.
func (r *Registry) remember(name string, template *corev1.PodTemplate, hasServices bool, err error) answer {
	if err == nil {
		return r.keep(name, template, hasServices)
	}
	return r.fail(name, err)
}

// get gets a template from the registry and makes a PodTemplate of it.
func (r *Registry) get(ctx context.Context, client *http.Client, name string) (template *corev1.PodTemplate, hasServices bool, err error) {
	described, err := r.fetch(ctx, client, name)
	if err != nil {
		return nil, false, err
	}
	template, err = described.podTemplate(r.deps.Namespace)
	if err != nil {
		return nil, false, &podtemplate.Error{Template: name, Err: err}
	}
	return template, bool(described.Services), nil
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
		r.recent.Remove(name) // the name may have been known
		r.misses.Add(name, answer{err: err}, errorsFor)
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
