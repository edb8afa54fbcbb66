package pool

import (
	"math"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/podtemplate"
)

// A pool whose size is a range holds what its template's launches of the last hour would have
// needed: as many pods as were launched in any span of the time that it takes to replace them.
// The launches are read from the cluster, from pods and tombstones, so that a new leader finds
// the same size.
const (
	// lookBack is how far back launches count. Tombstones are kept as long.
	lookBack = time.Hour
	// sizeFor is how long a computed size holds: it is costly if there are many instances.
	sizeFor = 10 * time.Second
	// followAgain is how often a pool looks whether its launches ask for another size: no event
	// tells it of those that it has not served.
	followAgain = 15 * time.Second
	// usualStart is how long a pod is taken to need until it is ready if none is there that
	// tells, and longestStart is the most that is reckoned with.
	usualStart   = 30 * time.Second
	longestStart = 5 * time.Minute
	// spareShare is which share of its pods a pool keeps when it needs fewer: what is deleted
	// now may be missing in a minute.
	spareShare = 4
)

// Launches is what Size asks the read model.
type Launches interface {
	// LaunchTimes returns when a template's instances were launched, also of those that have
	// ended of late.
	LaunchTimes(template string) []time.Time
	// WarmPods returns a template's warm pods.
	WarmPods(template string) []*corev1.Pod
}

// Size returns how many warm pods a template is to have at a time. A template whose
// annotations are not valid has none, or as many as without its schedule; Events on it say so.
func Size(from Launches, template *corev1.PodTemplate, now time.Time) int {
	bounds, err := podtemplate.PoolSize(template)
	if err != nil || bounds.IsFixed() {
		return bounds.Most
	}
	schedule, _ := podtemplate.PoolFloors(template) // nil with an error
	replaced := startsIn(from.WarmPods(template.Name), podtemplate.Hash(template)) + longestWait + sizeFor
	return bounds.Within(max(schedule.At(now), needed(from.LaunchTimes(template.Name), replaced, now)))
}

// needed returns how many warm pods would have served all launches of the last hour, if each
// pod is replaced a while after it was taken. Launches that follow each other steadily, by
// chance, can come closer together than they did: twice the standard deviation is added, as of
// a Poisson process.
func needed(launches []time.Time, replaced time.Duration, now time.Time) int {
	launches = slices.DeleteFunc(slices.Clone(launches), func(at time.Time) bool { return at.After(now) || now.Sub(at) > lookBack })
	slices.SortFunc(launches, time.Time.Compare)
	peak, first := 0, 0
	for i, at := range launches {
		for at.Sub(launches[first]) >= replaced {
			first++
		}
		peak = max(peak, i-first+1)
	}
	mean := float64(len(launches)) * float64(replaced) / float64(lookBack)
	return max(peak, int(math.Ceil(mean+2*math.Sqrt(mean))))
}

// startsIn returns how long a pod of a version of a template needs until it is ready: as long as
// most of its warm pods took that are ready. What others have taken until now does not count: a
// pod that waits for a node, or ends, says nothing of a start.
func startsIn(pods []*corev1.Pod, hash string) time.Duration {
	var took []time.Duration
	for _, pod := range pods {
		if d, ok := instance.StartTook(pod, longestStart); ok && pod.Labels[instance.TemplateHashLabel] == hash {
			took = append(took, d)
		}
	}
	if len(took) == 0 {
		return usualStart
	}
	slices.Sort(took)
	return took[(len(took)-1)*9/10]
}

// sized is the size that a pool of a range had when it was last computed.
type sized struct {
	size int
	at   time.Time
}

// next returns the size at a time.
func (s sized) next(from Launches, template *corev1.PodTemplate, now time.Time) sized {
	if !s.at.IsZero() && now.Sub(s.at).Abs() < sizeFor {
		return s
	}
	return sized{Size(from, template, now), now}
}

// spare returns how many pods more than its size a pool keeps, if it has them.
func spare(size int) int { return (size + spareShare - 1) / spareShare }
