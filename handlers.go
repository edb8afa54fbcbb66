package main

import (
	"context"
	_ "embed"
	"iter"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/binder-project/binder-deploy-kubernetes/internal/admin"
	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/keys"
	"github.com/binder-project/binder-deploy-kubernetes/internal/launch"
	"github.com/binder-project/binder-deploy-kubernetes/internal/metrics"
	"github.com/binder-project/binder-deploy-kubernetes/internal/pages"
	"github.com/binder-project/binder-deploy-kubernetes/internal/preload"
	"github.com/binder-project/binder-deploy-kubernetes/internal/protocol"
)

// InstanceReader answers questions about instances from memory: the read model.
type InstanceReader interface {
	Instance(id string) (instance.Instance, bool)
	Encoded(template, id string) (encoded *protocol.Encoded, ok bool)
	EachEncoded(template string) iter.Seq[*protocol.Encoded]
	Await(ctx context.Context, id string, good func(inst instance.Instance, known bool) bool) (instance.Instance, bool)
}

// InstanceLauncher starts and stops instances.
type InstanceLauncher interface {
	Launch(ctx context.Context, req launch.Request) (id string, err error)
	Stop(ctx context.Context, template, id string) error
}

var (
	_ InstanceReader    = (*Cache)(nil)
	_ InstanceLauncher  = (*launch.Launcher)(nil)
	_ TemplatePreloader = (*preload.Preloader)(nil)
)

// API is the Binder deploy API: it parses, authorises, calls and encodes.
type API struct {
	Instances InstanceReader
	Launcher  InstanceLauncher
	Preloader TemplatePreloader
	Admin     *admin.Admin
	Locations func(requestHost string) func(id string) string                   // where instances are
	Client    func(*http.Request) string                                        // as launch.Request.Client
	KeepAlive func(ctx context.Context, id string, timeout time.Duration) error // as activity.Tracker.KeepAlive
	Keys      *keys.Keys
	Warnings  protocol.Warnings
	// These are the shortest and the longest that a client can ask for.
	MinCullTimeout, MaxCullTimeout time.Duration
	// AllowOrigins are the origins whose pages may call the API from a browser.
	AllowOrigins []string
	// IsOurs reports whether the pages of a request's own host may launch; nil means that
	// all may.
	IsOurs func(host string) bool
	// Draining is done when the server ends. Waiting clients then get the present
	// status, and ask another replica.
	Draining context.Context
	Metrics  *metrics.Metrics
	Log      *slog.Logger
}

// handler answers a request, or returns what is wrong with it.
type handler func(w http.ResponseWriter, r *http.Request) error

// methods are the handlers of one path, by HTTP method.
type methods map[string]handler

// openAPI describes the endpoints, for programs.
//
//go:embed docs/openapi.json
var openAPI []byte

// endpoints are the handlers of each path. All other paths are "/", which has none.
func (a *API) endpoints() map[string]methods {
	return map[string]methods{
		"/applications":                            {http.MethodPost: a.deploy, http.MethodGet: a.authorised(a.statusAll)},
		"/applications/{template}":                 {http.MethodPost: a.deploy, http.MethodGet: a.authorised(a.statusAll)},
		"/applications/{template}/{id}":            {http.MethodGet: a.status, http.MethodDelete: a.authorised(a.stop)},
		"/applications/{template}/{id}/keep-alive": {http.MethodPost: a.keepAlive},
		"/preload/{template}":                      {http.MethodPost: a.authorised(a.preload), http.MethodGet: a.authorised(a.preloadStatus)},
		"/admin":                                   {http.MethodGet: pages.OrOwn(nil).ServeAdmin},
		"/admin/state":                             {http.MethodGet: a.authorised(a.Admin.ServeState)},
		"/openapi.json":                            {http.MethodGet: protocol.NewDocument(openAPI).Serve},
		"/":                                        nil,
	}
}

