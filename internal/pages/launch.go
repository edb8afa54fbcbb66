package pages

import (
	"cmp"
	"context"
	"errors"
	"html/template"
	"log/slog"
	"net/http"
	"net/url"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/launch"
	"github.com/binder-project/binder-deploy-kubernetes/internal/origin"
	"github.com/binder-project/binder-deploy-kubernetes/internal/podtemplate"
	"github.com/binder-project/binder-deploy-kubernetes/internal/protocol"
)

// The paths of the pages begin with these.
const (
	LaunchPrefix   = "/launch/"
	ProgressPrefix = "/progress/"
)

// Instances is what the pages ask the read model.
type Instances interface {
	// Await returns what is known of an id as soon as good accepts it, or when ctx is
	// done.
	Await(ctx context.Context, id string, good func(inst instance.Instance, known bool) bool) (inst instance.Instance, known bool)
}

// Launcher launches and stops instances.
type Launcher interface {
	Launch(ctx context.Context, req launch.Request) (id string, err error)
	Stop(ctx context.Context, template, id string) error
}

// Templates finds templates. An error is turned into a page by protocol.AnswerFor.
type Templates interface {
	Template(ctx context.Context, name string) (*corev1.PodTemplate, error)
}

// Deps are what the pages need.
type Deps struct {
	// Site is how the pages look; nil for our own.
	Site *Site
	// Instances tells the state of instances and waits for changes.
	Instances Instances
	// Launcher launches instances for visitors.
	Launcher Launcher
	// Client tells whose limits a launch counts for, as launch.Request.Client.
	Client func(*http.Request) string
	// Templates tells which templates exist.
	Templates Templates
	// FrameAncestors are the origins whose pages may show ours in a frame, besides our
	// own. No frame shows the launch page.
	FrameAncestors []string
	// Layout says where instances are.
	Layout origin.Layout
	// NoLaunchPage says that visitors cannot launch: then no page has a button for that.
	NoLaunchPage bool
	// StartLog shows the log of an instance that starts, as startlog.Logs.Follow does; nil for none.
	StartLog func(ctx context.Context, id string, send func(lines string) error) error
	// KeepAlive gives an instance more time, as activity.Tracker does.
	KeepAlive func(ctx context.Context, id string, timeout time.Duration) error
	// LastUse tells an instance's cull timeout, as activity.Cache does.
	LastUse func(id string) (written time.Time, cullTimeout time.Duration, ok bool)
	// MinCullTimeout and MaxCullTimeout are those that a visitor may ask for.
	MinCullTimeout, MaxCullTimeout time.Duration
	// Warnings say when visitors are warned of the end of their instance.
	Warnings protocol.Warnings
	// Now is the clock by which pages count down.
	Now func() time.Time
	// Draining is done when streams must end, because the server stops.
	Draining context.Context
	// Log gets the errors that are this service's fault.
	Log *slog.Logger
}

// Pages serves this service's own pages on the public port, beside the instances.
type Pages struct {
	deps Deps
	site *Site
}

// New returns the pages.
func New(d Deps) *Pages { return &Pages{d, OrOwn(d.Site)} }

// Launch returns the handler of all paths that begin with LaunchPrefix:
// /launch/<template> is the page that a badge in a README links to.
func (p *Pages) Launch() http.Handler {
	mux := http.NewServeMux()
	for _, path := range []string{LaunchPrefix + "{template}", LaunchPrefix + "{template}/{$}"} {
		mux.HandleFunc("GET "+path, p.showLaunchPage)
		mux.HandleFunc("POST "+path, p.launch)
	}
	mux.HandleFunc("GET "+LaunchPrefix+"{template}/{id}", p.open)
	mux.HandleFunc(LaunchPrefix, func(w http.ResponseWriter, r *http.Request) { p.answer(w, r, NothingHereNotice()) })
	// Another site must not start instances in the names of its visitors.
	return p.onlyOurs(mux, crossOriginNotice(say("Not launched"), say("Another site asked to launch this in your name. Only this service's own pages can launch.")))
}

// showLaunchPage serves the page that a link leads to. It launches nothing, because
// crawlers and link previews follow links too: the page itself sends the POST. No frame
// shows it, or another site could launch by a frame.
func (p *Pages) showLaunchPage(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("template")
	path, err := linkOf(r)
	if err != nil {
		p.answer(w, r, badLinkNotice(err))
		return
	}
	found, err := p.deps.Templates.Template(r.Context(), name)
	if err != nil {
		p.refuse(w, r, name, path, err)
		return
	}
	title, description := podtemplate.Texts(found)
	view := launchView{Title: say("Launch %s", cmp.Or(title, name)), Template: name, Name: title, Description: description, Icon: template.URL(podtemplate.Icon(found)), Path: path, Button: say("Launch")}
	if own, has := p.ownInstance(r, name); has {
		view.Has, view.Button = true, say("Start another")
		if p.mayShowID(r) {
			view.Back, view.Session = p.deps.Layout.BaseURL(own)+path, SessionPrefix+own
		}
	}
	p.site.write(w, r, http.StatusOK, launchPage, view, neverFramed)
}

// instanceCookie holds the id of the instance that a visitor has launched last, at the launch
// page of its template only. Scripts do not get it.
const instanceCookie = "binder-instance"

