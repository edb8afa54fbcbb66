package pages

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/binder-project/binder-deploy-kubernetes/internal/admission"
	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
	"github.com/binder-project/binder-deploy-kubernetes/internal/podtemplate"
)

func titled(name, title, description string) *corev1.PodTemplate {
	return kubetest.Template(name, kubetest.WithTemplateAnnotation(instance.TitleAnnotation, title), kubetest.WithTemplateAnnotation(instance.DescriptionAnnotation, description))
}

// The start page offers the templates that have a title, and no other.
func TestStartPage(t *testing.T) {
	p := New(Deps{Log: kubetest.NoLog()})
	all := []*corev1.PodTemplate{titled("b/x", "Zoology", "All <animals>"), kubetest.Template("hidden"), titled("a", "Algebra", "\x00"), titled("bad", "\n", "")}
	page := serve(p.Start(func() []*corev1.PodTemplate { return all }), "GET", "/", "")
	wantPage(t, page, 200, `<li><a href="/launch/a">Algebra</a></li>
<li><a href="/launch/b%2Fx">Zoology</a><br>All &lt;animals&gt;</li>`)
	if body := page.Body.String(); strings.Contains(body, "hidden") || strings.Contains(body, "bad") {
		t.Errorf("a template without a title is offered: %s", body)
	}
	wantFrames(t, "the start page", page, neverFramed)
	for _, h := range []func() []*corev1.PodTemplate{nil, func() []*corev1.PodTemplate { return nil }} {
		wantPage(t, serve(p.Start(h), "GET", "/", ""), 200, "follow a launch link")
	}
	wantPage(t, serve(p.Start(nil), "POST", "/", ""), 404, "nothing at this address")
}

// The launch page has the template's title and description.
func TestLaunchPageOfATitle(t *testing.T) {
	view := launchView{Title: say("Launch %s", "Algebra"), Template: "a", Name: "Algebra", Description: "With <vectors>", Button: say("Launch")}
	var page strings.Builder
	if err := ownSite().pages[launchPage]["en"].Execute(&page, view); err != nil || !strings.Contains(page.String(), "<h1>Launch Algebra</h1>\n<p>With &lt;vectors&gt;</p>") {
		t.Errorf("got %v: %s", err, page.String())
	}
}

// A launch that is over a limit, or cannot be made just now, is tried again by the page; what
// another launch would not mend is not.
func TestPagesTryAgain(t *testing.T) {
	h, s := newSite()
	s.launchErr = &admission.Refusal{Limit: admission.AllInstances, Max: 10, RetryAfter: time.Minute}
	wantPage(t, serve(h, "POST", "/launch/jupyter", "path=tree"), 429, `action="/launch/jupyter" data-retry="60"`, `id="retry"`)
	if body := serve(h, "GET", "/launch/nowhere", "").Body.String(); strings.Contains(body, "data-retry") {
		t.Errorf("a link launches by itself: %s", body)
	}
	s.templateErr = podtemplate.ErrUnavailable
	wantPage(t, serve(h, "GET", "/launch/nowhere?path=tree", ""), 503, `<meta http-equiv="refresh" content="5">`, `value="tree"`)
	for _, limit := range []string{admission.Paused, admission.ClientInstances} {
		s.launchErr = &admission.Refusal{Limit: limit, RetryAfter: time.Minute}
		if body := serve(h, "POST", "/launch/jupyter", "").Body.String(); strings.Contains(body, "data-retry") || !strings.Contains(body, "Try again</button>") {
			t.Errorf("%s: it tries again by itself, or cannot: %s", limit, body)
		}
	}
	s.launchErr = &admission.Refusal{Limit: admission.AllInstances, Max: 10}
	if body := serve(h, "POST", "/launch/jupyter", "").Body.String(); strings.Contains(body, "data-retry") {
		t.Errorf("it tries again at once, for ever: %s", body)
	}
	over := OverNotice(instance.Instance{Template: "jupyter", Reason: "Culled"})
	if body := serveNotice(over, browserAccept).Body.String(); strings.Contains(body, "data-retry") || strings.Contains(body, "http-equiv") {
		t.Errorf("the page of an ended instance launches by itself: %s", body)
	}
}

// An application that starts again after hours is not timed from its launch.
func TestProgressOfARestart(t *testing.T) {
	inst := instance.Instance{ID: kubetest.ID(1), Template: "jupyter", Status: instance.StatusDeploying, Launched: kubetest.Noon.Add(-3 * time.Hour)}
	page := serveNotice(StartingNotice(inst, kubetest.Noon, func() time.Duration { return time.Second }), browserAccept).Body.String()
	if strings.Contains(page, "data-seconds") || strings.Contains(page, "usually") {
		t.Errorf("got %s", page)
	}
}
