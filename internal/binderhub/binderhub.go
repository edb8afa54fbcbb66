// Package binderhub answers the clients of BinderHub: thebe on the pages of courses, MyST's
// launch button, badges, binderhub-client. Nothing is built here. A repository stands for a
// template, whose image exists.
//
// It must never know how an instance is started, nor call the API server.
package binderhub

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/binder-project/binder-deploy-kubernetes/internal/launch"
	"github.com/binder-project/binder-deploy-kubernetes/internal/origin"
	"github.com/binder-project/binder-deploy-kubernetes/internal/podtemplate"
	"github.com/binder-project/binder-deploy-kubernetes/internal/protocol"
	"github.com/binder-project/binder-deploy-kubernetes/internal/repospec"
)

const (
	buildPrefix   = "/build/"
	linkPrefix    = "/v2/"
	repoPrefix    = "/repo/"
	badgePath     = "/badge.svg"
	badgeLogoPath = "/badge_logo.svg"
	versionsPath  = "/versions"
	healthPath    = "/health"
)

// launchPrefix is where package pages has the launch page of a template.
const launchPrefix = "/launch/"

// Launcher starts instances.
type Launcher interface {
	// NewKey returns a key for launch.Request.IdempotencyKey that nobody can guess, and when it was made.
	NewKey() (key string, made time.Time, err error)
	Launch(ctx context.Context, req launch.Request) (id string, err error)
}

// Templates finds templates, those of a registry as well.
type Templates interface {
	Template(ctx context.Context, name string) (*corev1.PodTemplate, error)
}

// Pods counts the pods in the cluster. Anybody can ask, so it must be cheap.
type Pods interface {
	// Count returns how many instances live, and how many pods are kept warm.
	Count() (instances, warm int)
}

// Deps are what a BinderHub needs.
type Deps struct {
	Instances protocol.Awaiter
	Launcher  Launcher
	Templates Templates
	// PodTemplates returns the templates in the cluster, which may say which repositories
	// they are for.
	PodTemplates func() []*corev1.PodTemplate
	// Client tells whose limits a launch counts for, as launch.Request.Client.
	Client func(*http.Request) string
	// AllowOrigins are the origins whose pages may launch.
	AllowOrigins []string
	// Layout says where instances are.
	Layout origin.Layout
	Pods   Pods
	Quotas func() []*corev1.ResourceQuota // of the instances' namespace
	// MaxInstances is how many instances there may be; 0 for no limit but a quota's.
	MaxInstances int
	// Paused says that launches are refused.
	Paused bool
	// Healthy tells whether launches can succeed at all.
	Healthy func() bool
	// Refuse answers a link to a repository with a page that says why nothing can be launched.
	Refuse func(w http.ResponseWriter, r *http.Request, repository string, answer *protocol.Error)
	// Version is this service's.
	Version string
	// Draining is done when streams must end, because the server stops.
	Draining context.Context
	Log      *slog.Logger
}

// BinderHub answers as a BinderHub does.
type BinderHub struct {
	deps  Deps
	build http.Handler
	specs podtemplate.Specs
}

// New returns a BinderHub.
func New(deps Deps) *BinderHub {
	b := &BinderHub{deps: deps}
	b.build = protocol.AllowOrigins(deps.AllowOrigins, http.HandlerFunc(b.serveBuild))
	return b
}

// Paths returns what this package answers: paths, and prefixes, which end with a slash.
func Paths() []string {
	return []string{buildPrefix, linkPrefix, repoPrefix, badgePath, badgeLogoPath, versionsPath, healthPath}
}

// ServeHTTP answers what Paths says.
func (b *BinderHub) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch path := r.URL.EscapedPath(); {
	case strings.HasPrefix(path, buildPrefix):
		b.build.ServeHTTP(w, r) // a preflight has the method OPTIONS
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "the method must be GET or HEAD", http.StatusMethodNotAllowed)
	case strings.HasPrefix(path, linkPrefix):
		b.serveLink(w, r)
	case strings.HasPrefix(path, repoPrefix):
		serveRepo(w, r)
	case path == badgePath:
		serveBadge(w, badge)
	case path == badgeLogoPath:
		serveBadge(w, badgeLogo)
	case path == versionsPath:
		b.serveVersions(w)
	case path == healthPath:
		b.serveHealth(w)
	default:
		http.NotFound(w, r)
	}
}

