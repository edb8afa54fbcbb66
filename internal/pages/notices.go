package pages

import (
	"cmp"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/binder-project/binder-deploy-kubernetes/internal/admission"
	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/origin"
	"github.com/binder-project/binder-deploy-kubernetes/internal/protocol"
)

// launchAgain is the text of the button that replaces an instance.
const launchAgain = "Launch a new one"

// tryAgain is the text of the button that launches once more what could not be launched.
const tryAgain = "Try again"

// unsureRetry is how long to wait until the service may know more.
const unsureRetry = 5 * time.Second

// busyRetry is how long to wait until others may have gone.
const busyRetry = 5 * time.Second

// NothingHereNotice is for addresses that do not exist.
func NothingHereNotice() Notice {
	const text = "There is nothing at this address."
	return Notice{Code: http.StatusNotFound, Plain: text, Title: say("Not found"), Text: []phrase{say(text)}}
}

// MisdirectedNotice is for a request for our own pages that has come by another host than
// the main address (RFC 9110, section 15.5.20).
func MisdirectedNotice() Notice {
	const text = "This service's own pages are not at this host."
	return Notice{Code: http.StatusMisdirectedRequest, Plain: text, Title: say("Not here"), Text: []phrase{say(text)}, unframed: true}
}

// NoTunnelNotice is for CONNECT: what follows it would be a tunnel to proxies in front of
// this service, and requests to us (RFC 9110, section 9.3.6).
func NoTunnelNotice() Notice {
	const text = "This service opens no tunnels."
	return Notice{Code: http.StatusMethodNotAllowed, Plain: text, Title: say("Not allowed"), Text: []phrase{say(text)}}
}

// MissingNotice is for ids of which nothing is known. unsure says that other replicas may
// know more.
func MissingNotice(unsure bool) Notice {
	if unsure {
		return Notice{
			Code: http.StatusServiceUnavailable, RetryAfter: unsureRetry,
			Plain: "This instance cannot be found at the moment. Try again shortly.",
			Title: say("This instance cannot be found at the moment"),
			Text:  []phrase{say("The service does not know at the moment whether there is an instance at this address. Nothing is lost. This page loads again by itself.")},
		}
	}
	return Notice{
		Code: http.StatusNotFound, Plain: "There is no such instance.",
		Title: say("No such instance"),
		Text:  []phrase{say("There is no instance at this address. It may have ended so long ago that nothing is known about it any more, or the address may be incomplete.")},
	}
}

// UnsureNotice is for an instance whose address may belong to another by now.
func UnsureNotice(inst instance.Instance) Notice {
	return Notice{
		Code: http.StatusServiceUnavailable, RetryAfter: unsureRetry,
		Plain: "This instance cannot be reached at the moment. Try again shortly.",
		Title: say("%s cannot be reached at the moment", called(inst.Template)),
		Text:  []phrase{say("The service does not know at the moment whether the address that it has is still that of your instance. Nothing is lost. This page loads again by itself.")},
	}
}

// FailedNotice is for an instance that has failed and still has a pod.
func FailedNotice(inst instance.Instance) Notice {
	n := Notice{
		Code: http.StatusBadGateway, Plain: "This instance failed: " + failureText(inst),
		Title: say("%s failed", called(inst.Template)), Reason: inst.Reason,
	}
	n.setFailure(inst)
	n.offerLaunch(inst)
	return n
}

// setFailure says why an instance failed, and what its container said last.
func (n *Notice) setFailure(inst instance.Instance) {
	text, output := instance.CutLastOutput(failureText(inst))
	n.Text, n.Output = []phrase{quote(text)}, output
}

// failureText says why an instance failed. Its message says what a visitor can do.
func failureText(inst instance.Instance) string {
	return cmp.Or(inst.Message, unexplained)
}

// offerLaunch adds a button that launches another instance, unless that would fail in
// the same way.
func (n *Notice) offerLaunch(inst instance.Instance) {
	switch inst.Fault {
	case instance.FaultTemplate:
	case instance.FaultCluster:
		n.Template, n.Button = inst.Template, say(tryAgain)
	default:
		n.Template, n.Button = inst.Template, say(launchAgain)
	}
}

// For returns the notice for a visitor who asked for a page of an instance, as its path below the
// base URL and its query. What the notice's button launches opens at the same page. A token in
// the query was the old instance's.
func (n Notice) For(page string) Notice {
	path, query, _ := strings.Cut(page, "?")
	if values, err := url.ParseQuery(query); err == nil && values.Has("token") {
		values.Del("token")
		query = values.Encode()
	}
	if query != "" {
		path += "?" + query
	}
	if link, err := parseDeepLink(path); err == nil {
		n.Path = link
	}
	return n
}