// mayShowID reports whether an answer may show the id of its visitor's instance, which is all
// that guards it. If instances share our origin, scripts in others could ask for our pages and
// read them. Then only a browser's window gets it, and only if no page of our origin led there:
// scripts cannot forge these fields (Fetch Metadata), and between windows of different origins
// the browser cuts what they have of each other (COOP). No frame shows the page. Over plain
// HTTP, browsers do not send these fields.
func (p *Pages) mayShowID(r *http.Request) bool {
	from := r.Header.Get("Sec-Fetch-Site")
	return p.deps.Layout.Apart() || isWindow(r) && from != "same-origin" && from != ""
}

// ownInstance returns the living instance of a template that a visitor has launched before. A
// script of another instance could set a second cookie of the name: two that differ tell
// nothing.
func (p *Pages) ownInstance(r *http.Request, template string) (id string, has bool) {
	for _, cookie := range r.CookiesNamed(instanceCookie) {
		if !instance.ValidID(cookie.Value) || id != "" && id != cookie.Value {
			return "", false
		}
		id = cookie.Value
	}
	if id == "" {
		return "", false
	}
	inst, known := p.deps.Instances.Await(r.Context(), id, func(instance.Instance, bool) bool { return true })
	return id, known && inst.Template == template && inst.Alive()
}

// isWindow reports whether a browser is going to show the answer in a window or tab, and says so.
func isWindow(r *http.Request) bool {
	return r.Header.Get("Sec-Fetch-Mode") == "navigate" && r.Header.Get("Sec-Fetch-Dest") == "document"
}

// remember sets the cookie. If instances share our origin, only a window does: a launch by a
// script of another instance must not take its place. It can outlive its instance, which does not count any more then.
func (p *Pages) remember(w http.ResponseWriter, r *http.Request, template, id string) {
	if !p.deps.Layout.Apart() && !isWindow(r) {
		return
	}
	http.SetCookie(w, &http.Cookie{
		Name: instanceCookie, Value: id, Path: LaunchPrefix + url.PathEscape(template), Secure: protocol.IsHTTPS(r),
		HttpOnly: true, SameSite: http.SameSiteLaxMode, MaxAge: int((30 * 24 * time.Hour).Seconds()),
	})
}

// launch launches an instance and redirects the visitor to it. A browser applies the
// policy form-action to all redirects that follow a form, and the application's first
// answer may be a redirect to a login on another origin. So browsers are redirected to a
// page of ours, where the form ends, and which leads to the instance.
func (p *Pages) launch(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("template")
	if err := parseForm(w, r); err != nil {
		p.answer(w, r, badFormNotice(say("Not launched"), err))
		return
	}
	path, err := deepLink(r.PostForm)
	if err != nil {
		p.answer(w, r, badLinkNotice(err))
		return
	}
	id, err := p.deps.Launcher.Launch(r.Context(), launch.Request{Template: name, Client: p.deps.Client(r)})
	if err != nil {
		p.refuse(w, r, name, path, err)
		return
	}
	location := p.deps.Layout.BaseURL(id) + path
	if acceptsHTML(r) {
		location = LaunchPrefix + url.PathEscape(name) + "/" + id + "?" + url.Values{"path": {path}}.Encode()
	}
	setOwnHeaders(w.Header())
	p.remember(w, r, name, id)
	w.Header().Set("Location", location)
	w.WriteHeader(http.StatusSeeOther)
}

// open serves the page that leads from a launch to its instance. It is the answer to a
// GET, so a reload finds the same instance. It tells nothing of the instance: the
// instance's address does.
func (p *Pages) open(w http.ResponseWriter, r *http.Request) {
	name, id := r.PathValue("template"), r.PathValue("id")
	if !instance.ValidID(id) {
		p.answer(w, r, NothingHereNotice())
		return
	}
	path, err := linkOf(r)
	if err != nil {
		p.answer(w, r, badLinkNotice(err))
		return
	}
	view := openView{Title: say("Opening %s", called(name)), Template: name, Address: p.deps.Layout.BaseURL(id) + path}
	p.site.write(w, r, http.StatusOK, openPage, view, framedBy(p.deps.FrameAncestors))
}

// linkOf returns the deep link that the query of a request names.
func linkOf(r *http.Request) (string, error) {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return "", errors.New("what follows the question mark is not a list of parameters")
	}
	return deepLink(query)
}

// answer serves a notice in place of the launch page, or of the answer to its form. A
// frame shows only the latter: our own pages alone can send a form, and the notice of an
// instance in a frame has one.
func (p *Pages) answer(w http.ResponseWriter, r *http.Request, n Notice) {
	if p.deps.NoLaunchPage {
		n.Template = ""
	}
	n.FrameAncestors = p.deps.FrameAncestors
	n.unframed = n.unframed || r.Method != http.MethodPost
	p.site.Serve(w, r, n)
}

// parseForm reads the form of a request, which is limited in size. The server limits its time.
func parseForm(w http.ResponseWriter, r *http.Request) error {
	r.Body = http.MaxBytesReader(w, r.Body, protocol.MaxBody)
	return r.ParseForm()
}

// refuse serves a page that says why nothing was launched.
func (p *Pages) refuse(w http.ResponseWriter, r *http.Request, template, path string, err error) {
	answer := protocol.AnswerFor(err)
	protocol.LogFailure(r, p.deps.Log, answer, err)
	p.answer(w, r, notLaunchedNotice(template, path, answer))
}

// isTooLarge reports whether a body was larger than protocol.MaxBody.
func isTooLarge(err error) bool {
	tooLarge := (*http.MaxBytesError)(nil)
	return errors.As(err, &tooLarge)
}
