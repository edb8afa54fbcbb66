package faults

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kubewatch "k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
	watchtools "k8s.io/client-go/tools/watch"

	"github.com/binder-project/binder-deploy-kubernetes/e2e/harness"
)

const (
	// queued is the template of which there can be no more than places instances. They are
	// simulated, and the ledger does not know them.
	queued   = "faults-queued"
	places   = 50
	visitors = 300
	// stays is how long a visitor uses an instance before they stop it.
	stays = 3 * time.Second
	// overtaken is how much later than one that came after it an instance may get its place. Several
	// places are given at the same time, and the write of one can fail after three seconds and is
	// tried again. If the leader was killed in the middle of it, the next one takes over after six:
	// overtakenAtKill.
	overtaken, overtakenAtKill = 4 * time.Second, 10 * time.Second

	// sooner is how much sooner an instance must have come to be served first. The service goes by
	// the time of the API server, which is of whole seconds, and a busy watch tells of the launches
	// at the other replica later than a replica knows its own.
	sooner = 2 * time.Second
	// known is how soon after its launch the leader knows an instance.
	known = 2 * time.Second

	queueLabel   = "binder-project.org/queue"
	maxInstances = "binder-project.org/max-instances"
)

// killLeaderOfQueue lets many visitors wait for few places, each of which stops their instance
// after a while, and kills the leader in the middle of that. There must never be more instances
// than places, nobody may overtake others, and everybody must get a place.
func killLeaderOfQueue(ctx context.Context, w *World, random *rand.Rand) (undo func(context.Context) error, err error) {
	s, err := w.simulate(ctx, queued)
	if err != nil {
		return nil, err
	}
	undo = func(ctx context.Context) error { return errors.Join(s.awaitGone(ctx, time.Minute), s.end(ctx)) }
	line := &line{pods: map[string]*queuedPod{}}
	watching, stop := context.WithCancel(ctx)
	defer stop()
	changes, err := s.watch(watching)
	if err != nil {
		return undo, err
	}
	var watcher, all sync.WaitGroup
	watcher.Go(func() {
		line.follow(changes)
		if watching.Err() == nil {
			w.Ledger.Complain("the watch of those who wait has ended too early")
		}
	})
	var done atomic.Int64
	for range visitors {
		all.Go(func() {
			if err := w.queueUp(ctx); err != nil {
				w.Ledger.Complain("a visitor who waited for a place: %v", err)
			}
			done.Add(1)
		})
		pause(ctx, 30*time.Millisecond)
	}
	amid := visitors/4 + random.Int64N(visitors/4)
	for done.Load() < amid && pause(ctx, 10*time.Millisecond) {
		continue
	}
	if _, err = killLeader(ctx, w, random); err != nil {
		return undo, err
	}
	line.killed = time.Now()
	w.Mended()
	all.Wait()
	stop()
	changes.Stop()
	watcher.Wait()
	if served := line.judge(w.Ledger); served != visitors {
		w.Ledger.Complain("%d of %d visitors have got a place", served, visitors)
	}
	return undo, nil
}

// watch watches the instances. A watch that ends, as they all do some time, is taken up where it was.
func (s *simulation) watch(ctx context.Context) (kubewatch.Interface, error) {
	now, err := s.pods.List(ctx, s.selected())
	if err != nil {
		return nil, fmt.Errorf("list the instances: %w", err)
	}
	changes, err := watchtools.NewRetryWatcherWithContext(ctx, now.ResourceVersion, &cache.ListWatch{
		WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (kubewatch.Interface, error) {
			options.LabelSelector = s.selected().LabelSelector
			return s.pods.Watch(ctx, options)
		},
	})
	if err != nil {
		return nil, fmt.Errorf("watch the instances: %w", err)
	}
	return changes, nil
}

