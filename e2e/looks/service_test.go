//go:build e2e

package looks

import (
	"context"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
	"github.com/binder-project/binder-deploy-kubernetes/internal/launch"
	"github.com/binder-project/binder-deploy-kubernetes/internal/origin"
	"github.com/binder-project/binder-deploy-kubernetes/internal/pages"
	"github.com/binder-project/binder-deploy-kubernetes/internal/podtemplate"
	"github.com/binder-project/binder-deploy-kubernetes/internal/protocol"
)

// template is the name of a template, as long as Kubernetes allows it in a label.
const template = "introduction-to-computational-neuroscience-for-everybody-2026-a"

// application is the heading of the page of an instance.
const application = "The application"

// service serves the pages about one instance, with as much behind them as they need.
type service struct {
	refusal   error // of launches, changes of the instance and questions about templates
	templated []*corev1.PodTemplate
	warns     time.Duration // before the end
	layout    origin.Layout

	mu       sync.Mutex
	inst     instance.Instance
	changed  chan struct{} // closed at the next change of inst
	launches int
	kept     []time.Duration
}

// deployed returns an instance with an hour left.
func deployed() instance.Instance {
	now := time.Now()
	return instance.Instance{
		ID: kubetest.ID(1), Template: template, Status: instance.StatusDeployed, Launched: now.Add(-time.Hour),
		LastActivity: now.Add(-5 * time.Minute), Source: instance.SourceWebSocket, CullAt: now.Add(time.Hour),
	}
}

// waiting returns an instance that waits for a place.
func waiting(ahead int) instance.Instance {
	inst := deployed()
	inst.Status, inst.Reason, inst.Message, inst.Launched = instance.StatusPending, instance.ReasonQueued, instance.QueuedMessage(ahead), time.Now()
	inst.CullAt = time.Time{}
	return inst
}

func newService(inst instance.Instance) *service {
	return &service{inst: inst, changed: make(chan struct{}), templated: []*corev1.PodTemplate{kubetest.Template(template)}}
}

// pages returns the pages of the service.
func (s *service) pages() *pages.Pages {
	return pages.New(pages.Deps{
		Instances: s, Launcher: s, Templates: s, Client: func(*http.Request) string { return "" }, Log: kubetest.NoLog(), Layout: s.layout,
		LastUse: func(string) (time.Time, time.Duration, bool) { return time.Now(), time.Hour, true },
		KeepAlive: func(_ context.Context, _ string, timeout time.Duration) error {
			s.change(func() { s.kept = append(s.kept, timeout) })
			return s.refusal
		},
		MinCullTimeout: time.Minute, MaxCullTimeout: 8 * time.Hour, Warnings: protocol.Warnings{Before: s.warns, Now: time.Now},
		Now: time.Now, Draining: context.Background(),
	})
}

func (s *service) change(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
	close(s.changed)
	s.changed = make(chan struct{})
}

// Await is that of pages.Instances.
func (s *service) Await(ctx context.Context, id string, good func(instance.Instance, bool) bool) (instance.Instance, bool) {
	for {
		s.mu.Lock()
		inst, changed := s.inst, s.changed
		s.mu.Unlock()
		known := inst.ID == id
		if good(inst, known) {
			return inst, known
		}
		select {
		case <-ctx.Done():
			return inst, known
		case <-changed:
		}
	}
}

// Launch is that of pages.Launcher. The instance starts at once.
func (s *service) Launch(context.Context, launch.Request) (string, error) {
	if s.refusal == nil {
		s.change(func() { s.inst, s.launches = deployed(), s.launches+1 })
	}
	return kubetest.ID(1), s.refusal
}

// Stop is that of pages.Launcher.
func (s *service) Stop(context.Context, string, string) error {
	if s.refusal == nil {
		s.change(func() {
			s.inst.Status, s.inst.Reason, s.inst.Ended = instance.StatusDeleted, string(instance.EndStopped), time.Now()
		})
	}
	return s.refusal
}

// Template is that of pages.Templates.
func (s *service) Template(_ context.Context, name string) (*corev1.PodTemplate, error) {
	i := slices.IndexFunc(s.templated, func(t *corev1.PodTemplate) bool { return t.Name == name })
	if i < 0 {
		return nil, podtemplate.ErrUnknown
	}
	return s.templated[i], nil
}

// kepts returns the cull timeouts that visitors have asked for.
func (s *service) kepts() []time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.kept)
}

// launched returns how many launches there were.
func (s *service) launched() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.launches
}

// own returns the handler of all pages but those of instances.
func (s *service) own() *http.ServeMux {
	own, mux := s.pages(), http.NewServeMux()
	mux.Handle(pages.LaunchPrefix, own.Launch())
	mux.Handle(pages.SessionPrefix, own.Session())
	mux.Handle(pages.ProgressPrefix, own.Progress())
	return mux
}

// start serves the pages until the test ends, and one of the instance in the place of the proxy.
// It returns the service's address.
func (s *service) start(t *testing.T) string {
	mux := s.own()
	mux.HandleFunc(instance.UserPrefix, func(w http.ResponseWriter, r *http.Request) {
		inst, _ := s.Await(r.Context(), kubetest.ID(1), func(instance.Instance, bool) bool { return true })
		switch inst.Status {
		case instance.StatusDeployed:
			w.Header().Set("Content-Type", "text/html")
			_, _ = w.Write([]byte("<!DOCTYPE html><title>app</title><h1>" + application + "</h1>"))
		case instance.StatusDeleted:
			pages.OrOwn(nil).Serve(w, r, pages.OverNotice(inst))
		default:
			pages.OrOwn(nil).Serve(w, r, pages.StartingNotice(inst, time.Now(), nil))
		}
	})
	return serve(t, mux)
}

// serve serves a handler until the test ends, and returns its address.
func serve(t *testing.T, handler http.Handler) string {
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	t.Cleanup(server.CloseClientConnections) // first: streams do not end by themselves
	return server.URL
}