// Routes returns the handler of all endpoints. A path with a trailing slash is the
// same endpoint as the path without.
func (a *API) Routes() http.Handler {
	mux := http.NewServeMux()
	for pattern, m := range a.endpoints() {
		mux.Handle(pattern, a.Metrics.Instrument("api", pattern, a.serve(m)))
	}
	refuse := a.Metrics.Instrument("api", "/", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		protocol.WriteError(w, r, a.Log, protocol.OtherSite())
	}))
	plain := protocol.TrimSlash(a.plainPaths(mux))
	atOurs := protocol.RefuseOtherSites(a.AllowOrigins, a.IsOurs, refuse, plain)
	// The admin page stops instances at whatever host an operator reaches it, such as that of
	// kubectl port-forward. A page at a name that somebody leads here has no key.
	atAny := protocol.RefuseOtherSites(a.AllowOrigins, nil, refuse, plain)
	routes := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodDelete && a.Keys.Opens(r.Header.Get("Authorization")) {
			atAny.ServeHTTP(w, r)
			return
		}
		atOurs.ServeHTTP(w, r)
	})
	shared := protocol.AllowOrigins(a.AllowOrigins, routes)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/admin" || strings.HasPrefix(r.URL.Path, "/admin/") {
			routes.ServeHTTP(w, r) // it is for no page but its own
			return
		}
		shared.ServeHTTP(w, r)
	})
}

// plainPaths answers 404 to paths with // or dots in them. The mux would answer them
// with a redirect, whose body is not JSON; none of them is an endpoint.
func (a *API) plainPaths(next http.Handler) http.Handler {
	notFound := a.Metrics.Instrument("api", "/", a.serve(nil))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if escaped := r.URL.EscapedPath(); !protocol.IsPlainPath(escaped) {
			notFound.ServeHTTP(w, r)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// serve calls the handler of the request's method, and answers errors as JSON.
func (a *API) serve(m methods) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		method := r.Method
		if method == http.MethodHead {
			method = http.MethodGet // net/http drops the body
		}
		handle, ok := m[method]
		if !ok {
			handle = a.notAllowed(m)
		}
		if err := handle(w, r); err != nil {
			protocol.WriteError(w, r, a.Log, err)
		}
	})
}

func (a *API) notAllowed(m methods) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		return protocol.NotAllowed(w, r.URL.Path, slices.Collect(maps.Keys(m)))
	}
}

// authorised requires the API key. Without it the answer is 403, which binder-client
// reports as "Unauthorized request".
func (a *API) authorised(next handler) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		if !a.Keys.Opens(r.Header.Get("Authorization")) {
			return &protocol.Error{Code: http.StatusForbidden, Type: protocol.TypeUnauthorized, Message: "the Authorization header must hold the API key"}
		}
		return next(w, r)
	}
}

// deploy launches an instance of the template that the path or the body names.
func (a *API) deploy(w http.ResponseWriter, r *http.Request) error {
	req, err := protocol.ReadDeployRequest(w, r, r.PathValue("template"), a.MinCullTimeout, a.MaxCullTimeout)
	if err != nil {
		return err
	}
	idempotencyKey, err := protocol.ReadIdempotencyKey(r)
	if err != nil {
		return err
	}
	id, err := a.Launcher.Launch(r.Context(), launch.Request{
		Template: req.TemplateName, Client: a.Client(r), CullTimeout: req.CullTimeout, IdempotencyKey: idempotencyKey,
	})
	if err != nil {
		return err
	}
	wait, waiting := protocol.PreferredWait(r.Header.Values("Prefer"))
	if !waiting {
		protocol.WriteJSON(w, http.StatusOK, struct {
			ID string `json:"id"`
		}{id})
		return nil
	}
	inst, known := protocol.AwaitSettled(w, r, a.Instances, id, wait, a.Draining)
	if !known { // the watch has not delivered it yet
		inst = instance.Instance{ID: id, Template: req.TemplateName, Status: instance.StatusPending}
	}
	a.answerStatus(w, r, inst)
	return nil
}

// status answers with one instance: at once; with Prefer, when its launch has
// succeeded or failed; or as a stream of changes. It needs no key, because the id is
// the capability.
func (a *API) status(w http.ResponseWriter, r *http.Request) error {
	if protocol.WriteKept(w, r, a.Instances.Encoded, a.Locations) { // most requests end here
		return nil
	}
	inst, err := a.find(r)
	if err != nil {
		return err
	}
	if protocol.AcceptsEvents(r) {
		watch, err := protocol.ReadWatch(r)
		if err != nil {
			return err
		}
		protocol.StreamEvents(w, r, a.Instances, inst.ID, watch, a.Draining, func(inst instance.Instance) protocol.ProgressEvent {
			event := a.Warnings.For(watch).Event(inst, a.Locations(r.Host)(inst.ID))
			event.Detail = a.detail(inst, r)
			return event
		})
		return nil
	}
	if wait, waiting := protocol.PreferredWait(r.Header.Values("Prefer")); waiting {
		if later, known := protocol.AwaitSettled(w, r, a.Instances, inst.ID, wait, a.Draining); known {
			inst = later
		}
	}
	a.answerStatus(w, r, inst)
	return nil
}

