package podstore

import (
	"strings"
	"sync/atomic"
	"time"
	"unique"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/lifetime"
)

// Record is what is kept of one version of a pod: the slim pod, encoded, and the answers to
// what every request and every sweep asks, computed once. It is never changed, apart from
// Memo and whether it is stored.
type Record struct {
	// First what a list reads of each of thousands: it lies together, so that little of it has
	// to be fetched from memory.
	from, until time.Time // see lifetime.Rules.Window
	// Memo is what an asker has made of Instance, and of nothing else, and finds here again.
	// It holds as long as what Instance returns.
	Memo   atomic.Value
	age    age
	stored atomic.Bool // the store has it, and no later version

	// What the functions of package instance with these names say.
	IsInstance, IsWarm, IsStray, IsServing, IsQueued, WasQueued, IsGated bool

	IsDeleting bool
	// ByEvents says that Warning Events of the pod can change what is said of it.
	ByEvents bool
	sound    bool // no time on the pod is wrong

	packed string // the slim pod; see pack

	// The texts are parts of packed, where they can be.
	name, uid, version string
	token              string
	address            string // instance.AddressKey
	endpoint           string // Instance.Address
	ID                 string // the value of the id label
	Client             string // the value of the client label
	ClaimedFor         string // the value of instance.ClaimedForAnnotation

	Created                     time.Time
	launched, cullAt, expiresAt time.Time
	// LastActivity is the time on the pod; zero if there is no readable one. CullTimeout is
	// what the pod or the server says.
	LastActivity time.Time
	CullTimeout  time.Duration

	shared unique.Handle[shared]
	other  *instance.Instance // what an instance is that is not simply deployed; else nil
	warm   *corev1.Pod        // a warm pod, decoded: each claim reads all of a pool
}

// shared are the parts of an instance that are the same for many. Equal ones are kept once.
type shared struct {
	template, preload                   string
	source, tokenName                   string
	idlePaths, idleRequests, heartbeats string
	ports                               string
	stripPrefix                         bool
}

// NewRecord returns the record of a pod at the time now. It keeps nothing of the pod.
func NewRecord(pod *corev1.Pod, rules lifetime.Rules, now time.Time) *Record {
	pod = Slim(pod)
	packed := pack(pod)
	inst := instance.FromPod(pod, nil, now, rules.StartTimeout)
	rules.Describe(&inst, pod, now)
	part := func(s string) string { return partOf(packed, s) }
	r := &Record{
		packed: packed, name: part(pod.Name), uid: part(string(pod.UID)), version: part(pod.ResourceVersion),
		token: part(inst.Token.Value), endpoint: strings.Clone(inst.Address), ID: part(inst.ID), Client: part(pod.Labels[instance.ClientLabel]), ClaimedFor: part(pod.Annotations[instance.ClaimedForAnnotation]),
		Created: inst.Created, launched: inst.Launched, cullAt: inst.CullAt, expiresAt: inst.ExpiresAt, CullTimeout: rules.CullTimeoutOf(pod),
		shared: unique.Make(shared{
			template: inst.Template, preload: pod.Labels[instance.PreloadNameLabel], source: string(inst.Source), tokenName: inst.Token.Name,
			idlePaths: inst.IdlePaths, idleRequests: inst.IdleRequests, heartbeats: inst.HeartbeatFrames, ports: inst.Ports, stripPrefix: inst.StripPrefix,
		}),
		IsInstance: instance.IsInstance(pod), IsWarm: instance.IsWarm(pod), IsStray: instance.IsStray(pod),
		IsServing: instance.IsServing(pod), IsQueued: instance.IsQueued(pod), WasQueued: instance.WasQueued(pod), IsGated: instance.IsGated(pod), IsDeleting: pod.DeletionTimestamp != nil,
		// A pod that serves or is being deleted does so whatever Events say. They only say
		// why its container was restarted.
		ByEvents: pod.DeletionTimestamp == nil && inst.Status != instance.StatusDeployed || inst.Restarts > 0,
	}
	r.age = ageOf(r.Created, r.ID)
	r.address = partOf(r.endpoint, instance.AddressKey(pod))
	r.from, r.until = rules.Window(inst, pod, now)
	if last, err := instance.LastActivity(pod); err == nil {
		r.LastActivity = last
	}
	_, wrong := rules.FixWrongTimes(pod, now, false)
	r.sound = wrong == nil
	if r.simple() != inst {
		r.other = detached(inst, r)
	}
	if r.IsWarm {
		r.warm = unpack(packed)
	}
	return r
}

