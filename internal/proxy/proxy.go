// Package proxy brings visitors to their instances: it forwards /user/<id>/… to the
// application in the pod of that id, over HTTP and WebSocket. It decides which
// headers pass and which traffic counts as use of an instance.
//
// It knows of an instance only what the read model says. It never talks to the API
// server and never starts or ends an instance.
package proxy

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"syscall"
	"time"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/origin"
	"github.com/binder-project/binder-deploy-kubernetes/internal/pages"
	"github.com/binder-project/binder-deploy-kubernetes/internal/upstream"
)

const (
	podDialTimeout = 5 * time.Second
	// podKeepAlive detects a node that has vanished without closing its connections.
	podKeepAlive = 15 * time.Second
	// startDelay is how long a request for an instance that is starting is held before it is
	// answered with how far the start is. Many are ready a moment after their launch.
	startDelay = 500 * time.Millisecond
)

// Instances is what a Proxy asks the read model.
type Instances interface {
	// Instance returns an instance as it is now.
	Instance(id string) (inst instance.Instance, known bool)
	// Await returns an instance once good accepts it, or as it is when ctx ends.
	Await(ctx context.Context, id string, good func(inst instance.Instance, known bool) bool) (inst instance.Instance, known bool)
}

// Deps are what a Proxy needs.
type Deps struct {
	// Site is how our pages look; nil for our own files.
	Site *pages.Site
	// Instances finds the instance that a path names.
	Instances Instances
	// Touch is called whenever an instance is used. It must be fast: it is called for
	// every piece of a body and every WebSocket message.
	Touch func(id string, source instance.Source)
	// IsAPIKey reports whether the value of an Authorization header holds the API
	// key. No application may see it.
	IsAPIKey func(authorization string) bool
	// UsualStart returns how long a start of a template usually takes; 0 if that is not known.
	UsualStart func(template string) time.Duration
	// LaunchPage says whether the page of an ended instance has a button that
	// launches a new one.
	LaunchPage bool
	// FrameAncestors are the origins whose pages may show our notices in a frame,
	// besides our own.
	FrameAncestors []string
	// ShareWith are the origins whose pages may use instances by scripts, or anyOrigin for all.
	ShareWith []string
	// Layout says at which hosts instances are.
	Layout origin.Layout
	// HideCookies are the names of cookies that no application sees or sets, such as
	// those of a login in front of this service. A star at the end stands for any ending.
	HideCookies []string
	// IdleTimeout is how long an application, or a client, may neither send nor take a byte
	// while the other waits for it. WebSockets can be silent for longer. 0 is no limit.
	IdleTimeout time.Duration
	// Enter begins a request or a WebSocket to an instance, which leave ends. ok is false if
	// there are too many at the instance. Nil means no limit.
	Enter func(id string) (leave func(), ok bool)
	// Metrics counts what passes; nil for nobody.
	Metrics Metrics
	// Log is told of applications that do not answer.
	Log *slog.Logger
}

// Proxy is an http.Handler that forwards requests to instances. Anyone who knows an
// instance's id can visit it; there is no other check.
type Proxy struct {
	deps     Deps
	site     *pages.Site
	idle     idleExpressions
	pool     *upstream.Pool
	buffers  upstream.Buffers
	sockets  webSockets
	now      func() time.Time
	patience time.Duration // with clients that are half-closed
}

// New returns a Proxy that has no connections yet.
func New(deps Deps) *Proxy {
	if deps.Enter == nil {
		deps.Enter = func(string) (func(), bool) { return func() {}, true }
	}
	if deps.UsualStart == nil {
		deps.UsualStart = func(string) time.Duration { return 0 }
	}
	if deps.Metrics == nil {
		deps.Metrics = noMetrics{}
	}
	return &Proxy{deps: deps, site: pages.OrOwn(deps.Site), pool: upstream.NewPool(dialer(deps.IdleTimeout), time.Now, deps.IdleTimeout), now: time.Now, patience: halfClosedPatience}
}