// find returns the instance that the path names. The instance of another template is
// unknown here.
func (a *API) find(r *http.Request) (instance.Instance, error) {
	id := r.PathValue("id")
	if !instance.ValidID(id) {
		return instance.Instance{}, launch.ErrNoRecord
	}
	inst, known := a.Instances.Instance(id)
	if !known {
		ctx, cancel := context.WithTimeout(r.Context(), instance.WatchDelay)
		defer cancel()
		inst, known = a.Instances.Await(ctx, id, func(_ instance.Instance, known bool) bool { return known })
	}
	switch {
	case !known && inst.Unsure:
		return instance.Instance{}, launch.ErrUnsure
	case !known, inst.Template != r.PathValue("template"):
		return instance.Instance{}, launch.ErrNoRecord
	}
	return inst, nil
}

// statusAll lists the instances of the path's template, or all. Ended instances are
// among them while their tombstones last.
func (a *API) statusAll(w http.ResponseWriter, r *http.Request) error {
	// Only holders of the API key get here, so details may be told.
	protocol.WriteList(w, r, a.Instances.EachEncoded(r.PathValue("template")), a.Locations(r.Host))
	return nil
}

// stop ends an instance. Stopping it again gives the same answer.
func (a *API) stop(w http.ResponseWriter, r *http.Request) error {
	inst, err := a.find(r)
	if err != nil {
		return err
	}
	if err := a.Launcher.Stop(r.Context(), inst.Template, inst.ID); err != nil {
		return err
	}
	if inst.Status != instance.StatusDeleted { // an ended instance keeps its reason
		inst.Status, inst.Reason, inst.Message = instance.StatusDeleted, string(instance.EndStopped), launch.StoppedMessage
		inst.Detail, inst.Fault = "", ""
	}
	a.answerStatus(w, r, inst)
	return nil
}

// keepAlive gives an instance more time. Like the status, it needs no key.
func (a *API) keepAlive(w http.ResponseWriter, r *http.Request) error {
	timeout, err := protocol.ReadKeepAlive(w, r, a.MinCullTimeout, a.MaxCullTimeout)
	if err != nil {
		return err
	}
	inst, err := a.find(r)
	if err != nil {
		return err
	}
	if err := a.KeepAlive(r.Context(), inst.ID, timeout); err != nil {
		return err
	}
	if later, known := a.Instances.Instance(inst.ID); known {
		inst = later
	}
	a.answerStatus(w, r, inst)
	return nil
}

// answerStatus answers with the description of an instance.
func (a *API) answerStatus(w http.ResponseWriter, r *http.Request, inst instance.Instance) {
	status := protocol.NewStatusResponse(inst, a.Locations(r.Host)(inst.ID))
	status.Detail = a.detail(inst, r)
	protocol.WriteStatus(w, &status)
}

// detail returns what the cluster said about an instance, if the request has the API key.
func (a *API) detail(inst instance.Instance, r *http.Request) string {
	if inst.Detail == "" || !a.Keys.Opens(r.Header.Get("Authorization")) {
		return ""
	}
	return inst.Detail
}

// TemplatePreloader pulls templates' images onto nodes, and tells how far that is.
type TemplatePreloader interface {
	Preload(ctx context.Context, template string) (preload.Template, error)
	Status(ctx context.Context, template string) (progress preload.Progress, known bool, err error)
}

// preload begins to pull the images of the path's template onto all nodes.
func (a *API) preload(w http.ResponseWriter, r *http.Request) error {
	template, err := a.Preloader.Preload(r.Context(), r.PathValue("template"))
	if err != nil {
		return err
	}
	protocol.WriteJSON(w, http.StatusOK, struct {
		Template preload.Template `json:"template"`
	}{template})
	return nil
}

// preloadStatus tells how far the preload of a template is. The answer is an empty
// object if the template was never preloaded.
func (a *API) preloadStatus(w http.ResponseWriter, r *http.Request) error {
	progress, known, err := a.Preloader.Status(r.Context(), r.PathValue("template"))
	switch {
	case err != nil:
		return err
	case known:
		protocol.WriteJSON(w, http.StatusOK, protocol.NewPreloadStatus(progress))
	default:
		protocol.WriteJSON(w, http.StatusOK, struct{}{})
	}
	return nil
}
