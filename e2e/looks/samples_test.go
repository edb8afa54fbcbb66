//go:build e2e

package looks

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/binder-project/binder-deploy-kubernetes/internal/admission"
	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
	"github.com/binder-project/binder-deploy-kubernetes/internal/launch"
	"github.com/binder-project/binder-deploy-kubernetes/internal/origin"
	"github.com/binder-project/binder-deploy-kubernetes/internal/pages"
	"github.com/binder-project/binder-deploy-kubernetes/internal/protocol"
)

const (
	launchPath  = pages.LaunchPrefix + template
	sessionPath = pages.SessionPrefix + "00000000000000000000000000000001" // of kubetest.ID(1)
	longImage   = "registry.example.org/department-of-neuroscience/introduction@sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
	longWord    = "Pneumonoultramicroscopicsilicovolcanoconiosis"
	square      = "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 1 1'%3E%3Crect width='1' height='1'/%3E%3C/svg%3E"
)

// sample shows a page to a browser whose request may be another than the one that gets the page in
// earnest.
type sample = http.HandlerFunc

// asked shows what a handler answers to a request. header are names and values in turn.
func asked(handler http.Handler, method, target, form string, header ...string) sample {
	return func(w http.ResponseWriter, r *http.Request) {
		inner := httptest.NewRequest(method, "http://"+r.Host+target, strings.NewReader(form))
		inner.Header.Set("Accept", r.Header.Get("Accept"))
		inner.Header.Set("Accept-Language", r.Header.Get("Accept-Language"))
		if form != "" {
			inner.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		}
		for i := 0; i < len(header); i += 2 {
			inner.Header.Set(header[i], header[i+1])
		}
		handler.ServeHTTP(w, inner)
	}
}

// noticed shows a notice.
func noticed(n pages.Notice) sample {
	return func(w http.ResponseWriter, r *http.Request) { pages.OrOwn(nil).Serve(w, r, n) }
}

// titled is noticed for a template with a title.
func titled(n pages.Notice) sample {
	return func(w http.ResponseWriter, r *http.Request) {
		site, err := pages.Load("", func(string) string { return longWord + " for all" })
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		site.Serve(w, r, n)
	}
}

// linked is the page of a link to a repository from which nothing can be launched.
func linked(code int, message string) sample {
	return func(w http.ResponseWriter, r *http.Request) {
		refusal := &protocol.Error{Code: code, Message: message}
		if code == http.StatusServiceUnavailable {
			refusal.RetryAfter = time.Minute
		}
		pages.OrOwn(nil).ServeNoTemplate(w, r, "gh/org/"+longWord+"/HEAD", refusal)
	}
}

// ended returns an instance that has ended or failed.
func ended(status instance.Status, reason, message string) instance.Instance {
	inst := deployed()
	inst.Status, inst.Reason, inst.Message, inst.Ended = status, reason, message, time.Now()
	return inst
}

// samples are all pages and notices, each in all of its kinds.
func samples() map[string]sample {
	all := map[string]sample{}
	for _, some := range []map[string]sample{ownPages(), progressPages(), sessionPages(), instanceNotices(), launchNotices(), requestNotices()} {
		for name, sample := range some {
			all[name] = sample
		}
	}
	return all
}

func ownPages() map[string]sample {
	s, offering := newService(deployed()), newService(deployed())
	offering.templated = append(offering.templated, kubetest.Template("titled", func(t *corev1.PodTemplate) {
		t.Annotations[instance.TitleAnnotation], t.Annotations[instance.DescriptionAnnotation] = longWord+" for all", "What "+longWord+" is."
		t.Annotations[instance.IconAnnotation] = square
	}))
	mine := []string{"Cookie", "binder-instance=" + kubetest.ID(1)}
	window := append([]string{"Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document", "Sec-Fetch-Site", "none"}, mine...)
	templates := func() []*corev1.PodTemplate { return offering.templated }
	return map[string]sample{
		"start":            asked(s.pages().Start(nil), "GET", pages.StartPath, ""),
		"start-offers":     asked(s.pages().Start(templates), "GET", pages.StartPath, ""),
		"launch":           asked(s.pages().Launch(), "GET", launchPath, ""),
		"launch-titled":    asked(offering.pages().Launch(), "GET", pages.LaunchPrefix+"titled?path=lab/tree/"+longWord+".ipynb", ""),
		"launch-back":      asked(s.pages().Launch(), "GET", launchPath+"?path=lab", "", window...),
		"launch-elsewhere": asked(s.pages().Launch(), "GET", launchPath, "", mine...),
		"open":             asked(s.pages().Launch(), "GET", launchPath+"/"+kubetest.ID(1), ""),
		"admin": func(w http.ResponseWriter, r *http.Request) {
			_ = pages.OrOwn(nil).ServeAdmin(w, r) // always nil
		},
	}
}

func progressPages() map[string]sample {
	usual := func() time.Duration { return time.Minute }
	pending, deploying := ended(instance.StatusPending, "", "Waiting for a node."), ended(instance.StatusDeploying, "", "Fetching the image "+longImage+".")
	deploying.Launched, deploying.ShowsLog = time.Now().Add(-72*time.Second), true
	return map[string]sample{
		"progress-pending":   noticed(pages.StartingNotice(pending, time.Now(), usual)),
		"progress-deploying": noticed(pages.StartingNotice(deploying, time.Now(), usual)),
		"progress-titled":    titled(pages.StartingNotice(pending, time.Now(), usual)),
		"progress-queued":    noticed(pages.StartingNotice(waiting(2), time.Now(), usual)),
	}
}

