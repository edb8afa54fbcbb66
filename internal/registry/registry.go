package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/binder-project/binder-deploy-kubernetes/internal/metrics"

	"github.com/binder-project/binder-deploy-kubernetes/internal/podtemplate"
)

const (
	// registryTimeout bounds one question to the registry.
	registryTimeout = 5 * time.Second
	// RegistryFresh is how long a template is used before it is asked for again,
	// and how long a registry is left alone that failed while there is a copy.
	RegistryFresh = 10 * time.Second
	// RegistryRetry is how long everything else is remembered: that there is no
	// such template, that it is a wrong one, that the registry failed.
	RegistryRetry = 2 * time.Second
	// RegistryStale is how old a copy may be that is used while the registry fails.
	RegistryStale = time.Hour

	// Clients choose the names: these bound what they can make of it.
	MaxRegistryEntries     = 1000
	maxRegistryConnections = 16
	maxRegistryAnswer      = 1 << 20
	maxRegistryHeader      = 64 << 10
)

// registryName is what a registry is asked for. It is one segment of a path, and
// none with a meaning of its own.
var registryName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,252}$`)

// Registry is a Binder registry as a source of templates. What it has answered
// is used again for a short time, and for longer while it fails. However many
// ask for a template at once, the registry is asked once.
type Registry struct {
	url       string // of its templates, with a slash at the end
	Key       string // "" sends none
	namespace string
	userAgent string
	Timeout   time.Duration // of one question
	Client    *http.Client
	Metrics   *metrics.Metrics
	log       *slog.Logger
	now       func() time.Time

	mu      sync.Mutex
	Entries map[string]*RegistryEntry // by template name
}

// RegistryEntry is what is known of one template.
type RegistryEntry struct {
	Template *corev1.PodTemplate // the last that was had, or nil
	had      time.Time           // when that was
	err      error               // of the last answer
	askAgain time.Time
	Used     time.Time
	Asking   chan struct{} // closed when the answer is there; nil when nobody asks
	warned   bool          // of services
}

// New makes a source of the templates at a base URL, which become
// PodTemplates of a namespace.
func New(baseURL, key, namespace, userAgent string, metrics *metrics.Metrics, log *slog.Logger, now func() time.Time) *Registry {
	return &Registry{
		url:       strings.TrimRight(baseURL, "/") + "/templates/",
		Key:       key,
		namespace: namespace,
		userAgent: userAgent,
		Timeout:   registryTimeout,
		Client: &http.Client{
			Transport: &http.Transport{
				Proxy:                  http.ProxyFromEnvironment,
				MaxConnsPerHost:        maxRegistryConnections,
				MaxIdleConnsPerHost:    maxRegistryConnections,
				IdleConnTimeout:        90 * time.Second,
				MaxResponseHeaderBytes: maxRegistryHeader,
			},
			// The key is for the registry alone: no answer sends it elsewhere.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		Metrics: metrics,
		log:     log,
		now:     now,
		Entries: map[string]*RegistryEntry{},
	}
}

// Template returns the registry's template of a name. Errors wrap
// errUnknownTemplate, errRegistry or a *templateError.
func (r *Registry) Template(ctx context.Context, name string) (*corev1.PodTemplate, error) {
	if !registryName.MatchString(name) {
		return nil, fmt.Errorf("%w: %q", podtemplate.ErrUnknown, name)
	}
	r.mu.Lock()
	now := r.now()
	entry := r.entry(name, now)
	if now.Before(entry.askAgain) {
		defer r.mu.Unlock()
		return entry.answer(now)
	}
	asking, first := entry.Asking, entry.Asking == nil
	if first {
		asking = make(chan struct{})
		entry.Asking = asking
	}
	r.mu.Unlock()

	if first {
		r.ask(ctx, name, entry)
	}
	select {
	case <-asking:
	case <-ctx.Done():
		return nil, fmt.Errorf("wait for the registry: %w", ctx.Err())
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return entry.answer(r.now())
}

// ask brings an entry up to date. It goes on when the client that asked has
// gone: others may be waiting for the same answer.
func (r *Registry) ask(ctx context.Context, name string, entry *RegistryEntry) {
	var template *corev1.PodTemplate
	services, err := false, fmt.Errorf("%w: the question was broken off", podtemplate.ErrUnavailable)
	defer func() { // after a panic too, or nobody would ever ask again
		r.Metrics.RegistryAsked(podtemplate.Result(err))
		r.mu.Lock()
		defer r.mu.Unlock()
		r.record(name, entry, template, err)
		if services && !entry.warned {
			entry.warned = true
			r.log.Warn("the services of a template are ignored", "template", name)
		}
		close(entry.Asking)
		entry.Asking = nil
	}()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.Timeout)
	defer cancel()
	template, services, err = r.read(ctx, name)
}

// read asks the registry and makes a PodTemplate of its answer.
func (r *Registry) read(ctx context.Context, name string) (template *corev1.PodTemplate, services bool, err error) {
	answer, err := r.fetch(ctx, name)
	if err != nil {
		return nil, false, err
	}
	if template, err = answer.PodTemplate(r.namespace); err != nil {
		return nil, false, &podtemplate.Error{Template: name, Err: err}
	}
	return template, answer.HasServices(), nil
}

// record keeps what came of a question.
func (r *Registry) record(name string, entry *RegistryEntry, template *corev1.PodTemplate, err error) {
	now := r.now()
	failedBefore := errors.Is(entry.err, podtemplate.ErrUnavailable)
	entry.err = err
	switch {
	case err == nil:
		entry.Template, entry.had, entry.askAgain = template, now, now.Add(RegistryFresh)
	case errors.Is(err, podtemplate.ErrUnavailable) && entry.hasCopy(now):
		if !failedBefore {
			r.log.Warn("the registry fails: a template is used as it was", "template", name, "age", now.Sub(entry.had).Round(time.Second).String(), "error", err)
		}
		entry.askAgain = now.Add(RegistryFresh)
	case errors.Is(err, podtemplate.ErrUnavailable):
		entry.askAgain = now.Add(RegistryRetry)
	default: // the registry's own word: what it had is no more
		entry.Template, entry.askAgain = nil, now.Add(RegistryRetry)
	}
}

func (e *RegistryEntry) hasCopy(now time.Time) bool {
	return e.Template != nil && now.Sub(e.had) < RegistryStale
}

func (e *RegistryEntry) answer(now time.Time) (*corev1.PodTemplate, error) {
	if e.err == nil || errors.Is(e.err, podtemplate.ErrUnavailable) && e.hasCopy(now) {
		return e.Template, nil
	}
	return nil, e.err
}

// entry returns the entry of a name, and makes room for it if it is new.
func (r *Registry) entry(name string, now time.Time) *RegistryEntry {
	entry, ok := r.Entries[name]
	if !ok {
		if len(r.Entries) >= MaxRegistryEntries {
			r.evict()
		}
		entry = &RegistryEntry{}
		r.Entries[name] = entry
	}
	entry.Used = now
	return entry
}

// evict drops the entry that was not used for longest, those of no template
// first: names that somebody made up must not drive out copies. An entry that is
// being asked for stays, so there may be more by as many as there are requests.
func (r *Registry) evict() {
	var victim string
	for name, entry := range r.Entries {
		if entry.Asking == nil && (victim == "" || entry.lessWorth(r.Entries[victim])) {
			victim = name
		}
	}
	delete(r.Entries, victim)
}

func (e *RegistryEntry) lessWorth(than *RegistryEntry) bool {
	if (e.Template == nil) != (than.Template == nil) {
		return e.Template == nil
	}
	return e.Used.Before(than.Used)
}

// fetch asks the registry. Whatever is not its word on the template is errRegistry.
func (r *Registry) fetch(ctx context.Context, name string) (RegistryTemplate, error) {
	failed := func(err error) (RegistryTemplate, error) {
		return RegistryTemplate{}, fmt.Errorf("%w: GET %s%s: %w", podtemplate.ErrUnavailable, r.url, name, err)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, r.url+name, nil) // a name needs no escape
	if err != nil {
		return failed(err)
	}
	request.Header.Set("Accept", "application/json")
	request.Header.Set("User-Agent", r.userAgent)
	if r.Key != "" {
		request.Header.Set("Authorization", r.Key)
	}
	response, err := r.Client.Do(request)
	if err != nil {
		return failed(errors.Unwrap(err)) // without the URL once more
	}
	defer response.Body.Close()
	switch code := response.StatusCode; {
	case code == http.StatusOK:
	case code == http.StatusNotFound:
		return RegistryTemplate{}, fmt.Errorf("%w: %q", podtemplate.ErrUnknown, name)
	case code >= 300 && code < 400:
		return failed(fmt.Errorf("it redirects (%d) to %.100q", code, response.Header.Get("Location")))
	default:
		return failed(fmt.Errorf("it answers with code %d", code))
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, maxRegistryAnswer+1))
	if err != nil {
		return failed(fmt.Errorf("read the answer: %w", err))
	}
	if len(body) > maxRegistryAnswer {
		return failed(errors.New("the answer is larger than 1 MiB"))
	}
	template, err := ParseRegistryTemplate(name, body)
	if err != nil && !errors.Is(err, podtemplate.ErrUnknown) {
		return failed(err)
	}
	return template, err
}
