package binderhub

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/launch"
	"github.com/binder-project/binder-deploy-kubernetes/internal/protocol"
	"github.com/binder-project/binder-deploy-kubernetes/internal/repospec"
)

const (
	// readyFor is how long a stream stays open once the instance is ready. A browser connects
	// again to one that the server ends, and clients end theirs when they have read the event.
	readyFor = time.Minute
	// resumeWait is how long a client that comes back waits until this replica knows its instance:
	// another one may have launched it a moment ago.
	resumeWait = 10 * time.Second
)

const (
	// keyEvent begins the ids of events before the instance has one: the key of the launch follows.
	keyEvent = "launch-"
	// keyPrefix begins the idempotency keys of launches here. Those of the API's clients have no
	// spaces, so a client that knows one of them finds no instance by it here.
	keyPrefix = "build "
)

// The phases of a launch that clients know and that exist here.
const (
	phaseBuilt     = "built"
	phaseLaunching = "launching"
	phaseReady     = "ready"
	phaseFailed    = "failed"
)

// event is the data of a server-sent event, in BinderHub's words. Its events have no names:
// clients read messages.
type event struct {
	Phase      string `json:"phase"`
	Message    string `json:"message"`
	StatusCode int    `json:"status_code,omitempty"`
	ImageName  string `json:"imageName,omitempty"`
	ready
}

// ready says where the instance is, and what was asked for. All of it is left out of other events.
type ready struct {
	URL               string `json:"url,omitempty"` // with a slash at its end
	Token             string `json:"token,omitempty"`
	Image             string `json:"image,omitempty"`
	RepoURL           string `json:"repo_url,omitempty"`
	RefURL            string `json:"binder_ref_url,omitempty"`
	LaunchHost        string `json:"binder_launch_host,omitempty"`
	Request           string `json:"binder_request,omitempty"`
	PersistentRequest string `json:"binder_persistent_request,omitempty"`
}

// serveBuild launches the template of a repository, and streams what becomes of it. It is a
// GET, because the browser's EventSource sends no other, so pages of other sites are kept
// from it before anything is launched: CORS would keep only the answer from them.
func (b *BinderHub) serveBuild(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet {
		w.Header().Set("Allow", http.MethodGet)
		http.Error(w, "the method must be GET", http.StatusMethodNotAllowed)
		return
	}
	switch b.judge(r) {
	case leads:
		redirect(w, r, linkPrefix+strings.TrimPrefix(r.URL.EscapedPath(), buildPrefix))
		return
	case refused:
		http.Error(w, "only pages of this address and of the origins in --cors-allow-origin may launch, and this request does not say that it is from one", http.StatusForbidden)
		return
	}
	// A launch under way is not cut when this replica stops: most clients do not come back.
	ctx, end := protocol.BeginEvents(w, r, context.Background())
	defer end()
	s := &stream{hub: b, w: w, r: r}
	if err := s.run(ctx); err != nil {
		s.refuse(err)
	}
}

// address returns the address of a path at the host that a request was sent to.
func address(r *http.Request, path string) string {
	scheme := "http://"
	if protocol.IsHTTPS(r) {
		scheme = "https://"
	}
	return scheme + r.Host + path
}

// stream is the answer to one request to build.
type stream struct {
	hub      *BinderHub
	w        http.ResponseWriter
	r        *http.Request
	spec     repospec.Spec
	template *corev1.PodTemplate // nil for a client that has come back
	key      string              // of the launch; "" for a client that has come back with the instance's id
	id       string              // of the instance; "" before it is launched
}

// badSpec is an answer to a request that names no repository.
func badSpec(err error) *protocol.Error {
	return &protocol.Error{Code: http.StatusBadRequest, Message: "the repository is not right: " + err.Error()}
}

// run launches and tells of it. An error is what the client must still be told.
func (s *stream) run(ctx context.Context) (err error) {
	text := strings.TrimPrefix(s.r.URL.EscapedPath(), buildPrefix)
	if s.spec, err = repospec.Parse(text); err != nil {
		return badSpec(err)
	}
	last := s.r.Header.Get("Last-Event-ID")
	key, cutOff := strings.CutPrefix(last, keyEvent)
	switch {
	case cutOff && instance.ValidID(key): // before the client was told the instance's id
		s.key = key
	case last != "":
		return s.resume(ctx, last)
	}
	if s.template, err = s.hub.find(ctx, s.spec); err != nil {
		return err
	}
	if only := s.r.URL.Query().Get("build_only"); only == "true" || only == "1" {
		_ = s.send(event{Phase: phaseReady, Message: "The image exists.\n", ImageName: s.image(), ready: s.request()})
		return nil
	}
	return s.launch(ctx)
}

// launch launches an instance, and tells of it. First it tells the client the key of the launch,
// so that a client that is cut off meanwhile finds the instance, at any replica, or launches it
// if that has not happened.
func (s *stream) launch(ctx context.Context) (err error) {
	again := s.key != ""
	var made time.Time
	if !again {
		if s.key, made, err = s.hub.deps.Launcher.NewKey(); err != nil {
			return err
		}
	}
	err = s.send(event{Phase: phaseBuilt, Message: "The image exists, launching.\n", ImageName: s.image()})
	if err != nil || ctx.Err() != nil {
		return nil // it has gone, and may not know the key
	}
	id, err := s.hub.deps.Launcher.Launch(ctx, launch.Request{
		Template: s.template.Name, Client: s.hub.deps.Client(s.r), IdempotencyKey: keyPrefix + s.key, Warm: true, Repeated: again, KeyMade: made,
	})
	if err != nil {
		return err
	}
	if again { // the instance may have ended
		return s.resume(ctx, id)
	}
	s.id = id
	s.follow(ctx)
	return nil
}

