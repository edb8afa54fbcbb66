package pages

import (
	"fmt"
	"html"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
	"github.com/binder-project/binder-deploy-kubernetes/internal/origin"
)

func apart() origin.Layout {
	return origin.Layout{Public: []string{"hub.example:8443", "alias.example"}, Domain: "users.example:8443"}
}

// The pages at an instance's host ask the main address, and lead there.
func TestNoticesAtAnInstance(t *testing.T) {
	inst := instance.Instance{ID: kubetest.ID(1), Template: "jupyter"}
	starting := serveNotice(StartingNotice(inst, kubetest.Noon, nil).At(apart()), browserAccept)
	wantPage(t, starting, 503, `data-events="//hub.example:8443/progress/`+kubetest.ID(1)+`"`)
	if policy := starting.Header().Get("Content-Security-Policy"); !strings.Contains(policy, "; connect-src 'self' hub.example:8443; ") {
		t.Errorf("the page may not ask: %s", policy)
	}
	over := serveNotice(OverNotice(inst).At(apart()), browserAccept)
	wantPage(t, over, 410, `<a class="button" href="//hub.example:8443/launch/jupyter" target="_top">Launch a new one</a>`)
	if strings.Contains(over.Body.String(), "<form") {
		t.Error("the page has a form, which the main address would refuse")
	}
	here := StartingNotice(inst, kubetest.Noon, nil).At(origin.Layout{})
	wantPage(t, serveNotice(here, browserAccept), 503, `data-events="/progress/`+kubetest.ID(1)+`"`)
}

// A launch leads to the instance's host, and its progress can be read from there alone.
func TestLaunchLeadsToTheInstancesHost(t *testing.T) {
	world := kubetest.NewWorld(time.Now, nil, kubetest.Pod(kubetest.ID(1), time.Now()))
	s := &site{}
	p := New(Deps{Launcher: s, Client: clientOf, Templates: s, Layout: apart(), Log: kubetest.NoLog(), Instances: world, Draining: t.Context()})
	address := "//" + kubetest.ID(1) + ".users.example:8443/user/" + kubetest.ID(1) + "/a"
	wantPage(t, serve(p.Launch(), "GET", "/launch/jupyter/"+kubetest.ID(1)+"?path=a", "", "Accept", browserAccept), 200, `content="0; url=`+address+`"`)
	for asker, want := range map[string]string{
		"https://" + kubetest.ID(1) + ".users.example:8443": "https://" + kubetest.ID(1) + ".users.example:8443",
		"https://" + kubetest.ID(2) + ".users.example:8443": "",
		"https://evil.example":                              "",
		"null":                                              "",
	} {
		res := serve(p.Progress(), "GET", "/progress/"+kubetest.ID(1), "", "Origin", asker, "Accept", "text/event-stream")
		if got := res.Header().Get("Access-Control-Allow-Origin"); res.Code != 200 || got != want {
			t.Errorf("%s: got %d, allowed %q, want %q", asker, res.Code, got, want)
		}
	}
}

// The button of an ended instance's page leads to the same page of a new one.
func TestSamePageOfANewInstance(t *testing.T) {
	inst := instance.Instance{ID: kubetest.ID(1), Template: "jupyter", Status: instance.StatusDeleted, Reason: "Culled"}
	for page, want := range map[string]string{
		"/notebooks/deep.ipynb?x=1":      "notebooks/deep.ipynb?x=1",
		"/lab/tree/a%20b?token=o&x=1":    "lab/tree/a%20b?x=1",
		"/tree?token=old":                "tree",
		"/":                              "",
		"":                               "",
		"/../x":                          "",
		"/%2e%2e/x":                      "",
		"//evil.example/":                "",
		"/a?" + strings.Repeat("x", 4e3): "",
	} {
		here := serveNotice(OverNotice(inst).For(page), browserAccept).Body.String()
		if field := fmt.Sprintf(`name="path" value="%s"`, html.EscapeString(want)); want != "" && !strings.Contains(here, field) || want == "" && strings.Contains(here, `name="path" value="`) && !strings.Contains(here, `name="path" value=""`) {
			t.Errorf("%.50s: the form does not open %q: %s", page, want, here)
		}
		apartFrom := serveNotice(OverNotice(inst).For(page).At(apart()), browserAccept).Body.String()
		link := "//hub.example:8443/launch/jupyter"
		if want != "" {
			link += "?" + url.Values{"path": {want}}.Encode()
		}
		if !strings.Contains(apartFrom, `href="`+html.EscapeString(link)+`"`) {
			t.Errorf("%.50s: no link to %q: %s", page, link, apartFrom)
		}
	}
}
