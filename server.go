package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/binder-project/binder-deploy-kubernetes/internal/admission"
	"github.com/binder-project/binder-deploy-kubernetes/internal/binderhub"
	"github.com/binder-project/binder-deploy-kubernetes/internal/gate"
	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/keys"
	"github.com/binder-project/binder-deploy-kubernetes/internal/metrics"
	"github.com/binder-project/binder-deploy-kubernetes/internal/origin"
	"github.com/binder-project/binder-deploy-kubernetes/internal/pages"
	"github.com/binder-project/binder-deploy-kubernetes/internal/podtemplate"
	"github.com/binder-project/binder-deploy-kubernetes/internal/profiling"
	"github.com/binder-project/binder-deploy-kubernetes/internal/proxy"
)

// requestLimits bound single requests of a server. For times, 0 means no limit.
type requestLimits struct {
	read, write time.Duration
	header      int // the most bytes of a request's first line and header fields
}

// shortRequests are the API's. The write limit leaves room for the longest wait that
// a client may ask for with Prefer.
func shortRequests() requestLimits {
	return requestLimits{read: 30 * time.Second, write: 90 * time.Second, header: 64 << 10}
}

// longRequests are the proxy's: uploads, downloads and WebSockets have no end of
// their own.
func longRequests() requestLimits { return requestLimits{header: pages.MaxHeader} }

// server is one listener and the handler that answers on it.
type server struct {
	name     string
	listener net.Listener
	http     *http.Server
	log      *slog.Logger
}

func newServer(name string, listener net.Listener, handler http.Handler, limits requestLimits, log *slog.Logger) *server {
	return &server{name: name, listener: listener, log: log, http: &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       limits.read,
		WriteTimeout:      limits.write,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    limits.header,
		ErrorLog:          slog.NewLogLogger(log.With("server", name).Handler(), slog.LevelError),
	}}
}

func (s *server) addr() string { return s.listener.Addr().String() }

// serve answers until shutdown; any other end is an error.
func (s *server) serve() error {
	if err := s.http.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve %s: %w", s.name, err)
	}
	return nil
}

// shutdown lets requests end until the timeout, and then cuts them. It does not wait for
// WebSockets: the proxy ends them.
func (s *server) shutdown(timeout time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	if err := s.http.Shutdown(ctx); err != nil {
		s.log.Warn("requests were cut off at the end", "server", s.name, "error", err)
		_ = s.http.Close() // Shutdown's error was logged already
	}
}

// formTimeout is how long the body of a request to one of our own pages may take in all.
const formTimeout = 30 * time.Second

// maxUnread is how many bytes of a body that nobody wants are read, so that the connection
// can be used again. net/http reads as many.
const maxUnread = 256 << 10

// ownPage bounds the requests of one of our own pages: net/http would wait for a body for as
// long as the client likes. timeout is how long a body may take in all. The body has been
// read, or its time is over, when the request ends: so the client's limits hold until then.
func ownPage(site *pages.Site, next http.Handler, timeout time.Duration) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if notice, tooLarge := pages.HeadNotice(r); tooLarge {
			proxy.AnswerEarly(w, r, func() { w.Header().Set("Connection", "close"); site.Serve(w, r, notice) })
			return
		}
		if r.Body != nil && r.Body != http.NoBody {
			control := http.NewResponseController(w)
			_ = control.SetReadDeadline(time.Now().Add(timeout)) // fails only once the connection is closed
			body := &form{r.Body, control}
			r.Body = body
			defer func() { _, _ = io.CopyN(io.Discard, body, maxUnread) }()
		}
		next.ServeHTTP(w, r)
	})
}

// form is a body with a deadline, which ends with it.
type form struct {
	io.ReadCloser
	control *http.ResponseController
}

// Read reads what has arrived.
func (f *form) Read(p []byte) (int, error) {
	n, err := f.ReadCloser.Read(p)
	if errors.Is(err, io.EOF) {
		_ = f.control.SetReadDeadline(time.Time{}) // the server watches for the end of the connection now
	}
	return n, err
}

// connContext notes for each request which connection it came over.
func connContext(ctx context.Context, c net.Conn) context.Context {
	return gate.ConnContext(proxy.ConnContext(ctx, c), c)
}