// resume tells of an instance that was launched before.
func (s *stream) resume(ctx context.Context, id string) error {
	known, err := s.find(ctx, id)
	if known {
		s.follow(ctx)
	}
	return err
}

// follow tells of the instance until its launch has ended. Then it waits for the client to go,
// or for the end of this replica.
func (s *stream) follow(ctx context.Context) {
	following, leave := context.WithCancel(ctx)
	defer leave()
	// A launch is not cut. A client of a queued instance goes on waiting at another replica.
	defer context.AfterFunc(s.hub.deps.Draining, func() {
		inst, _ := s.hub.deps.Instances.Await(following, s.id, func(instance.Instance, bool) bool { return true })
		if inst.Reason == instance.ReasonQueued {
			leave()
		}
	})()
	if protocol.StreamChanges(following, s.w, s.hub.deps.Instances, s.id, instance.Status.Settled, s.describe, s.encode) != nil {
		return // the client has gone, or comes back with the instance's id
	}
	ctx, cancel := context.WithTimeout(ctx, readyFor)
	defer cancel()
	defer context.AfterFunc(s.hub.deps.Draining, cancel)()
	protocol.KeepAlive(ctx, s.w)
}

// errEnded says that a client has come back for an instance that is not there any more. It is
// not launched again: nobody has asked for that.
var errEnded = &protocol.Error{Code: http.StatusGone, Message: "this instance has ended; launch it again"}

// find finds the instance that a browser names when it connects again. It knows the id, so it may
// be told. If known is false and err is nil, the browser should ask once more.
func (s *stream) find(ctx context.Context, last string) (known bool, err error) {
	if !instance.ValidID(last) {
		return false, errEnded
	}
	if protocol.SendNow(s.w, ":\n\n") != nil { // so that it sees the answer begin
		return false, nil
	}
	waiting, cancel := context.WithTimeout(ctx, resumeWait)
	defer cancel()
	inst, known := s.hub.deps.Instances.Await(waiting, last, func(_ instance.Instance, known bool) bool { return known })
	switch {
	case !known && inst.Unsure:
		return false, nil
	case !known, inst.Status == instance.StatusDeleted:
		return false, errEnded
	}
	s.id = last
	return true, nil
}

// refuse tells why nothing was launched.
func (s *stream) refuse(err error) {
	answer := explain(s.spec, err)
	protocol.LogFailure(s.r, s.hub.deps.Log, answer, err)
	_ = s.send(event{Phase: phaseFailed, Message: answer.Message + "\n", StatusCode: answer.Code})
}

// describe returns the event for the state of an instance.
func (s *stream) describe(inst instance.Instance) event {
	switch inst.Status {
	case instance.StatusDeployed:
		ready := s.request()
		ready.URL = s.instanceURL()
		ready.Token = inst.Token.OfJupyter()
		return event{Phase: phaseReady, Message: "server running at " + ready.URL + "\n", ready: ready}
	case instance.StatusFailed, instance.StatusDeleted:
		return event{Phase: phaseFailed, Message: inst.Message + "\n", StatusCode: http.StatusInternalServerError}
	}
	return event{Phase: phaseLaunching, Message: inst.Message + "\n"}
}

// instanceURL returns the absolute address of the instance.
func (s *stream) instanceURL() string {
	base := s.hub.deps.Layout.BaseURL(s.id)
	if rest, apart := strings.CutPrefix(base, "//"); apart {
		scheme, _, _ := strings.Cut(address(s.r, ""), "//")
		return scheme + "//" + rest
	}
	return address(s.r, base)
}

// request returns what was asked for, in BinderHub's words.
func (s *stream) request() ready {
	name := strings.TrimPrefix(linkPrefix, "/") + s.spec.String()
	ref := s.spec.URL()
	if s.spec.Provider == "gh" && s.spec.Ref != "" {
		ref += "/tree/" + (&url.URL{Path: s.spec.Ref}).EscapedPath()
	}
	return ready{
		Image: s.image(), RepoURL: s.spec.URL(), RefURL: ref,
		LaunchHost: address(s.r, "/"), Request: name, PersistentRequest: name,
	}
}

// image returns the image of the template's application; "" if that is not known.
func (s *stream) image() string {
	if s.template == nil || len(s.template.Template.Spec.Containers) == 0 {
		return ""
	}
	return s.template.Template.Spec.Containers[0].Image
}

func (s *stream) send(e event) error { return protocol.SendNow(s.w, s.encode(e)) }

// encode returns an event as it is sent. The instance's id is the event's, or before there is
// one the key of the launch. A browser that has lost the connection sends it when it connects
// again, in Last-Event-ID.
func (s *stream) encode(e event) string {
	data, err := json.Marshal(e)
	if err != nil { // impossible: its fields are strings and a number
		panic(err)
	}
	switch {
	case s.id != "":
		return fmt.Sprintf("id: %s\ndata: %s\n\n", s.id, data)
	case s.key != "":
		return fmt.Sprintf("id: %s%s\ndata: %s\n\n", keyEvent, s.key, data)
	}
	return fmt.Sprintf("data: %s\n\n", data)
}