// ClaimedFor returns the id of the instance whose pod was claimed for another id, if it is among
// some records; see instance.ClaimedForAnnotation.
func ClaimedFor(records []*Record, id string) (claimed string, known bool) {
	for _, record := range records {
		if record.ClaimedFor == id && id != "" {
			return record.ID, true
		}
	}
	return "", false
}

// partOf returns s as a part of a text that is kept anyway, if it is one.
func partOf(text, s string) string {
	if i := strings.Index(text, s); i >= 0 {
		return text[i : i+len(s)]
	}
	return strings.Clone(s)
}

// detached returns a copy of an instance that shares its texts with its record, and keeps
// none of those that were decoded with the pod.
func detached(inst instance.Instance, r *Record) *instance.Instance {
	all := r.shared.Value()
	inst.ID, inst.Address, inst.Token = r.ID, r.endpoint, instance.Token{Name: all.tokenName, Value: r.token}
	inst.Template, inst.Source = all.template, instance.Source(all.source)
	inst.IdlePaths, inst.IdleRequests, inst.HeartbeatFrames, inst.Ports = all.idlePaths, all.idleRequests, all.heartbeats, all.ports
	inst.Reason, inst.Message, inst.Detail = strings.Clone(inst.Reason), strings.Clone(inst.Message), strings.Clone(inst.Detail)
	inst.RestartReason = strings.Clone(inst.RestartReason)
	return &inst
}

// simple is a deployed instance of which nothing special is to be said.
func (r *Record) simple() instance.Instance {
	all := r.shared.Value()
	inst := instance.Instance{
		ID: r.ID, Template: all.template, Status: instance.StatusDeployed, Address: r.endpoint,
		Created: r.Created, Launched: r.launched, CullAt: r.cullAt, ExpiresAt: r.expiresAt,
		Token: instance.Token{Name: all.tokenName, Value: r.token}, StripPrefix: all.stripPrefix,
		IdlePaths: all.idlePaths, IdleRequests: all.idleRequests, HeartbeatFrames: all.heartbeats, Ports: all.ports,
	}
	if !r.cullAt.IsZero() {
		inst.LastActivity, inst.Source = r.LastActivity, instance.Source(all.source)
	}
	return inst
}

// Instance returns what instance.FromPod and lifetime.Rules.Describe say of the pod at the
// time now. ok is false if that has to be computed again: the clock has passed a limit.
// ByEvents says when Warning Events have to be asked, too.
func (r *Record) Instance(now time.Time) (inst instance.Instance, ok bool) {
	switch {
	case !r.Holds(now):
		return instance.Instance{}, false
	case r.other != nil:
		return *r.other, true
	}
	return r.simple(), true
}

// Holds reports whether what was computed still holds at the time now.
func (r *Record) Holds(now time.Time) bool {
	return !now.Before(r.from) && (r.until.IsZero() || now.Before(r.until))
}

// Status returns the Status of Instance.
func (r *Record) Status() instance.Status {
	if r.other != nil {
		return r.other.Status
	}
	return instance.StatusDeployed
}

// MayRun reports whether the instance lives, or may yet: one whose start took too long can become
// ready as long as its pod is there.
func (r *Record) MayRun() bool {
	switch r.Status() {
	case instance.StatusDeleted:
		return false
	case instance.StatusFailed:
		return r.other.Reason == instance.ReasonStartTimeout
	}
	return true
}

// StaysAt reports whether lifetime.Rules.Judge keeps the pod at the time now, if it has no
// Warning Events that count. It is false as well if Judge must be asked.
func (r *Record) StaysAt(now time.Time) bool {
	return r.IsDeleting || r.sound && r.Holds(now) && now.Before(r.cullAt) &&
		(r.other == nil || r.other.Alive())
}

// Pod returns the slim pod, which the caller must not change. It is decoded each time, unless
// it is warm.
func (r *Record) Pod() *corev1.Pod {
	if r.warm != nil {
		return r.warm
	}
	return unpack(r.packed)
}

// GetName returns the pod's name.
func (r *Record) GetName() string { return r.name }

// GetUID returns the pod's UID.
func (r *Record) GetUID() types.UID { return types.UID(r.uid) }

// GetResourceVersion returns the pod's resourceVersion.
func (r *Record) GetResourceVersion() string { return r.version }

// Launched returns when the pod became an instance.
func (r *Record) Launched() time.Time { return r.launched }

// Template returns the full name of the pod's template.
func (r *Record) Template() string { return r.shared.Value().template }

// Preload returns the name of the preload that the pod belongs to; "" if it is of none.
func (r *Record) Preload() string { return r.shared.Value().preload }

// GetDeletionTimestamp is nil unless the pod is being deleted. Nothing reads when.
func (r *Record) GetDeletionTimestamp() *metav1.Time {
	if r.IsDeleting {
		return &metav1.Time{}
	}
	return nil
}
