package proxy

import (
	"log/slog"
	"net/http"
	"net/http/httputil"
	"slices"
	"strings"
	"sync"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/pages"
)

// copyBuffer is how many bytes of a body are copied at once.
const copyBuffer = 32 << 10

// forward sends one request to the pod and streams both ways. ReverseProxy drops
// the headers that are meant for one connection only.
func (p *Proxy) forward(w http.ResponseWriter, r *http.Request, inst instance.Instance) {
	touch := p.toucher(inst, r)
	// Without full duplex, the server discards the rest of the request once the
	// application begins to answer. An error means HTTP/2, which always has it.
	_ = http.NewResponseController(w).EnableFullDuplex()
	reverse := httputil.ReverseProxy{
		Rewrite: func(pr *httputil.ProxyRequest) { p.rewrite(pr, inst, touch) },
		ModifyResponse: func(res *http.Response) error {
			limitServiceWorkers(res.Header, inst.ID)
			watchResponse(res, touch)
			return nil
		},
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			if r.Context().Err() != nil {
				return // the visitor has gone
			}
			p.deps.Log.WarnContext(r.Context(), "the instance did not answer", "id", inst.ID, "template", inst.Template, "error", err)
			p.refuse(w, r, pages.NoAnswerNotice(inst))
		},
		ErrorLog:   slog.NewLogLogger(p.deps.Log.Handler(), slog.LevelDebug),
		Transport:  p.transport,
		BufferPool: p.buffers,
	}
	reverse.ServeHTTP(w, r)
}

// rewrite turns a visitor's request into the one that the application gets.
func (p *Proxy) rewrite(pr *httputil.ProxyRequest, inst instance.Instance, touch func()) {
	out := pr.Out
	out.URL.Scheme, out.URL.Host = "http", inst.Address
	// ReverseProxy drops parts of a query that it cannot parse. The application
	// decides what they mean, so it gets all of them.
	out.URL.RawQuery = pr.In.URL.RawQuery
	if inst.StripPrefix {
		prefix := strings.TrimSuffix(instance.BaseURL(inst.ID), "/")
		out.URL.Path = strings.TrimPrefix(out.URL.Path, prefix)
		out.URL.RawPath = strings.TrimPrefix(out.URL.RawPath, prefix)
	}
	setForwarded(pr)
	// Applications use this header for tokens of their own. The API key is not theirs.
	if slices.ContainsFunc(out.Header.Values("Authorization"), p.deps.IsAPIKey) {
		out.Header.Del("Authorization")
	}
	if out.Body != nil && out.Body != http.NoBody {
		out.Body = watchBody(out.Body, touch)
	}
}

// setForwarded tells the application who asked, and how. The Host stays the
// browser's, so that the application's origin check works. The host and scheme
// that an ingress in front of this service reported are kept: only the ingress
// knows them. A visitor can forge them, but only towards an instance whose id the
// visitor knows.
func setForwarded(pr *httputil.ProxyRequest) {
	pr.Out.Header["X-Forwarded-For"] = pr.In.Header["X-Forwarded-For"]
	pr.SetXForwarded()
	for _, name := range []string{"X-Forwarded-Host", "X-Forwarded-Proto"} {
		if reported := pr.In.Header.Get(name); reported != "" {
			pr.Out.Header.Set(name, reported)
		}
	}
}

// limitServiceWorkers keeps an application's service workers to its own path. All
// instances share one origin, so a worker with a larger scope could read other
// instances' traffic. The header is replaced and not checked, because a scope can
// be written in many ways: /user/<id>/.. is another instance's path.
func limitServiceWorkers(header http.Header, id string) {
	if _, present := header["Service-Worker-Allowed"]; present {
		header.Set("Service-Worker-Allowed", instance.BaseURL(id))
	}
}

// bufferPool lends ReverseProxy the buffers that it copies bodies with.
type bufferPool struct{ pool sync.Pool }

func (b *bufferPool) Get() []byte {
	if buffer, ok := b.pool.Get().(*[]byte); ok {
		return *buffer
	}
	return make([]byte, copyBuffer)
}

func (b *bufferPool) Put(buffer []byte) { b.pool.Put(&buffer) }
