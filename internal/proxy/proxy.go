package proxy

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"

	"github.com/binder-project/binder-deploy-kubernetes/internal/pages"
)

const (
	podDialTimeout = 5 * time.Second
	// podKeepAlive notices a node that has gone without a word.
	podKeepAlive = 15 * time.Second
	CopyBuffer   = 32 << 10
)

// Proxy brings visitors to their instances: /user/<id>/… to the pod of that
// id. Who knows the id may come in; there is no other check.
type Proxy struct {
	instances Instances
	touch     func(id string, source instance.Source)
	idle      IdleExpressions
	isAPIKey  func(authorization string) bool
	log       *slog.Logger
	transport http.RoundTripper
	buffers   httputil.BufferPool
	// LaunchPage: what is over can be launched anew from its page.
	LaunchPage bool
}

// New makes a proxy that calls touch whenever an instance is used. key is
// the API key, which no instance may ever see.
func New(instances Instances, touch func(id string, source instance.Source), isAPIKey func(authorization string) bool, log *slog.Logger) *Proxy {
	dialer := &net.Dialer{Timeout: podDialTimeout, KeepAlive: podKeepAlive}
	return &Proxy{
		instances: instances,
		touch:     touch,
		isAPIKey:  isAPIKey,
		log:       log,
		buffers:   &BufferPool{},
		transport: &http.Transport{
			// A pod is dialled by its address: no proxy from the environment,
			// and no compression that the browser did not ask for.
			DialContext:         dialer.DialContext,
			DisableCompression:  true,
			MaxIdleConnsPerHost: 16,
			MaxIdleConns:        4096,
			IdleConnTimeout:     90 * time.Second,
		},
	}
}

// ServeHTTP answers for what cannot be reached, and hands on all else.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	id, rest, ok := splitUserPath(r.URL.EscapedPath())
	if !ok {
		p.refuse(w, r, pages.NothingHereNotice())
		return
	}
	inst, known := p.Await(r.Context(), id)
	switch {
	case !known:
		p.refuse(w, r, pages.NoInstanceNotice())
	case inst.Status == instance.StatusDeleted:
		p.refuse(w, r, pages.OverNotice(inst))
	case inst.Status == instance.StatusFailed:
		p.refuse(w, r, pages.FailedNotice(inst))
	case inst.Status != instance.StatusDeployed:
		p.refuse(w, r, pages.StartingNotice(inst))
	case rest == "":
		// Relative links need the slash; a path of our own, never the client's.
		redirect := instance.BaseURL(id)
		if r.URL.RawQuery != "" {
			redirect += "?" + r.URL.RawQuery
		}
		http.Redirect(w, r, redirect, http.StatusTemporaryRedirect)
	default:
		p.forward(w, r, inst)
	}
}

// Await looks an instance up. It gives this replica's watch a moment to catch
// up with the replica that told the client.
func (p *Proxy) Await(ctx context.Context, id string) (instance.Instance, bool) {
	ctx, cancel := context.WithTimeout(ctx, instance.WatchDelay)
	defer cancel()
	return p.instances.Await(ctx, id, func(inst instance.Instance, known bool) bool {
		return known && (inst.Status == instance.StatusDeployed || !inst.Alive())
	})
}

// refuse answers for an instance. Browsers get a page in place of a page: what
// a page loads or sends gets the plain text, as all others do.
func (p *Proxy) refuse(w http.ResponseWriter, r *http.Request, n pages.Notice) {
	if !p.LaunchPage {
		n.Template = ""
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		n.ServePlain(w)
		return
	}
	n.Serve(w, r)
}

// toucher returns what is to be called when a request, or a byte of it or of its
// answer, is use of an instance.
func (p *Proxy) toucher(inst instance.Instance, r *http.Request) func() {
	if p.idle.IsIdle(inst, r) {
		return func() {}
	}
	source := instance.SourceHTTP
	if IsWebSocket(r.Header) {
		source = instance.SourceWebSocket
	}
	return func() { p.touch(inst.ID, source) }
}