func sessionPages() map[string]sample {
	warned, starting, aged := newService(deployed()), newService(deployed()), newService(deployed())
	warned.warns = 2 * time.Hour
	warned.inst.LastActivity = time.Now().Add(-3 * time.Hour)
	starting.inst.Status, starting.inst.CullAt, starting.inst.Message = instance.StatusDeploying, time.Time{}, "Fetching the image "+longImage+"."
	aged.inst.ExpiresAt, aged.inst.Ports = time.Now().Add(3*time.Hour), "3000"
	aged.layout = origin.Layout{Public: []string{"binder.test"}, Domain: "users.binder.test"}
	show := func(s *service) sample { return asked(s.pages().Session(), "GET", sessionPath, "") }
	return map[string]sample{
		"session": show(newService(deployed())), "session-warned": show(warned), "session-starting": show(starting),
		"session-aged": show(aged), "session-queued": show(newService(waiting(2))),
	}
}

// instanceNotices are about an instance.
func instanceNotices() map[string]sample {
	const output = " The container's last output:\nTraceback (most recent call last):\n  " + longImage
	failed := ended(instance.StatusFailed, "Error", "The container app exited with code 3."+output)
	byTemplate, byCluster, unsure, restarted := failed, failed, deployed(), deployed()
	byTemplate.Fault, byCluster.Fault = instance.FaultTemplate, instance.FaultCluster
	restarted.Restarts, restarted.RestartReason = 2, "exited with code 3"
	all := map[string]sample{
		"missing": noticed(pages.MissingNotice(false)), "missing-unsure": noticed(pages.MissingNotice(true)), "unsure": noticed(pages.UnsureNotice(unsure)),
		"failed": noticed(pages.FailedNotice(failed)), "failed-template": noticed(pages.FailedNotice(byTemplate)), "failed-cluster": noticed(pages.FailedNotice(byCluster)),
		"no-answer": noticed(pages.NoAnswerNotice(deployed())), "busy-instance": noticed(pages.BusyInstanceNotice()),
		"elsewhere": noticed(pages.OverNotice(ended(instance.StatusDeleted, "Culled", "")).At(origin.Layout{Public: []string{"binder.test"}, Domain: "users.binder.test"})),
		"restarted": func(w http.ResponseWriter, r *http.Request) {
			pages.OrOwn(nil).RestartNotice(w, r, restarted, nil)
		},
	}
	for _, reason := range append(instance.EndReasons(), instance.EndReason(instance.ReasonDeleting)) {
		all["over-"+strings.ToLower(string(reason))] = noticed(pages.OverNotice(ended(instance.StatusDeleted, string(reason), "Its cull timeout is 1h0m0s.")).For("lab"))
	}
	return all
}

// launchNotices are about a launch, or a form of the session page, that came to nothing.
func launchNotices() map[string]sample {
	post := func(refusal error, path, form string) sample {
		s := newService(deployed())
		s.refusal = refusal
		return asked(s.own(), "POST", path, form)
	}
	over := func(limit string) error {
		return &admission.Refusal{Limit: limit, Max: 20, RetryAfter: 12 * time.Minute}
	}
	s := newService(deployed())
	foreign := []string{"Sec-Fetch-Site", "cross-site", "Origin", "https://course.test"}
	all := map[string]sample{
		"launch-unknown":     asked(s.own(), "GET", pages.LaunchPrefix+longWord, ""),
		"launch-bad-link":    asked(s.own(), "GET", launchPath+"?path=..%2F", ""),
		"launch-bad-form":    post(nil, launchPath, "path=%"),
		"no-template":        linked(http.StatusNotFound, "there is nothing to launch for gh/org/"+longWord+"/HEAD here: an operator can add a template."),
		"no-template-unsure": linked(http.StatusServiceUnavailable, "The registry does not answer."),
		"launch-foreign":     asked(s.own(), "POST", launchPath, "path=", foreign...),
		"launch-busy":        post(launch.ErrBusy, launchPath, "path=lab"),
		"launch-full":        post(launch.ErrCapacity, launchPath, "path=lab"),
		"launch-no-cluster":  post(errors.New("no answer"), launchPath, "path=lab"),
		"session-foreign":    asked(s.own(), "POST", sessionPath, "action=stop", foreign...),
		"session-bad-form":   post(nil, sessionPath, "action=%"),
		"session-refused":    post(instance.ErrTooSoon, sessionPath, "action=extend"),
		"session-unsure":     post(context.DeadlineExceeded, sessionPath, "action=stop"),
	}
	for _, limit := range admission.LimitNames() {
		all["launch-over-"+limit] = post(over(limit), launchPath, "path=lab")
	}
	return all
}

// requestNotices are about a request that is not right, or comes at a wrong time.
func requestNotices() map[string]sample {
	all := map[string]sample{
		"not-found": noticed(pages.NothingHereNotice()), "misdirected": noticed(pages.MisdirectedNotice()), "no-tunnel": noticed(pages.NoTunnelNotice()),
		"bad-body": noticed(pages.BadBodyNotice()), "slow-body": noticed(pages.SlowBodyNotice()), "busy-client": noticed(pages.BusyClientNotice()),
		"bad-watch": asked(newService(deployed()).own(), "GET", pages.ProgressPrefix+kubetest.ID(1)+"?watch=x", ""),
	}
	large := httptest.NewRequest("GET", "/?"+strings.Repeat("x", 100<<10), nil)
	many, heavy := httptest.NewRequest("GET", "/", nil), httptest.NewRequest("GET", "/", nil)
	many.Header["X"] = make([]string, 1000)
	heavy.Header.Set("X", strings.Repeat("x", 100<<10))
	for name, r := range map[string]*http.Request{"long-address": large, "many-fields": many, "large-head": heavy} {
		notice, _ := pages.HeadNotice(r)
		all[name] = noticed(notice)
	}
	return all
}