// errNoTemplate wraps the error of a repository that no template is for.
var errNoTemplate = errors.New("no template is for this repository")

// find returns the name of the template that is for a repository: one that says so, or the
// one whose name follows from the repository's.
func (b *BinderHub) find(ctx context.Context, spec repospec.Spec) (template *corev1.PodTemplate, err error) {
	if found := b.specs.Find(b.deps.PodTemplates(), spec); found != nil {
		return found, nil
	}
	name := spec.TemplateName()
	if name == "" || len(validation.IsDNS1123Subdomain(name)) > 0 { // nothing in Kubernetes has such a name
		return nil, fmt.Errorf("%w: an operator can name it in the annotation binder-project.org/specs of a template", errNoTemplate)
	}
	template, err = b.deps.Templates.Template(ctx, name)
	if errors.Is(err, podtemplate.ErrUnknown) || err == nil && podtemplate.ExcludesVersion(template, spec) {
		return nil, fmt.Errorf("%w: an operator can add a template with the name %s, or name the repository in the annotation binder-project.org/specs of another", errNoTemplate, name)
	}
	return template, err
}

// explain returns the answer to a request for a repository from which nothing can be launched.
func explain(spec repospec.Spec, err error) *protocol.Error {
	if errors.Is(err, errNoTemplate) {
		return &protocol.Error{Code: http.StatusNotFound, Message: fmt.Sprintf("there is nothing to launch for %s here: %v", spec, err)}
	}
	return protocol.AnswerFor(err)
}

// serveLink leads from the address in a badge to the launch page of the template. Without
// a template, a page says what /build/ says. It must not lead to the launch page of the name that
// follows from the repository: a template of that name can be for other versions only.
func (b *BinderHub) serveLink(w http.ResponseWriter, r *http.Request) {
	text := strings.TrimPrefix(r.URL.EscapedPath(), linkPrefix)
	spec, err := repospec.Parse(text)
	if err != nil {
		b.deps.Refuse(w, r, text, badSpec(err))
		return
	}
	template, err := b.find(r.Context(), spec)
	if err != nil {
		answer := explain(spec, err)
		protocol.LogFailure(r, b.deps.Log, answer, err)
		b.deps.Refuse(w, r, spec.String(), answer)
		return
	}
	redirect(w, r, launchPrefix+url.PathEscape(template.Name))
}

// serveRepo leads from the address that the first badges had to that of today's.
func serveRepo(w http.ResponseWriter, r *http.Request) {
	spec, err := repospec.Parse("gh/" + strings.TrimPrefix(r.URL.EscapedPath(), repoPrefix))
	if err != nil {
		http.NotFound(w, r)
		return
	}
	redirect(w, r, linkPrefix+spec.String())
}

// redirect leads to another path of this address, with the same query.
func redirect(w http.ResponseWriter, r *http.Request, path string) {
	if r.URL.RawQuery != "" {
		path += "?" + r.URL.RawQuery
	}
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Referrer-Policy", "strict-origin")
	w.Header().Set("Location", path)
	w.WriteHeader(http.StatusFound)
}

// The badges that READMEs show.
var (
	//go:embed assets/badge.svg
	badge []byte
	//go:embed assets/badge_logo.svg
	badgeLogo []byte
)

// badgeMaxAge is how long caches may keep a badge.
const badgeMaxAge = 24 * time.Hour

func serveBadge(w http.ResponseWriter, image []byte) {
	h := w.Header()
	h.Set("Content-Type", "image/svg+xml")
	h.Set("Cache-Control", fmt.Sprintf("public, max-age=%d", int(badgeMaxAge.Seconds())))
	h.Set("Cross-Origin-Resource-Policy", "cross-origin") // other sites show it
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
	h.Set("X-Content-Type-Options", "nosniff")
	_, _ = w.Write(image) // fails only if the client has gone
}