// dialer returns a function that connects to a pod by its address, and by no proxy that the
// environment names.
func dialer(idle time.Duration) func(ctx context.Context, address string) (net.Conn, error) {
	d := &net.Dialer{Timeout: podDialTimeout, KeepAlive: podKeepAlive, Control: func(_, _ string, raw syscall.RawConn) error {
		tuneSocket(raw, idle)
		return raw.Control(func(fd uintptr) {
			_ = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, podReadBuffer) // the default does as well
		})
	}}
	return func(ctx context.Context, address string) (net.Conn, error) { return d.DialContext(ctx, "tcp", address) }
}

// ServeHTTP forwards a request to its instance. It answers by itself if there is
// no instance to forward to.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !r.ProtoAtLeast(1, 1) {
		// HTTP/1.0 has no chunks. A client that sends some, and this server, may not agree
		// on where a request ends (RFC 9112, section 6.1).
		w.Header().Set("Connection", "close")
	}
	if r.Method == http.MethodConnect {
		w.Header().Set("Connection", "close")
		p.turnAway(w, r, "", pages.NoTunnelNotice())
		return
	}
	if notice, tooLarge := pages.HeadNotice(r); tooLarge {
		p.turnAway(w, r, "", notice)
		return
	}
	id, rest, ok := splitUserPath(EscapedPath(r))
	there, port := p.deps.Layout.Port(r.Host)
	if port != "" { // all of its paths are the application's
		id, rest, ok = there, "/", true
	} else if p.deps.Layout.Apart() && p.answerElsewhere(w, r, id, ok) {
		return
	}
	if !ok {
		p.turnAway(w, r, "", pages.NothingHereNotice())
		return
	}
	if p.answerPreflight(w, r) {
		return
	}
	inst, known := p.await(r.Context(), id)
	switch {
	case !known:
		p.turnAway(w, r, "", pages.MissingNotice(inst.Unsure))
	case inst.Status == instance.StatusDeleted:
		p.turnAway(w, r, inst.Template, pages.OverNotice(inst))
	case inst.Status == instance.StatusFailed:
		p.turnAway(w, r, inst.Template, pages.FailedNotice(inst))
	case inst.Status != instance.StatusDeployed:
		p.turnAway(w, r, inst.Template, pages.StartingNotice(inst, p.now(), func() time.Duration { return p.deps.UsualStart(inst.Template) }))
	case inst.Unsure:
		if !isWebSocket(r.Header) {
			p.toucher(inst, r)() // the visitor asks for it, so it is in use
		}
		p.turnAway(w, r, inst.Template, pages.UnsureNotice(inst))
	case rest == "":
		// Relative links need the slash. The path is ours and not the client's, so
		// that no client chooses where the redirect leads.
		redirect := instance.BaseURL(id)
		if r.URL.RawQuery != "" {
			redirect += "?" + r.URL.RawQuery
		}
		AnswerEarly(w, r, func() { http.Redirect(w, r, redirect, http.StatusTemporaryRedirect) })
	default:
		p.enter(w, r, inst, port)
	}
}

// atPort returns an instance as another port of its pod has it. Its template says nothing of what
// that sends by itself, so all of it is use. ok is false if the template does not open the port.
func atPort(inst instance.Instance, port string) (other instance.Instance, ok bool) {
	ports, err := instance.ParsePorts(inst.Ports)
	host, _, badAddress := net.SplitHostPort(inst.Address)
	if err != nil || badAddress != nil || !slices.Contains(ports, port) {
		return inst, false
	}
	inst.Address = net.JoinHostPort(host, port)
	inst.StripPrefix, inst.IdlePaths, inst.IdleRequests, inst.HeartbeatFrames = false, "", "", ""
	inst.Restarts = 0 // the application's pages tell of them
	return inst, true
}