// At returns the notice as the host of an instance serves it, if instances have hosts of
// their own. What it asks or leads to besides the instance is at the main address.
func (n Notice) At(layout origin.Layout) Notice {
	if !layout.Apart() {
		return n
	}
	if n.Template != "" {
		n.LaunchPage = layout.Main(LaunchPrefix + url.PathEscape(n.Template))
		if n.Path != "" {
			n.LaunchPage += "?" + url.Values{"path": {n.Path}}.Encode()
		}
		n.Template = ""
	}
	if n.progress != nil {
		progress := *n.progress
		progress.Events, progress.Session = layout.Main(progress.Events), layout.Main(progress.Session)
		if progress.Log != "" {
			progress.Log = layout.Main(progress.Log)
		}
		progress.hosts = layout.Public[:1]
		n.progress = &progress
	}
	return n
}

// NoAnswerNotice is for an instance whose application does not accept a connection
// or does not answer.
func NoAnswerNotice(inst instance.Instance) Notice {
	const text = "The instance did not answer."
	return Notice{
		Code: http.StatusBadGateway, Plain: text,
		Title:    say("%s does not answer", called(inst.Template)),
		Text:     []phrase{say("The instance exists, but the application in it did not answer. Load this page again; if that does not help, launch a new instance.")},
		Template: inst.Template, Button: say(launchAgain),
	}
}

// BadBodyNotice is for a request whose body ended early or is malformed.
func BadBodyNotice() Notice {
	const text = "The body of the request ended early, or it is malformed."
	return Notice{Code: http.StatusBadRequest, Plain: text, Title: say("Bad request"), Text: []phrase{say(text)}}
}

// SlowBodyNotice is for a request whose body did not go on in time.
func SlowBodyNotice() Notice {
	const text = "The body of the request did not arrive in time."
	return Notice{Code: http.StatusRequestTimeout, Plain: text, Title: say("Too slow"), Text: []phrase{say(text)}}
}

// BusyInstanceNotice is for a request to an instance that has as many under way as it may.
func BusyInstanceNotice() Notice {
	const text = "This instance has too many connections at the moment. Close some of its pages. A page that was loaded tries again by itself."
	return Notice{Code: http.StatusServiceUnavailable, RetryAfter: busyRetry, Plain: text, Title: say("Too many connections"), Text: []phrase{say(text)}}
}

// BusyClientNotice is for a client that has as many requests under way as it may.
func BusyClientNotice() Notice {
	const text = "Your address has too many connections at the moment. Close some pages. A page that was loaded tries again by itself."
	return Notice{Code: http.StatusTooManyRequests, RetryAfter: busyRetry, Plain: text, Title: say("Too many connections"), Text: []phrase{say(text)}}
}

// OverNotice is for an instance that has ended. It says why.
func OverNotice(inst instance.Instance) Notice {
	n := Notice{
		Code: http.StatusGone, Plain: "This instance has ended: " + inst.Message,
		Reason: inst.Reason, Message: inst.Message, When: inst.Ended,
	}
	n.offerLaunch(inst)
	lost := say("Everything in it is gone.")
	switch inst.Reason {
	case string(instance.EndCulled):
		n.Title = say("%s was closed because it was not used", called(inst.Template))
		n.Text = []phrase{say("An instance is deleted when nobody has used it for a while, to make room for others."), lost}
	case string(instance.EndExpired):
		n.Title = say("%s was closed because its time was up", called(inst.Template))
		n.Text = []phrase{say("Instances of this kind are deleted at a fixed age, even if they are in use."), lost}
	case string(instance.EndAbandoned):
		n.Title = say("%s has lost its place in the queue", called(inst.Template))
		n.Text = []phrase{say("All places were taken, and nobody asked about this one for a while. Nothing is lost: it had not started.")}
	case string(instance.EndStopped):
		n.Title = say("%s was stopped", called(inst.Template))
		n.Text = []phrase{say("This instance was stopped on request."), lost}
	case string(instance.EndFailed):
		n.Title = say("%s failed and was deleted", called(inst.Template))
		n.setFailure(inst)
		n.Message = ""
	case string(instance.EndCompleted):
		n.Title = say("%s has ended", called(inst.Template))
		n.Text, n.Message = []phrase{say("The application in this instance was quit, or ended by itself."), lost}, ""
	case instance.ReasonDeleting:
		n.Title = say("%s is being deleted", called(inst.Template))
		n.Text = []phrase{say("This instance has ended. In a moment this page can say why.")}
	default:
		n.Title = say("%s is gone", called(inst.Template))
		n.Text = []phrase{say("The cluster deleted this instance."), lost}
	}
	return n
}

