package admission

import (
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
)

// The names of the limits, as clients are told them. Those of the server are the names
// of its flags.
const (
	// LaunchRate limits how often a client can launch.
	LaunchRate = "launch-rate"
	// ClientInstances limits the living instances of a client.
	ClientInstances = "max-instances-per-client"
	// TemplateInstances limits the living instances of a template.
	TemplateInstances = "template-max-instances"
	// AllInstances limits the living instances in all.
	AllInstances = "max-instances"
	// Paused is not a number: no launch is allowed, of a template or at all.
	Paused = "paused"
)

// LimitNames returns the names of all limits.
func LimitNames() []string {
	return []string{LaunchRate, ClientInstances, TemplateInstances, AllInstances, Paused}
}

const (
	// rateWindow is the time in which LaunchRate counts launches. It must not exceed the
	// time that the API server keeps Events, an hour by default: older launches of
	// ended instances are forgotten.
	rateWindow = time.Hour
	// retryWhenFull is when to ask again for a place: places become free only as
	// instances end.
	retryWhenFull = time.Minute
)

// Refusal is the error of a launch that is over a limit.
type Refusal struct {
	// Limit is the name of the limit, one of LimitNames.
	Limit string
	// Max is the limit's value; 0 for Paused.
	Max int
	// RetryAfter is when the same launch can succeed, in whole seconds. For LaunchRate it
	// is exact; for the others, which depend on when instances end, it is a guess.
	RetryAfter time.Duration
}

// What a Refusal says. Parts in braces are as in package instance.
const (
	tooManyLaunches  = "at most {max} launches an hour are allowed from one address; try again in {time}"
	tooManyInstances = "at most {max} instances at the same time are allowed from one address; try again when one of them has ended"
	templateIsFull   = "all places of this template are taken; try again in a minute"
	launchesPaused   = "launches are paused at the moment; try again later"
	// AllTaken is for launches for which there is no room at all.
	AllTaken = "all places are taken; try again in a minute"
)

// Texts returns everything that a Refusal can say. The pages translate it.
func Texts() []string {
	return []string{tooManyLaunches, tooManyInstances, templateIsFull, launchesPaused, AllTaken}
}

// Error says what the limit is, in words for visitors.
func (r *Refusal) Error() string {
	switch r.Limit {
	case LaunchRate:
		return instance.Fill(tooManyLaunches, "{max}", strconv.Itoa(r.Max), "{time}", r.RetryAfter.String())
	case ClientInstances:
		return instance.Fill(tooManyInstances, "{max}", strconv.Itoa(r.Max))
	case TemplateInstances:
		return templateIsFull
	case Paused:
		return launchesPaused
	}
	return AllTaken
}

// launch is a launch as the limits count it.
type launch struct {
	at     time.Time
	alive  bool // its instance is, or is going to be
	queued bool // it waits for a place
}

// checkClient decides on one more launch of a client, which has made these launches.
func checkClient(limits Limits, launches []launch, now time.Time) *Refusal {
	recent := slices.DeleteFunc(slices.Clone(launches), func(l launch) bool { return now.Sub(l.at) >= rateWindow })
	if limits.LaunchRate > 0 && len(recent) >= limits.LaunchRate {
		slices.SortFunc(recent, func(a, b launch) int { return a.at.Compare(b.at) })
		free := recent[len(recent)-limits.LaunchRate].at.Add(rateWindow) // when fewer than the limit are left
		return &Refusal{LaunchRate, limits.LaunchRate, wholeSeconds(free.Sub(now))}
	}
	return checkRoom(ClientInstances, limits.MaxPerClient, launches)
}

// checkRoom decides on one more instance beside those that live.
func checkRoom(limit string, most int, launches []launch) *Refusal {
	alive := 0
	for _, l := range launches {
		if l.alive {
			alive++
		}
	}
	if most == 0 || alive < most {
		return nil
	}
	return &Refusal{limit, most, retryWhenFull}
}

// queuedOf returns how many of the launches wait for a place.
func queuedOf(launches []launch) (n int) {
	for _, l := range launches {
		if l.queued {
			n++
		}
	}
	return n
}

// wholeSeconds rounds a wait up to seconds. It is at most the window, even if another
// replica's clock is ahead.
func wholeSeconds(wait time.Duration) time.Duration {
	return min(time.Duration(math.Ceil(wait.Seconds()))*time.Second, rateWindow)
}