// queueUp launches an instance, asks about it until it is deployed, and stops it after a while. What
// is not answered, because the replica was killed, is tried again.
func (w *World) queueUp(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 4*time.Minute)
	defer cancel()
	api := w.Load.api.OfOtherVersion() // to compare thousands of answers with docs/openapi.json takes long
	ask := func(method, path, body string, header ...string) (status harness.Status, err error) {
		for {
			answer, err := api.Try(ctx, method, path, body, append(header, "Authorization", api.Key())...)
			if err == nil && answer.Code == http.StatusOK {
				return status, json.Unmarshal(answer.Body, &status)
			}
			if !pause(ctx, 500*time.Millisecond) {
				return status, fmt.Errorf("%s %s: %d, %w", method, path, answer.Code, err)
			}
		}
	}
	launched, err := ask(http.MethodPost, "/applications/"+queued, "", "Idempotency-Key", fmt.Sprintf("%032x", rand.Uint64()))
	if err != nil {
		return err
	}
	path := "/applications/" + queued + "/" + launched.ID
	for {
		status, err := ask(http.MethodGet, path, "")
		switch {
		case err != nil:
			return err
		case status.Status == "failed" || status.Status == "deleted":
			return fmt.Errorf("the instance is %s: %s %s", status.Status, status.Reason, status.Message)
		case status.Status == "deployed":
			pause(ctx, stays)
			_, err = ask(http.MethodDelete, path, "")
			return err
		}
		pause(ctx, 2*time.Second)
	}
}

// line is what the API server says of the instances of the template queued.
type line struct {
	pods   map[string]*queuedPod // by name
	most   int                   // instances with a place at the same time
	long   int                   // instances that waited at the same time
	killed time.Time             // when the leader was
}

// queuedPod is an instance that waits, or has waited.
type queuedPod struct {
	came     time.Time // when it was created, by the API server
	seen     time.Time // by the watch
	admitted time.Time // zero until it has a place
	ended    bool
}

// follow notes each change until the watch ends.
func (l *line) follow(changes kubewatch.Interface) {
	for change := range changes.ResultChan() {
		pod, ok := change.Object.(*corev1.Pod)
		if !ok {
			return
		}
		l.note(pod, change.Type == kubewatch.Deleted || pod.DeletionTimestamp != nil)
	}
}

func (l *line) note(pod *corev1.Pod, ended bool) {
	p := l.pods[pod.Name]
	if p == nil {
		p = &queuedPod{came: pod.CreationTimestamp.Time, seen: time.Now()}
		l.pods[pod.Name] = p
	}
	if pod.Labels[queueLabel] == "admitted" && len(pod.Spec.SchedulingGates) == 0 && p.admitted.IsZero() {
		p.admitted, _ = time.Parse(time.RFC3339, pod.Annotations[launchedAt])
	}
	p.ended = p.ended || ended
	waiting, admitted := 0, 0
	for _, other := range l.pods {
		switch {
		case other.ended:
		case other.admitted.IsZero():
			waiting++
		default:
			admitted++
		}
	}
	l.most, l.long = max(l.most, admitted), max(l.long, waiting)
}

// isOvertaken reports whether an instance got its place later than another by more than it may.
func (l *line) isOvertaken(by, late *queuedPod) bool {
	may := overtaken
	if by.admitted.Before(l.killed.Add(time.Second)) && late.admitted.After(l.killed) {
		may = overtakenAtKill
	}
	return late.admitted.After(by.admitted.Add(may))
}

// judge complains about what must not have been, and returns how many have got a place.
func (l *line) judge(ledger *Ledger) (served int) {
	for name, p := range l.pods {
		if p.admitted.IsZero() {
			continue
		}
		served++
		for _, other := range l.pods { // that came earlier and got its place later
			if !other.came.Add(sooner).After(p.came) && other.seen.Add(known).Before(p.admitted) && l.isOvertaken(p, other) {
				ledger.Complain("%s came at %s and got its place at %s; another came at %s and got its place at %s", name,
					p.came.Format(clockTime), p.admitted.Format(clockTime), other.came.Format(clockTime), other.admitted.Format(clockTime))
				break
			}
		}
	}
	if l.most != places {
		ledger.Complain("there were %d instances at the same time, for %d places", l.most, places)
	}
	if l.long < visitors/2 {
		ledger.Complain("no more than %d of %d have waited at the same time", l.long, visitors)
	}
	return served
}

// clockTime is the layout of times within a day.
const clockTime = "15:04:05.000"