// gateDeps say what visitors may hold.
func (a *app) gateDeps() gate.Deps {
	limits := gate.Sized(gate.Limits{
		All: a.config.MaxConnections, PerClient: a.config.MaxConnectionsPerClient, PerInstance: a.config.MaxConnectionsPerInstance,
	}, gate.MemoryLimit(os.ReadFile), gate.FileLimit())
	a.log.Info("the proxy's limits", "connections", limits.All, "perClient", limits.PerClient, "perInstance", limits.PerInstance)
	return gate.Deps{Limits: limits, Client: a.clients.Address, Trusts: a.clients.Trusts, Metrics: a.metrics}
}

// limits are the limits of launches.
func (a *app) limits() admission.Limits {
	return admission.Limits{
		LaunchRate: a.config.LaunchRate, MaxPerClient: a.config.MaxInstancesPerClient, MaxInstances: a.config.MaxInstances,
		MaxQueued: a.config.QueueLength(), Paused: a.config.PauseLaunches,
	}
}

// layout says at which hosts the service and its instances are.
func (a *app) layout() origin.Layout {
	return origin.Layout{Public: a.config.PublicHosts, Domain: a.config.InstanceDomain}
}

// clientOf tells whose limits a launch counts for, on the API's and on the public port. A
// holder of the API key may launch for many people, so its launches do not count for a client.
func (a *app) clientOf(r *http.Request) string {
	if a.keys.Opens(r.Header.Get("Authorization")) {
		return ""
	}
	return a.clients.Of(r.RemoteAddr, r.Header["X-Forwarded-For"])
}

// ownPages are the handlers of what is on the public port besides the instances: by path, or by
// what it begins with, which ends with a slash.
func (a *app) ownPages(templates podtemplate.Source) map[string]http.Handler {
	own := pages.New(pages.Deps{
		Site: a.site, Instances: a.asked(), Launcher: a.launcher, Client: a.clientOf, Templates: templates, NoLaunchPage: !a.config.LaunchPage,
		StartLog: a.startLogs.Follow, KeepAlive: a.activity.KeepAlive, LastUse: a.cache.LastUse, MinCullTimeout: a.config.MinCullTimeout, MaxCullTimeout: a.config.MaxCullTimeout,
		Layout: a.layout(), FrameAncestors: a.config.FrameAncestors, Warnings: a.endWarnings(), Now: a.now, Draining: a.draining, Log: a.log,
	})
	all := map[string]http.Handler{pages.ProgressPrefix: own.Progress(), pages.SessionPrefix: own.Session(), pages.StartPath: own.Start(nil)}
	if !a.config.LaunchPage {
		return all
	}
	all[pages.StartPath], all[pages.LaunchPrefix] = own.Start(a.cache.PodTemplates), own.Launch()
	if a.config.BinderHub {
		hub := binderhub.New(binderhub.Deps{
			Instances: a.asked(), Launcher: a.launcher, Templates: templates, PodTemplates: a.cache.PodTemplates,
			Client: a.clientOf, AllowOrigins: a.config.CORSAllowOrigins, Layout: a.layout(),
			Pods: a.cache.pods, Quotas: a.cache.Quotas, MaxInstances: a.config.MaxInstances, Paused: a.config.PauseLaunches, Healthy: func() bool { return !a.contact.Lost() },
			Refuse: a.site.ServeNoTemplate, Version: version, Draining: a.draining, Log: a.log,
		})
		for _, path := range binderhub.Paths() {
			all[path] = hub
		}
	}
	return all
}

// routePublic routes by the path as it was sent. It is not a ServeMux, because a ServeMux cleans
// paths, and these are the applications'. What is not one of our own paths goes to the instances'
// handler, and so does everything at the hosts of instances.
//
// Our own pages are only at the main address. Another name that leads here can be anyone's,
// whose pages are then of the same origin (DNS rebinding), and could launch.
func routePublic(m *metrics.Metrics, site *pages.Site, own map[string]http.Handler, layout origin.Layout, instances http.Handler) http.Handler {
	atMain := map[string]http.Handler{}
	for path, next := range own {
		next = ownPage(site, next, formTimeout)
		atMain[path] = m.InstrumentProxy(path, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !layout.IsMain(r.Host) {
				proxy.AnswerEarly(w, r, func() { site.Serve(w, r, pages.MisdirectedNotice()) })
				return
			}
			next.ServeHTTP(w, r)
		}))
	}
	instances = m.InstrumentProxy(instance.UserPrefix, instances)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		path := proxy.EscapedPath(r)
		handler, ours := atMain[path]
		if first := firstSegment(path); !ours {
			handler, ours = atMain[first]
		}
		if _, ofInstances := layout.OfInstances(r.Host); ofInstances || !ours {
			handler = instances
		}
		handler.ServeHTTP(w, r)
	})
}

