package admission

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
)

// known is a read model. The client of an instance is its Message.
type known struct {
	mu  sync.Mutex
	all []instance.Instance
}

func (k *known) add(client, template, id string, status instance.Status) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.all = append(k.all, instance.Instance{ID: id, Template: template, Message: client, Status: status, Launched: noon})
}

func (k *known) Instances(template string) []instance.Instance {
	return k.those(func(inst instance.Instance) bool { return template == "" || inst.Template == template })
}

func (k *known) ClientInstances(client string) []instance.Instance {
	return k.those(func(inst instance.Instance) bool { return inst.Message == client })
}

func (k *known) those(counts func(instance.Instance) bool) []instance.Instance {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(k.all), func(inst instance.Instance) bool { return !counts(inst) })
}

func newAdmission(limits Limits, instances Instances) *Admission {
	return New(Deps{Limits: limits, Instances: instances, Now: func() time.Time { return noon }})
}

// limitOf returns the name of the limit that refuses a launch; "" if none does.
func limitOf(err error) string {
	if refusal := (*Refusal)(nil); errors.As(err, &refusal) {
		return refusal.Limit
	}
	return ""
}

// Each launch is counted for its client, its template and all.
func TestAdmit(t *testing.T) {
	instances := &known{}
	for n, inst := range []struct {
		client, template string
		status           instance.Status
	}{
		{"ann", "jupyter", instance.StatusDeployed}, {"ann", "jupyter", instance.StatusPending}, {"ann", "other", instance.StatusDeleted},
		{"bob", "jupyter", instance.StatusDeploying}, {"bob", "other", instance.StatusFailed}, {"", "other", instance.StatusDeployed},
	} {
		instances.add(inst.client, inst.template, fmt.Sprint("id", n), inst.status)
	}
	for _, row := range []struct {
		name   string
		limits Limits
		req    Request
		want   string
	}{
		{"no limits", Limits{}, Request{Client: "ann", Template: "jupyter"}, ""},
		{"a client at its rate", Limits{LaunchRate: 3}, Request{Client: "ann"}, LaunchRate},
		{"a client below its rate", Limits{LaunchRate: 3}, Request{Client: "bob"}, ""},
		{"a client with its instances", Limits{MaxPerClient: 2}, Request{Client: "ann"}, ClientInstances},
		{"a client with fewer", Limits{MaxPerClient: 2}, Request{Client: "bob"}, ""},
		{"a client with none", Limits{LaunchRate: 1, MaxPerClient: 1}, Request{Client: "eve"}, ""},
		{"with the API key", Limits{LaunchRate: 1, MaxPerClient: 1}, Request{}, ""},
		{"a full template", Limits{}, Request{Template: "jupyter", TemplateMax: 3}, TemplateInstances},
		{"a template with room", Limits{}, Request{Template: "other", TemplateMax: 2}, ""},
		{"all places taken", Limits{MaxInstances: 4}, Request{Client: "eve", Template: "new"}, AllInstances},
		{"all places taken, with the API key", Limits{MaxInstances: 4}, Request{Template: "new"}, AllInstances},
		{"one place left", Limits{MaxInstances: 5}, Request{Client: "eve", Template: "new"}, ""},
		{"a repeated launch", Limits{LaunchRate: 3, MaxPerClient: 2, MaxInstances: 4}, Request{Client: "ann", Template: "jupyter", TemplateMax: 3, ID: "id0"}, ""},
	} {
		place, err := newAdmission(row.limits, instances).Admit(row.req)
		if got := limitOf(err); got != row.want || (place == nil) != (err != nil) {
			t.Errorf("%s: refused by %q, want %q", row.name, got, row.want)
		}
	}
}

