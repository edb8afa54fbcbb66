package pages

import (
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
)

// progressView is what the page of a starting instance shows.
type progressView struct {
	Title        phrase
	Template     string
	Steps        []step
	Message      string
	Timed        bool   // it has not been ready since its launch, so these are shown
	Queued       bool   // it waits for a place, and has not begun to start
	Elapsed      int    // seconds since the launch
	ElapsedWords phrase // the same
	Usual        phrase // how long a start usually takes
	HasUsual     bool   // that is known
	Events       string // the address that streams its changes
	Session      string // that of its session page
	Log          string // that of the log of its start; "" if that is not shown

	hosts []string             // of Events, if it is not the page's own
	usual func() time.Duration // tells Usual; it costs something
}

// step is one step of a launch: State is done, now or next.
type step struct {
	Name  string
	Label phrase
	State string
	// Took is how long it took, or has taken so far, such as 1:08; "" if that is not known.
	// Seconds is the same.
	Took    string
	Seconds int
}

// The steps of a launch. An instance that has not waited for a place has no stepQueue.
const (
	stepQueue   = "queue"
	stepNode    = "node"
	stepPrepare = "prepare" // the image, the volumes and the network, until the containers run
	stepStart   = "start"
	stepOpen    = "open"
)

// stepOf returns the step that an instance is in; "" once it has failed or ended.
func stepOf(inst instance.Instance) string {
	switch {
	case inst.Status.Over():
		return ""
	case inst.Reason == instance.ReasonQueued:
		return stepQueue
	case inst.Status == instance.StatusPending:
		return stepNode
	case inst.Status != instance.StatusDeploying:
		return stepOpen
	case inst.Started.IsZero():
		return stepPrepare
	}
	return stepStart
}

// steps returns the steps of a launch, as they are at a time.
func steps(inst instance.Instance, now time.Time) []step {
	all := []step{
		{Name: stepNode, Label: say("Find a node")}, {Name: stepPrepare, Label: say("Prepare")},
		{Name: stepStart, Label: say("Start")}, {Name: stepOpen, Label: say("Open")},
	}
	if inst.Reason == instance.ReasonQueued || inst.Waited > 0 {
		all = slices.Insert(all, 0, step{Name: stepQueue, Label: say("Wait for a place")})
	}
	ends := map[string]time.Time{stepQueue: inst.Launched, stepNode: inst.Scheduled, stepPrepare: inst.Started}
	present := slices.IndexFunc(all, func(s step) bool { return s.Name == stepOf(inst) })
	began := inst.Launched.Add(-inst.Waited)
	for i := range all {
		switch {
		case i < present:
			all[i].State = "done"
			if end := ends[all[i].Name]; !end.IsZero() {
				all[i].took(end.Sub(began))
				began = began.Add(max(0, end.Sub(began))) // the whole second may be before
			}
		case i == present:
			all[i].State = "now"
			all[i].took(now.Sub(began))
		default:
			all[i].State = "next"
		}
	}
	return all
}

// took notes how long a step took, or has taken so far.
func (s *step) took(d time.Duration) {
	s.Seconds = int(max(0, d).Seconds())
	s.Took = fmt.Sprintf("%d:%02d", s.Seconds/60, s.Seconds%60)
}

// StartingNotice is for an instance that is not ready yet. Browsers get a page that
// shows its progress and opens the instance when it is ready. usual returns how long a start of
// its template usually takes; 0 if that is not known. It is asked for pages only.
func StartingNotice(inst instance.Instance, now time.Time, usual func() time.Duration) Notice {
	view := &progressView{
		Title: say("Starting %s", called(inst.Template)), Template: inst.Template, Steps: steps(inst, now), Message: inst.Message,
		Events: ProgressPrefix + inst.ID, Session: SessionPrefix + inst.ID, usual: usual,
	}
	elapsed := max(0, now.Sub(inst.Launched)).Truncate(time.Second)
	if inst.ShowsLog {
		view.Log = ProgressPrefix + inst.ID + logSuffix
	}
	view.Queued = inst.Reason == instance.ReasonQueued
	view.Timed, view.Elapsed, view.ElapsedWords = view.Queued || elapsed < longestStart, int(elapsed.Seconds()), inWords(elapsed)
	retry := time.Second
	if view.Queued {
		retry = queuedRetry
	}
	return Notice{
		Code: http.StatusServiceUnavailable, RetryAfter: retry,
		Plain: plainProgress(inst), progress: view,
	}
}

// plainProgress is what programs are told of an instance that is not ready.
func plainProgress(inst instance.Instance) string {
	if inst.Reason == instance.ReasonQueued {
		return inst.Message + " Try again in a moment."
	}
	return "This instance is starting. Try again in a moment."
}

// queuedRetry is when programs should ask again whose instance waits for a place.
const queuedRetry = 10 * time.Second

// longestStart is how long after its launch an instance that is not ready can still be starting.
// After that, it was ready once, and its application starts again.
const longestStart = time.Hour

// withUsual returns the view with what costs something.
func (v *progressView) withUsual() *progressView {
	if !v.Timed || v.usual == nil {
		return v
	}
	told := *v
	if usual := v.usual(); usual > 0 {
		told.Usual, told.HasUsual = inWords(roughly(usual)), true
	}
	return &told
}

// roughly rounds a duration as people do who do not know it exactly.
func roughly(d time.Duration) time.Duration {
	switch {
	case d < 10*time.Second:
		return max(d.Round(time.Second), time.Second)
	case d < 2*time.Minute:
		return d.Round(5 * time.Second)
	}
	return d.Round(time.Minute)
}