// firstSegment returns a path up to its second slash, such as /launch/.
func firstSegment(path string) string {
	if len(path) > 0 {
		if end := strings.IndexByte(path[1:], '/'); end >= 0 {
			return path[:end+2]
		}
	}
	return path
}

// notAtInstances keeps what a server answers from the hosts of instances.
func notAtInstances(layout origin.Layout, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, ofInstances := layout.OfInstances(r.Host); ofInstances {
			pages.MisdirectedNotice().ServePlain(w)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// health answers the kubelet's probes.
type health struct {
	synced   func() bool
	cutOff   func() bool // from the API server
	stopping atomic.Bool
}

// routes are the endpoints for operators: metrics, probes, and profiles if they are on.
func (h *health) routes(metrics http.Handler, profiles bool) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", metrics)
	mux.HandleFunc("GET /healthz", h.healthz)
	mux.HandleFunc("GET /readyz", h.readyz)
	if profiles {
		mux.Handle(profiling.Prefix, profiling.Handler())
	}
	return mux
}

// healthz says that the process answers. It does not depend on the API server: a
// restart would not bring that back, and would lose the cache that answers meanwhile.
func (h *health) healthz(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") }

// readyz says that requests are welcome: the cluster has been read, the process is not
// ending, and it can write what visitors use, so that the leader does not end it.
//
// While the API server itself is away, all replicas say no, which no one hears: the kubelet
// cannot report it either.
func (h *health) readyz(w http.ResponseWriter, _ *http.Request) {
	switch {
	case h.stopping.Load():
		http.Error(w, "shutting down", http.StatusServiceUnavailable)
	case !h.synced():
		http.Error(w, "waiting for the first read of the cluster", http.StatusServiceUnavailable)
	case h.cutOff():
		http.Error(w, "the API server does not answer this replica", http.StatusServiceUnavailable)
	default:
		fmt.Fprintln(w, "ok")
	}
}

const (
	// contactTick is how often contact with the API server is looked at.
	contactTick = time.Second
	// socketsATick is how many WebSockets are ended in that time, so that browsers do not
	// all come back at once.
	socketsATick = 20
)

// shouldChange reports whether a WebSocket of an instance should be opened again at
// another replica: this one can no longer write its use since a time, and half of the time
// is over in which the instance may be idle. Until then contact may be back. One that was
// opened since then has come back: there is no other replica that is ready.
func (a *app) shouldChange(id string, opened, since time.Time) bool {
	if opened.After(since) {
		return false
	}
	inst, known := a.cache.Instance(id)
	half := inst.LastActivity.Add(inst.CullAt.Sub(inst.LastActivity) / 2)
	return known && (inst.Unsure || !inst.CullAt.IsZero() && a.now().After(half))
}

// watchContact logs when contact with the API server is lost and is back, until ctx is
// done. In between, connections are closed after each answer, so that clients which keep
// one open go to another replica too. Those of WebSockets end when they should.
func (a *app) watchContact(ctx context.Context) {
	ticker := time.NewTicker(contactTick)
	defer ticker.Stop()
	lost, since := false, time.Time{}
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if lost {
			a.proxy.EndSomeWebSockets(socketsATick, func(id string, opened time.Time) bool { return a.shouldChange(id, opened, since) })
		}
		if a.contact.Lost() == lost {
			continue
		}
		lost, since = !lost, a.now()
		if lost {
			a.log.Warn("the API server has not answered for a minute: this replica is not ready, so that visitors go to others if there are any")
		} else {
			a.log.Info("the API server answers again")
		}
		for _, s := range a.servers[1:] {
			s.http.SetKeepAlivesEnabled(!lost)
		}
	}
}

// watchKeys keeps the API keys in step with their file, if there is one, until ctx is done.
func (a *app) watchKeys(ctx context.Context) {
	if a.config.APIKeyFile == "" {
		return
	}
	watcher := keys.Watcher{
		Keys: a.keys, Log: a.log,
		Read: func() ([]string, error) { return a.config.ReadAPIKeys(os.ReadFile) },
	}
	watcher.Run(ctx)
}