// waitingNotice is in place of the session page of an instance that waits for a place: it has no end
// yet. address is the instance's, which shows more.
func waitingNotice(inst instance.Instance, address string) Notice {
	return Notice{
		Code: http.StatusOK, RetryAfter: queuedRetry, Plain: inst.Message,
		Title: say("%s waits for a place", called(inst.Template)), Message: inst.Message,
		Text: []phrase{say("It starts by itself when it has one. Leave a page of it open, or it loses its place.")},
		Link: address, LinkText: say("Back"), unframed: true,
	}
}

// crossOriginNotice is for what another site's page asked for.
func crossOriginNotice(title, text phrase) Notice {
	return Notice{Code: http.StatusForbidden, Plain: text.String(), Title: title, Text: []phrase{text}, unframed: true}
}

// notChangedNotice is for a form of the session page that could not be carried out.
func notChangedNotice(inst instance.Instance, answer *protocol.Error) Notice {
	n := Notice{
		Code: answer.Code, RetryAfter: answer.RetryAfter, Plain: answer.Message,
		Title: say("%s was not changed", called(inst.Template)), Text: []phrase{say("The instance is as it was.")}, Message: answer.Message,
		Link: SessionPrefix + inst.ID, LinkText: say("Back"), unframed: true,
	}
	if answer.Code >= http.StatusInternalServerError { // the cluster has not answered, or late
		n.Title = say("%s may not have been changed", called(inst.Template))
		n.Text = []phrase{say("The cluster did not say whether it was done. Look again in a moment.")}
	}
	return n
}

// badRequestNotice is for a request of our own pages that is not right.
func badRequestNotice(title, text phrase) Notice {
	return Notice{Code: http.StatusBadRequest, Plain: text.String(), Title: title, Text: []phrase{text}}
}

// badLinkNotice is for a launch link that deepLink refused.
func badLinkNotice(err error) Notice {
	return badRequestNotice(say("This link is not right"), say("The address of this launch link is not right: %s.", quote(err.Error())))
}

// badFormNotice is for a form that parseForm refused.
func badFormNotice(title phrase, err error) Notice {
	n := badRequestNotice(title, say("The form could not be read, or it is larger than 64 KiB."))
	if isTooLarge(err) {
		n.Code = http.StatusRequestEntityTooLarge
	}
	return n
}

// limitText says why there is a limit of launches.
func limitText(limit string) phrase {
	switch limit {
	case admission.Paused:
		return say("Nothing is launched at the moment, because the operator of this service has paused it.")
	case admission.LaunchRate:
		return say("This service limits how often one address can launch, so that there is room for everybody.")
	case admission.ClientInstances:
		return say("This service limits how many instances one address can have, so that there are some for everybody. Stop one that you do not need any more.")
	}
	return say("This service limits how many instances there can be. There is room again when others end.")
}

// notLaunchedNotice is for a launch that failed. It has a button to try again if that
// can help.
func notLaunchedNotice(template, path string, answer *protocol.Error) Notice {
	n := Notice{
		Code: answer.Code, RetryAfter: answer.RetryAfter, Plain: answer.Message,
		Title: say("%s was not launched", called(template)), Message: answer.Message,
	}
	switch {
	case answer.Code == http.StatusNotFound:
		n.Title, n.Message = say("There is nothing to launch by this name"), ""
		n.Text = []phrase{say("This service has no template with the name %s. The link may be old, or the name may be misspelt.", template)}
	case answer.Limit != "":
		n.Text = []phrase{limitText(answer.Limit)}
		// Of the others, somebody has to do something first.
		n.again = answer.Limit == admission.AllInstances || answer.Limit == admission.TemplateInstances || answer.Limit == admission.LaunchRate
		n.Template, n.Path, n.Button = template, path, say(tryAgain)
	case answer.RetryAfter > 0:
		n.Text = []phrase{say("The service is busy, or does not reach its cluster at the moment. Nothing was launched.")}
		n.Template, n.Path, n.Button, n.again = template, path, say(tryAgain), true
	default:
		n.Text = []phrase{say("Something is wrong on our side. Trying again will not help for now.")}
	}
	return n
}

// noTemplateNotice is in place of the launch page of a repository that no template is for, or
// whose template cannot be found at the moment.
func noTemplateNotice(repository string, answer *protocol.Error) Notice {
	if answer.Code == http.StatusBadRequest {
		return badLinkNotice(answer)
	}
	n := notLaunchedNotice(repository, "", answer)
	n.Template = ""
	if answer.Code == http.StatusNotFound {
		n.Message = answer.Message
		n.Text = []phrase{say("No template of this service is for this repository and version. The link may be old, or a name may be misspelt.")}
	}
	return n
}
