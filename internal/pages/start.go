package pages

import (
	"html/template"
	"net/http"
	"net/url"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/binder-project/binder-deploy-kubernetes/internal/podtemplate"
)

// StartPath is the path of the start page.
const StartPath = "/"

// startView is what the start page shows.
type startView struct {
	Title  phrase
	Offers []offer
}

// offer is a template that the start page names.
type offer struct {
	Title, Description, Address string
	Icon                        template.URL // a data URL, or ""
}

// Start returns the handler of the start page. It offers those of the templates that have a
// title: operators decide by that which are for everybody to see. templates is nil if visitors
// may not launch.
func (p *Pages) Start(templates func() []*corev1.PodTemplate) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			p.site.Serve(w, r, NothingHereNotice())
			return
		}
		view := startView{Title: say("Binder")}
		if templates != nil {
			view.Offers = offers(templates())
		}
		p.site.write(w, r, http.StatusOK, startPage, view, neverFramed)
	})
}

// offers returns the templates that have a title, by their titles.
func offers(templates []*corev1.PodTemplate) []offer {
	var all []offer
	for _, t := range templates {
		if title, description := podtemplate.Texts(t); title != "" {
			all = append(all, offer{title, description, LaunchPrefix + url.PathEscape(t.Name), template.URL(podtemplate.Icon(t))})
		}
	}
	slices.SortFunc(all, func(a, b offer) int { return strings.Compare(a.Title+a.Address, b.Title+b.Address) })
	return all
}
