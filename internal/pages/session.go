package pages

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/protocol"
)

// SessionPrefix is what the paths of session pages begin with.
const SessionPrefix = "/session/"

// What the forms of a session page ask for.
const (
	actionExtend = "extend"
	actionStop   = "stop"
)

// Session returns the handler of all paths that begin with SessionPrefix: /session/<id> tells
// how long an instance still lives, and can give it more time or stop it. Anyone who knows the
// id may do both, and use the instance. No frame shows it, or another site could make visitors
// stop their instances by clicks.
func (p *Pages) Session() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+SessionPrefix+"{id}", p.showSession)
	mux.HandleFunc("POST "+SessionPrefix+"{id}", p.changeSession)
	mux.HandleFunc(SessionPrefix, func(w http.ResponseWriter, r *http.Request) { p.answer(w, r, NothingHereNotice()) })
	return p.onlyOurs(mux, crossOriginNotice(say("Not changed"), say("Another site asked to change this instance in your name. Only this service's own pages can.")))
}

// onlyOurs refuses what a page of another site makes a browser post.
func (p *Pages) onlyOurs(next http.Handler, refusal Notice) http.Handler {
	protection := http.NewCrossOriginProtection()
	protection.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { p.site.Serve(w, r, refusal) }))
	return protection.Handler(next)
}

// sessionView is what the session page shows.
type sessionView struct {
	Title    phrase
	ID       string
	Template string
	Message  string
	Warning  bool      // the message warns of the end
	Address  string    // of the instance, with scheme and host
	Events   string    // the address that streams its changes
	Now      time.Time // by the server's clock, which the visitor's may not agree with
	CullAt   time.Time // zero if it is not known
	Expires  time.Time // whatever happens; zero for never
	LastUse  time.Time
	Source   instance.Source
	Sources  map[instance.Source]phrase
	Timeout  phrase
	Choices  []choice
	Ports    []portLink
}

// portLink leads to another port of an instance.
type portLink struct{ Port, Address string }

// choice is a cull timeout that a visitor can ask for.
type choice struct {
	Value string
	Label phrase
}

// showSession serves the page.
func (p *Pages) showSession(w http.ResponseWriter, r *http.Request) {
	inst, found := p.living(w, r)
	if !found {
		return
	}
	_, timeout, _ := p.deps.LastUse(inst.ID)
	message, warning := p.deps.Warnings.Of(inst)
	p.site.write(w, r, http.StatusOK, sessionPage, sessionView{
		Title: say("Your %s", called(inst.Template)), ID: inst.ID, Template: inst.Template, Message: message, Warning: warning,
		Address: p.absolute(r, p.deps.Layout.BaseURL(inst.ID)), Events: ProgressPrefix + inst.ID + "?watch=true",
		Now: p.deps.Now(), CullAt: inst.CullAt, Expires: inst.ExpiresAt, LastUse: inst.LastActivity,
		Source: inst.Source, Sources: sourcesInWords(), Timeout: inWords(timeout),
		Choices: p.choices(inst, timeout), Ports: p.ports(r, inst),
	}, neverFramed)
}

// ports returns the other ports of an instance that can be reached.
func (p *Pages) ports(r *http.Request, inst instance.Instance) (links []portLink) {
	ports, err := instance.ParsePorts(inst.Ports)
	if err != nil || !p.deps.Layout.Apart() {
		return nil
	}
	for _, port := range ports {
		links = append(links, portLink{port, p.absolute(r, p.deps.Layout.PortURL(inst.ID, port))})
	}
	return links
}

// absolute returns the address that a reference without a scheme has for a visitor.
func (p *Pages) absolute(r *http.Request, reference string) string {
	scheme := "http:"
	if protocol.IsHTTPS(r) {
		scheme = "https:"
	}
	if strings.HasPrefix(reference, "//") {
		return scheme + reference
	}
	return scheme + "//" + r.Host + reference
}

// living returns the instance of a request. If there is none, or it has ended, it answers
// with a notice that says so.
func (p *Pages) living(w http.ResponseWriter, r *http.Request) (inst instance.Instance, found bool) {
	id := r.PathValue("id")
	if !instance.ValidID(id) {
		p.answer(w, r, NothingHereNotice())
		return instance.Instance{}, false
	}
	ctx, cancel := context.WithTimeout(r.Context(), instance.WatchDelay)
	defer cancel()
	inst, known := p.deps.Instances.Await(ctx, id, func(_ instance.Instance, known bool) bool { return known })
	switch {
	case !known:
		p.answer(w, r, MissingNotice(inst.Unsure))
	case inst.Status == instance.StatusFailed:
		p.answer(w, r, FailedNotice(inst))
	case !inst.Alive():
		p.answer(w, r, OverNotice(inst))
	case inst.Reason == instance.ReasonQueued && r.Method == http.MethodGet:
		p.answer(w, r, waitingNotice(inst, p.deps.Layout.BaseURL(inst.ID)))
	default:
		return inst, true
	}
	return instance.Instance{}, false
}

