package pages

import (
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
	Phase string // an instance.Status, or phaseQueued
	Label phrase
	State string
}

// phaseQueued is that of an instance that waits for a place; its status is pending.
const phaseQueued = "queued"

// steps returns the steps of a launch. Those that have not waited for a place have no such step.
func steps(inst instance.Instance) []step {
	all := []step{
		{Phase: string(instance.StatusPending), Label: say("Find a node")}, {Phase: string(instance.StatusDeploying), Label: say("Start")},
		{Phase: string(instance.StatusDeployed), Label: say("Open")},
	}
	phase := string(inst.Status)
	if inst.Reason == instance.ReasonQueued {
		phase = phaseQueued
		all = slices.Insert(all, 0, step{Phase: phase, Label: say("Wait for a place")})
	}
	present := slices.IndexFunc(all, func(s step) bool { return s.Phase == phase })
	for i := range all {
		switch {
		case i < present:
			all[i].State = "done"
		case i == present:
			all[i].State = "now"
		default:
			all[i].State = "next"
		}
	}
	return all
}

// StartingNotice is for an instance that is not ready yet. Browsers get a page that
// shows its progress and opens the instance when it is ready. usual returns how long a start of
// its template usually takes; 0 if that is not known. It is asked for pages only.
func StartingNotice(inst instance.Instance, now time.Time, usual func() time.Duration) Notice {
	view := &progressView{
		Title: say("Starting %s", inst.Template), Template: inst.Template, Steps: steps(inst), Message: inst.Message,
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
