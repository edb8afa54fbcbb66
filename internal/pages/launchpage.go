package pages

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"

	"github.com/binder-project/binder-deploy-kubernetes/internal/metrics"

	"github.com/binder-project/binder-deploy-kubernetes/internal/podtemplate"

	"github.com/binder-project/binder-deploy-kubernetes/internal/launch"

	"github.com/binder-project/binder-deploy-kubernetes/internal/protocol"
)

const (
	launchPrefix   = "/launch/"
	ProgressPrefix = "/progress/"
)

// LaunchPages are this service's own pages beside the proxy, on its address:
// /launch/<template>, which a badge in a README leads to, and the changes of an
// instance that starts, for the page that shows them.
type LaunchPages struct {
	Instances Instances
	Launcher  Launcher
	Templates podtemplate.Source
	// Enabled: there is a launch page at all.
	Enabled  bool
	Draining context.Context // as the API's
	Metrics  *metrics.Metrics
	Log      *slog.Logger
}

// Routes adds the pages to the proxy. Its paths are the applications' and reach
// it as they are, which a ServeMux would not let them.
func (l *LaunchPages) Routes(proxy http.Handler) http.Handler {
	launch := l.Metrics.InstrumentProxy(launchPrefix, l.launchRoutes())
	progress := l.Metrics.InstrumentProxy(ProgressPrefix, http.HandlerFunc(l.progress))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch path := r.URL.EscapedPath(); {
		case l.Enabled && strings.HasPrefix(path, launchPrefix):
			launch.ServeHTTP(w, r)
		case strings.HasPrefix(path, ProgressPrefix):
			progress.ServeHTTP(w, r)
		default:
			proxy.ServeHTTP(w, r)
		}
	})
}

func (l *LaunchPages) launchRoutes() http.Handler {
	mux := http.NewServeMux()
	for _, path := range []string{launchPrefix + "{template}", launchPrefix + "{template}/{$}"} {
		mux.HandleFunc("GET "+path, l.getPage)
		mux.HandleFunc("POST "+path, l.postLaunch)
	}
	mux.HandleFunc(launchPrefix, func(w http.ResponseWriter, r *http.Request) { NothingHereNotice().Serve(w, r) })
	// A launch is for who asked for it on our own page: another site must not
	// start instances in its visitors' names.
	protection := http.NewCrossOriginProtection()
	protection.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { foreignNotice().Serve(w, r) }))
	return protection.Handler(mux)
}

// getPage is what a link leads to. It launches nothing, for crawlers and
// previewers follow links too: it is the page itself that posts.
func (l *LaunchPages) getPage(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("template")
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		badPathNotice(errDeepLink).Serve(w, r)
		return
	}
	path, err := DeepLink(query.Get("path"))
	if err != nil {
		badPathNotice(err).Serve(w, r)
		return
	}
	if _, err := l.Templates.Template(r.Context(), name); err != nil {
		l.refuse(w, r, name, path, err)
		return
	}
	writePage(w, http.StatusOK, launchTemplate, launchView{Title: "Launch " + name, Template: name, Path: path, Button: "Launch"})
}

// postLaunch starts an instance and sends the visitor there.
func (l *LaunchPages) postLaunch(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("template")
	r.Body = http.MaxBytesReader(w, r.Body, protocol.MaxBody)
	// The proxy's requests have no time limit, for uploads; a form needs none of that.
	connection := http.NewResponseController(w)
	_ = connection.SetReadDeadline(time.Now().Add(formTimeout)) // not all writers have one
	err := r.ParseForm()
	_ = connection.SetReadDeadline(time.Time{})
	if err != nil {
		code := http.StatusBadRequest
		if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
			code = http.StatusRequestEntityTooLarge
		}
		badFormNotice(code).Serve(w, r)
		return
	}
	path, err := DeepLink(r.PostForm.Get("path"))
	if err != nil {
		badPathNotice(err).Serve(w, r)
		return
	}
	id, err := l.Launcher.Launch(r.Context(), launch.Request{Template: name})
	if err != nil {
		l.refuse(w, r, name, path, err)
		return
	}
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Referrer-Policy", "strict-origin")
	w.Header().Set("Location", instance.BaseURL(id)+path)
	w.WriteHeader(http.StatusSeeOther)
}

// refuse says why there is no launch, and logs what is our own fault.
func (l *LaunchPages) refuse(w http.ResponseWriter, r *http.Request, template, path string, err error) {
	answer := protocol.AnswerFor(err)
	if answer.Code >= http.StatusInternalServerError && !errors.Is(err, r.Context().Err()) {
		l.Log.ErrorContext(r.Context(), "launch page failed", "template", template, "code", answer.Code, "error", err)
	}
	notLaunchedNotice(template, path, answer).Serve(w, r)
}

// progress streams the changes of an instance. Who knows the id may see them;
// they say nothing of where it is, for the page is there already.
func (l *LaunchPages) progress(w http.ResponseWriter, r *http.Request) {
	id := strings.TrimPrefix(r.URL.EscapedPath(), ProgressPrefix)
	if !instance.ValidID(id) || r.Method != http.MethodGet {
		NothingHereNotice().Serve(w, r)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), instance.WatchDelay)
	defer cancel()
	if _, known := l.Instances.Await(ctx, id, func(_ instance.Instance, known bool) bool { return known }); !known {
		NoInstanceNotice().Serve(w, r)
		return
	}
	protocol.StreamEvents(w, r, l.Instances, id, l.Draining, func(inst instance.Instance) protocol.ProgressEvent { return protocol.NewProgressEvent(inst, "") })
}

// formTimeout is how long a form may take to arrive.
const formTimeout = 30 * time.Second

// Instances is what pages ask the read model.
type Instances interface {
	Await(ctx context.Context, id string, good func(inst instance.Instance, known bool) bool) (instance.Instance, bool)
}

// Launcher launches instances.
type Launcher interface {
	Launch(ctx context.Context, req launch.Request) (id string, err error)
}