// enter forwards a request, unless there are too many at the instance. port is that of the pod; ""
// for that of its application.
func (p *Proxy) enter(w http.ResponseWriter, r *http.Request, inst instance.Instance, port string) {
	if port != "" {
		other, open := atPort(inst, port)
		if inst = other; !open {
			p.turnAway(w, r, inst.Template, pages.NothingHereNotice())
			return
		}
	}
	leave, ok := p.deps.Enter(inst.ID)
	if !ok {
		p.turnAway(w, r, inst.Template, pages.BusyInstanceNotice())
		return
	}
	defer leave()
	r, answered := p.site.RestartNotice(w, r, inst, p.deps.FrameAncestors)
	if answered {
		p.deps.Metrics.Noticed(inst.Template, http.StatusOK)
		return
	}
	p.forward(w, r, inst)
}

// answerElsewhere answers a request that has come to another host than its instance's, or
// that does not name the instance of its host. isPath says that the path names an instance,
// id.
//
// The redirects keep the method, the body and the query: programs follow them with
// whatever they sent. Browsers follow none for a WebSocket, so a page of the main address
// cannot open one to an instance. Where they lead is ours and not the client's, but for
// what is below the instance's base URL.
func (p *Proxy) answerElsewhere(w http.ResponseWriter, r *http.Request, id string, isPath bool) bool {
	here, ofInstances := p.deps.Layout.OfInstances(r.Host)
	path, query := splitTarget(r)
	address := ""
	switch {
	case !ofInstances && isPath:
		address = "//" + p.deps.Layout.InstanceHost(id) + path + query
	case !ofInstances: // the page that nothing is here
		return false
	case here != "" && path == "/":
		address = instance.BaseURL(here) + query
	case here == "" || !isPath || id != here:
		p.turnAway(w, r, "", pages.NothingHereNotice())
		return true
	default:
		return false
	}
	AnswerEarly(w, r, func() { pages.Redirect(w, r, address) })
	return true
}

// await finds an instance. It waits up to instance.WatchDelay for one that is unknown, and
// then up to startDelay for one that is starting.
func (p *Proxy) await(ctx context.Context, id string) (instance.Instance, bool) {
	settled := func(inst instance.Instance, known bool) bool {
		return known && (inst.Status == instance.StatusDeployed || !inst.Alive())
	}
	if inst, known := p.deps.Instances.Instance(id); settled(inst, known) { // most of them, which need no timer
		return inst, known
	}
	delivery, cancel := context.WithTimeout(ctx, instance.WatchDelay)
	defer cancel()
	if inst, known := p.deps.Instances.Await(delivery, id, func(_ instance.Instance, known bool) bool { return known }); !known {
		return inst, false
	}
	start, cancel := context.WithTimeout(ctx, startDelay)
	defer cancel()
	return p.deps.Instances.Await(start, id, settled)
}

// turnAway refuses a request that is not forwarded. template is that of its instance, or ""
// if it has none.
func (p *Proxy) turnAway(w http.ResponseWriter, r *http.Request, template string, n pages.Notice) {
	AnswerEarly(w, r, func() { p.refuse(w, r, template, n) })
}

// AnswerEarly answers a request whose body nobody wants. A body that is on its way is
// read for a while, so that its sender gets to read the answer.
func AnswerEarly(w http.ResponseWriter, r *http.Request, answer func()) {
	control := http.NewResponseController(w)
	body := newRequestBody(r, control, 0, func() {})
	if body == nil {
		answer()
		return
	}
	_ = control.EnableFullDuplex() // otherwise the server waits for a part of the body first
	w.Header().Set("Connection", "close")
	answer()
	body.Abandon()
}

// refuse answers in place of an instance. A page is shown only where the browser
// asks for one: what a page loads or sends gets plain text, and so do all other
// clients.
func (p *Proxy) refuse(w http.ResponseWriter, r *http.Request, template string, n pages.Notice) {
	p.deps.Metrics.Noticed(template, n.Code)
	if !p.deps.LaunchPage {
		n.Template = ""
	}
	n.FrameAncestors = p.deps.FrameAncestors
	path, query := splitTarget(r)
	if _, page, ok := splitUserPath(path); ok {
		n = n.For(page + query)
	}
	n = n.At(p.deps.Layout)
	p.share(w.Header(), r) // a page learns that the instance is over
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		n.ServePlain(w)
		return
	}
	p.site.Serve(w, r, n)
}