// changeSession does what a form of the page asks for, and leads back to the page, so that a
// reload repeats nothing.
func (p *Pages) changeSession(w http.ResponseWriter, r *http.Request) {
	if err := parseForm(w, r); err != nil {
		p.answer(w, r, badFormNotice(say("Not changed"), err))
		return
	}
	inst, found := p.living(w, r)
	if !found {
		return
	}
	var err error
	switch action := r.PostForm.Get("action"); action {
	case actionExtend:
		err = p.extend(r, inst.ID)
	case actionStop:
		err = p.deps.Launcher.Stop(r.Context(), inst.Template, inst.ID)
	default:
		err = protocol.Malformed("action is %.40q: it must be %s or %s", action, actionExtend, actionStop)
	}
	if err != nil {
		answer := protocol.AnswerFor(err)
		protocol.LogFailure(r, p.deps.Log, answer, err)
		p.answer(w, r, notChangedNotice(inst, answer))
		return
	}
	setOwnHeaders(w.Header())
	w.Header().Set("Location", SessionPrefix+inst.ID)
	w.WriteHeader(http.StatusSeeOther)
}

// extend gives an instance more time: its cull timeout from now on, or the one that the form
// names, in whole seconds.
func (p *Pages) extend(r *http.Request, id string) error {
	var timeout time.Duration
	if asked := r.PostForm.Get("timeout"); asked != "" {
		seconds, err := strconv.ParseInt(asked, 10, 32)
		timeout = time.Duration(seconds) * time.Second
		if _, present, _ := p.deps.LastUse(id); err != nil || timeout != present && (timeout < p.deps.MinCullTimeout || timeout > p.deps.MaxCullTimeout) {
			return protocol.Malformed("timeout is %.40q: it must be a number of seconds from %d to %d",
				asked, int(p.deps.MinCullTimeout.Seconds()), int(p.deps.MaxCullTimeout.Seconds()))
		}
	}
	return p.deps.KeepAlive(r.Context(), id, timeout)
}

// choices returns the cull timeouts that a visitor of an instance is offered: the present one, and
// longer ones that are allowed and end before its max age; none if only that ends it.
func (p *Pages) choices(inst instance.Instance, present time.Duration) (offered []choice) {
	if inst.Expires() {
		return nil
	}
	shortest, longest := p.deps.MinCullTimeout, p.deps.MaxCullTimeout
	if !inst.ExpiresAt.IsZero() {
		longest = min(longest, inst.ExpiresAt.Sub(p.deps.Now()))
	}
	if present%time.Second == 0 && present > 0 {
		offered = append(offered, choice{"", inWords(present)})
	}
	for _, hours := range []time.Duration{1, 2, 4, 8, 12, 24} {
		if d := hours * time.Hour; d > present && d >= shortest && d <= longest {
			offered = append(offered, choice{strconv.Itoa(int(d.Seconds())), inWords(d)})
		}
	}
	return offered
}

// inWords returns a duration as people write it.
func inWords(d time.Duration) phrase {
	count := func(n time.Duration, one, many phrase) phrase {
		if n == 1 {
			return one
		}
		many.args = []any{int64(n)}
		return many
	}
	switch {
	case d >= time.Hour && d%time.Hour == 0:
		return count(d/time.Hour, say("1 hour"), say("%d hours"))
	case d >= time.Minute && d%time.Minute == 0:
		return count(d/time.Minute, say("1 minute"), say("%d minutes"))
	}
	return count(d.Round(time.Second)/time.Second, say("1 second"), say("%d seconds"))
}

// sourcesInWords says for each Source what the last use was.
func sourcesInWords() map[instance.Source]phrase {
	return map[instance.Source]phrase{
		instance.SourceLaunch:    say("the launch"),
		instance.SourceHTTP:      say("a request"),
		instance.SourceWebSocket: say("a message over a WebSocket"),
		instance.SourceProbe:     say("work that the application has told of"),
		instance.SourceKeepAlive: say("a request for more time"),
		instance.SourceQueue:     say("a question about its place"),
	}
}