// Where launches can wait, those are refused only that find no room in the queue either. Launches
// over a limit of their client are refused.
func TestAdmitToTheQueue(t *testing.T) {
	instances := &known{}
	for n, inst := range []instance.Instance{
		{Template: "full", Message: "ann", Status: instance.StatusDeployed},
		{Template: "full", Message: "bob", Status: instance.StatusPending, Reason: instance.ReasonQueued},
		{Template: "other", Message: "ann", Status: instance.StatusFailed},
	} {
		inst.ID = fmt.Sprint("id", n)
		instances.all = append(instances.all, inst)
	}
	for _, row := range []struct {
		name         string
		limits       Limits
		req          Request
		want         string
		queued, full bool
	}{
		{"no limit", Limits{MaxQueued: 1}, Request{Template: "full"}, "", false, false},
		{"room", Limits{MaxQueued: 1}, Request{Template: "full", TemplateMax: 3}, "", true, false},
		{"no room", Limits{MaxQueued: 2}, Request{Template: "full", TemplateMax: 2}, "", true, true},
		{"no room for all", Limits{MaxQueued: 2, MaxInstances: 2}, Request{Template: "other"}, "", true, true},
		{"a full queue", Limits{MaxQueued: 1}, Request{Template: "full", TemplateMax: 2}, TemplateInstances, false, false},
		{"a full queue for all", Limits{MaxQueued: 1, MaxInstances: 2}, Request{Template: "other"}, AllInstances, false, false},
		{"another template's queue", Limits{MaxQueued: 1}, Request{Template: "other", TemplateMax: 1}, "", true, false},
		{"a client's limit", Limits{MaxQueued: 1, MaxPerClient: 1}, Request{Client: "bob", Template: "other"}, ClientInstances, false, false},
		{"paused", Limits{MaxQueued: 5, Paused: true}, Request{Template: "other"}, Paused, false, false},
	} {
		place, err := newAdmission(row.limits, instances).Admit(row.req)
		if got := limitOf(err); got != row.want {
			t.Errorf("%s: refused by %q, want %q", row.name, got, row.want)
		}
		if err == nil && (place.Queued != row.queued || place.Full != row.full) {
			t.Errorf("%s: queued %t, full %t", row.name, place.Queued, place.Full)
		}
	}
}

// Launches at once fill the queue, and not more.
func TestQueueIsBounded(t *testing.T) {
	a := newAdmission(Limits{MaxInstances: 2, MaxQueued: 3}, &known{})
	var queued, full, refused int
	for range 10 {
		switch place, err := a.Admit(Request{Template: "jupyter"}); {
		case err != nil:
			refused++
		case place.Full:
			full++
		case place.Queued:
			queued++
		}
	}
	if queued != 2 || full != 3 || refused != 5 {
		t.Errorf("%d have room, %d wait, %d are refused", queued, full, refused)
	}
}

// A launch under way counts once: from its admission until its release, and whether or
// not the read model has its instance already.
func TestLaunchesUnderWayCountOnce(t *testing.T) {
	instances := &known{}
	a := newAdmission(Limits{MaxPerClient: 2}, instances)
	ann := Request{Client: "ann"}
	admit := func(req Request, want string) *Place {
		t.Helper()
		place, err := a.Admit(req)
		if got := limitOf(err); got != want {
			t.Fatalf("refused by %q, want %q", got, want)
		}
		return place
	}
	first := admit(ann, "")
	first.Expect("id1")
	instances.add("ann", "jupyter", "id1", instance.StatusPending)
	failed := admit(ann, "")
	admit(ann, ClientInstances)
	admit(Request{Client: "bob"}, "")
	failed.Release()
	first.Release()
	second := admit(Request{Client: "ann", ID: "id2"}, "")
	admit(Request{Client: "ann", ID: "id2"}, "").Release() // the same launch, repeated
	second.Release()
	if len(a.places) != 1 { // bob's
		t.Errorf("%d places are left", len(a.places))
	}
}

// Launches at the same time never exceed a limit together, and use all of it.
func TestLaunchesAtOnceKeepTheLimits(t *testing.T) {
	const limit = 10
	instances := &known{}
	a := newAdmission(Limits{LaunchRate: limit, MaxPerClient: limit, MaxInstances: limit}, instances)
	var launches sync.WaitGroup
	for n := range 20 * limit {
		launches.Go(func() {
			place, err := a.Admit(Request{Client: "ann", Template: "jupyter", TemplateMax: limit})
			if err != nil {
				return
			}
			id := fmt.Sprint("id", n)
			place.Expect(id)
			instances.add("ann", "jupyter", id, instance.StatusPending)
			place.Release()
		})
	}
	launches.Wait()
	if got := len(instances.Instances("")); got != limit {
		t.Errorf("%d instances were launched, want %d", got, limit)
	}
}