// forward sends one request to the pod and streams both ways. Headers that are
// for one connection only are dropped by ReverseProxy. A request is use once the
// pod answers it: a forgotten page also asks for what is broken.
func (p *Proxy) forward(w http.ResponseWriter, r *http.Request, inst instance.Instance) {
	touch := p.toucher(inst, r)
	// Else the server would discard what the pod has yet to read of the request
	// once the pod begins to answer.
	_ = http.NewResponseController(w).EnableFullDuplex() // always so with HTTP/2
	reverse := httputil.ReverseProxy{
		Rewrite:        func(pr *httputil.ProxyRequest) { p.rewrite(pr, inst, touch) },
		ModifyResponse: func(res *http.Response) error { return watchResponse(res, inst.ID, touch) },
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			if r.Context().Err() != nil {
				return // the visitor has gone
			}
			p.log.WarnContext(r.Context(), "instance did not answer", "id", inst.ID, "template", inst.Template, "error", err)
			p.refuse(w, r, pages.NoAnswerNotice(inst))
		},
		ErrorLog:   slog.NewLogLogger(p.log.Handler(), slog.LevelDebug),
		Transport:  p.transport,
		BufferPool: p.buffers,
	}
	reverse.ServeHTTP(w, r)
}

func (p *Proxy) rewrite(pr *httputil.ProxyRequest, inst instance.Instance, touch func()) {
	out := pr.Out
	out.URL.Scheme, out.URL.Host = "http", inst.Address
	out.URL.RawQuery = pr.In.URL.RawQuery // whole: what it means is the application's business
	if inst.StripPrefix {
		prefix := strings.TrimSuffix(instance.BaseURL(inst.ID), "/")
		out.URL.Path = strings.TrimPrefix(out.URL.Path, prefix)
		out.URL.RawPath = strings.TrimPrefix(out.URL.RawPath, prefix)
	}
	forwarded(pr)
	// An instance's own tokens may travel in this header; our key may not.
	if slices.ContainsFunc(out.Header.Values("Authorization"), p.isAPIKey) {
		out.Header.Del("Authorization")
	}
	if out.Body != nil && out.Body != http.NoBody {
		out.Body = &touchingBody{out.Body, touch}
	}
}

// forwarded tells the instance who asked, and how. The Host stays the
// browser's, so that an application's origin check holds. What an ingress in
// front of us said of host and scheme is kept: it alone knows. A visitor could
// say it too, but only to the instance that is his.
func forwarded(pr *httputil.ProxyRequest) {
	pr.Out.Header["X-Forwarded-For"] = pr.In.Header["X-Forwarded-For"]
	pr.SetXForwarded()
	for _, name := range []string{"X-Forwarded-Host", "X-Forwarded-Proto"} {
		if said := pr.In.Header.Get(name); said != "" {
			pr.Out.Header.Set(name, said)
		}
	}
}

// watchResponse makes what comes back count as activity while it moves. That a
// pod refuses a WebSocket does not: a forgotten page tries to open it for ever.
func watchResponse(res *http.Response, id string, touch func()) error {
	// All instances share one origin: none may claim more of it than its own
	// path, however it is written (/user/<id>/.. is somebody else's).
	if _, said := res.Header["Service-Worker-Allowed"]; said {
		res.Header.Set("Service-Worker-Allowed", instance.BaseURL(id))
	}
	tunnel, upgraded := res.Body.(io.ReadWriteCloser)
	upgraded = upgraded && res.StatusCode == http.StatusSwitchingProtocols
	if !upgraded && IsWebSocket(res.Request.Header) {
		return nil
	}
	touch()
	switch {
	case !upgraded:
		res.Body = &touchingBody{res.Body, touch}
	case IsWebSocket(res.Header):
		res.Body = &webSocketTunnel{ReadWriteCloser: tunnel, touch: touch}
	default:
		res.Body = &byteTunnel{tunnel, touch}
	}
	return nil
}

// touchingBody is a body that counts as activity while its bytes move.
type touchingBody struct {
	io.ReadCloser
	touch func()
}

func (b *touchingBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if n > 0 {
		b.touch()
	}
	return n, err
}

// splitUserPath takes /user/<id>/rest apart; rest keeps its leading slash and
// is empty where the path ends with the id.
func splitUserPath(escaped string) (id, rest string, ok bool) {
	after, ok := strings.CutPrefix(escaped, instance.UserPrefix)
	if !ok {
		return "", "", false
	}
	id = after
	if slash := strings.IndexByte(after, '/'); slash >= 0 {
		id, rest = after[:slash], after[slash:]
	}
	return id, rest, instance.ValidID(id)
}

// BufferPool lends ReverseProxy the buffers it copies bodies with.
type BufferPool struct{ pool sync.Pool }

func (b *BufferPool) Get() []byte {
	if buffer, ok := b.pool.Get().(*[]byte); ok {
		return *buffer
	}
	return make([]byte, CopyBuffer)
}

func (b *BufferPool) Put(buffer []byte) { b.pool.Put(&buffer) }

// Instances is what the proxy asks the read model.
type Instances interface {
	Await(ctx context.Context, id string, good func(inst instance.Instance, known bool) bool) (instance.Instance, bool)
}
