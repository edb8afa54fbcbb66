// Package admission decides whether a launch is within the limits: of each client, of
// each template, and of all instances together. The API and the launch page both launch
// through it.
//
// Where launches can wait for a place within the limits of a template and of all, each of them
// does, for a moment at least: only the leader gives places, so these limits are exact. Package
// queue does that.
//
// Nothing is stored. Launches are counted from the pods of instances and from their
// tombstones, so every replica counts the same and a restart forgets nothing. Only the
// launches under way at this replica are counted in memory.
//
// It must never know HTTP, templates or the API server.
package admission

import (
	"sync"
	"time"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
)

// Limits are the server's limits. 0 means no limit.
type Limits struct {
	// LaunchRate is how many instances a client can launch in an hour.
	LaunchRate int
	// MaxPerClient is how many living instances a client can have.
	MaxPerClient int
	// MaxInstances is how many living instances there can be in all.
	MaxInstances int
	// MaxQueued is how many launches can wait for a place within MaxInstances or their
	// template's limit; with 0, those are refused that find none.
	MaxQueued int
	// Paused refuses all launches.
	Paused bool
}

// Instances is what an Admission asks the read model.
type Instances interface {
	// Instances returns the instances of a template, or all for "".
	Instances(template string) []instance.Instance
	// ClientInstances returns the instances that a client has launched. Ended ones must
	// be among them for at least an hour after their launch.
	ClientInstances(client string) []instance.Instance
}

// Request is a launch that asks for a place.
type Request struct {
	// Client is the hash that Clients made of the client's address. "" exempts the launch
	// from the limits of each client.
	Client string
	// Template is the template's name, and TemplateMax how many living instances it can
	// have; 0 means no limit. TemplatePaused refuses all of its launches.
	Template       string
	TemplateMax    int
	TemplatePaused bool
	// ID is the instance's id, or "" if it is not known yet. An instance of this id that
	// exists is not counted: the request repeats its launch.
	ID string
}

// Deps are what an Admission needs.
type Deps struct {
	Limits    Limits
	Instances Instances
	// WaitingForTemplate returns how many of the instances that wait do so for a place of their
	// template, so that they are in nobody else's way. nil means none.
	WaitingForTemplate func() int
	Now                func() time.Time
}

// Admission gives places to launches. Its methods may be called at the same time.
type Admission struct {
	deps   Deps
	mu     sync.Mutex
	places map[*Place]bool // of the launches under way
}

// New returns an Admission.
func New(deps Deps) *Admission { return &Admission{deps: deps, places: map[*Place]bool{}} }

// Place is the place of a launch under way. It counts as an instance until Release.
type Place struct {
	// Queued says that the instance must wait until the leader admits it, and Full that there is
	// no room at present, as far as this replica knows.
	Queued, Full bool

	admission *Admission
	request   Request
	admitted  time.Time
}

// Expect names the instance that the launch is about to write. Once the read model has
// that instance, the place is not counted as well.
func (p *Place) Expect(id string) {
	p.admission.mu.Lock()
	defer p.admission.mu.Unlock()
	p.request.ID = id
}

// Release ends the launch. The read model must have its instance, if there is one.
func (p *Place) Release() {
	p.admission.mu.Lock()
	defer p.admission.mu.Unlock()
	delete(p.admission.places, p)
}

// Admit returns a place for a launch, which the caller must release. The error is a
// *Refusal if a limit is reached, and the launch cannot wait for a place.
//
// This replica's launches never exceed a limit together. Launches by several replicas at
// the same time can, if they do not wait: each replica counts the others' only once its watch
// delivers them.
func (a *Admission) Admit(req Request) (*Place, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := a.deps.Now()
	if refusal := a.checkClient(req, now); refusal != nil {
		return nil, refusal
	}
	place := &Place{admission: a, request: req, admitted: now}
	full, waiting := a.room(req)
	if queue := a.deps.Limits.MaxQueued; full != nil && waiting >= queue {
		return nil, full
	} else if queue > 0 {
		place.Queued, place.Full = req.TemplateMax > 0 || a.deps.Limits.MaxInstances > 0, full != nil
	}
	a.places[place] = true
	return place, nil
}

// checkClient checks the limits of a launch's client. They come first: a client's own instances
// are few, so refusing one that floods costs little.
func (a *Admission) checkClient(req Request, now time.Time) *Refusal {
	limits := a.deps.Limits
	if limits.Paused || req.TemplatePaused {
		return &Refusal{Paused, 0, retryWhenFull}
	}
	if req.Client == "" || limits.LaunchRate == 0 && limits.MaxPerClient == 0 {
		return nil
	}
	launches := a.count(req, a.deps.Instances.ClientInstances(req.Client), func(other Request) bool { return other.Client == req.Client })
	return checkClient(limits, launches, now)
}

// room checks the limits that launches can wait for. If one is reached, waiting is how many wait
// for it. It counts no more than the limits need.
func (a *Admission) room(req Request) (full *Refusal, waiting int) {
	if req.TemplateMax > 0 {
		launches := a.count(req, a.deps.Instances.Instances(req.Template), func(other Request) bool { return other.Template == req.Template })
		if refusal := checkRoom(TemplateInstances, req.TemplateMax, launches); refusal != nil {
			return refusal, queuedOf(launches)
		}
	}
	if most := a.deps.Limits.MaxInstances; most > 0 {
		launches := a.count(req, a.deps.Instances.Instances(""), func(Request) bool { return true })
		others := 0 // that wait for a place of their template only
		if waiting = queuedOf(launches); waiting > 0 && a.deps.WaitingForTemplate != nil {
			others = min(a.deps.WaitingForTemplate(), waiting)
		}
		if full = checkRoom(AllInstances, most+others, launches); full != nil {
			full.Max = most
		}
		return full, waiting - others
	}
	return nil, 0
}

// count returns the launches of instances that the read model knows and, once each, of
// the places that it does not know yet. That of req itself is left out.
func (a *Admission) count(req Request, known []instance.Instance, counts func(Request) bool) []launch {
	var launches []launch
	seen := map[string]bool{req.ID: true}
	for _, inst := range known {
		if !seen[inst.ID] {
			seen[inst.ID] = true
			launches = append(launches, launch{inst.Launched, inst.Alive(), inst.Reason == instance.ReasonQueued})
		}
	}
	for place := range a.places {
		if id := place.request.ID; counts(place.request) && (id == "" || !seen[id]) {
			seen[id] = true
			launches = append(launches, launch{place.admitted, true, place.Full})
		}
	}
	return launches
}
