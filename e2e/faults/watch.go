package faults

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	kubewatch "k8s.io/apimachinery/pkg/watch"

	"github.com/binder-project/binder-deploy-kubernetes/e2e/harness"
)

// Labels and annotations of pods, as docs/state.md has them.
const (
	managedByLabel = "app.kubernetes.io/managed-by"
	idLabel        = "binder-project.org/id"
	templateLabel  = "binder-project.org/template"
	poolLabel      = "binder-project.org/pool"
	cullTimeout    = "binder-project.org/cull-timeout"
	lastActivity   = "binder-project.org/last-activity"
	launchedAt     = "binder-project.org/launched"
)

// WatchPods notes in the ledger what the API server says of the service's pods with ids, apart
// from those of the templates simulated and queued, until ctx is done. It asks the API server itself, past
// every fault between that and the service.
//
// An informer would wait for up to half a minute after an API server is back, and then not know
// when pods were deleted.
func (l *Load) WatchPods(ctx context.Context) {
	pods := map[types.UID]corev1.Pod{}
	for ctx.Err() == nil {
		_ = l.followPods(ctx, pods) // the API server is stopped on purpose
		pause(ctx, 200*time.Millisecond)
	}
}

// followPods notes what has become of pods, then each change of one, until the API server does not
// go on. pods are those that there were when it was last heard.
func (l *Load) followPods(ctx context.Context, pods map[types.UID]corev1.Pod) error {
	client := l.suite.Kube.Client.CoreV1().Pods(harness.InstancesNamespace)
	options := metav1.ListOptions{
		LabelSelector:  managedByLabel + "=binder-deploy-kubernetes," + idLabel + "," + poolLabel + "!=warm," + templateLabel + " notin (" + simulated + "," + queued + ")",
		TimeoutSeconds: new(int64(60)),
	}
	listing, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	list, err := client.List(listing, options)
	if err != nil {
		return fmt.Errorf("list pods: %w", err)
	}
	before := maps.Clone(pods)
	for _, pod := range list.Items {
		delete(before, pod.UID)
		pods[pod.UID] = pod
		l.sawPod(&pod, false)
	}
	for uid, pod := range before {
		delete(pods, uid)
		l.sawPod(&pod, true)
	}
	options.ResourceVersion = list.ResourceVersion
	changes, err := client.Watch(ctx, options)
	if err != nil {
		return fmt.Errorf("watch pods: %w", err)
	}
	defer changes.Stop()
	for change := range changes.ResultChan() {
		pod, ok := change.Object.(*corev1.Pod)
		if !ok {
			return fmt.Errorf("the watch of pods says %v", change.Object)
		}
		pods[pod.UID] = *pod
		if change.Type == kubewatch.Deleted {
			delete(pods, pod.UID)
		}
		l.sawPod(pod, change.Type == kubewatch.Deleted)
	}
	return nil
}

// sawPod notes what the API server says of a pod. One that somebody has given the id of an instance
// is not that instance's.
func (l *Load) sawPod(pod *corev1.Pod, gone bool) {
	if pod.Name != harness.PodName(pod.Labels[idLabel]) && !l.ledger.Saw(string(pod.UID)) {
		return
	}
	var deleted time.Time
	if pod.DeletionTimestamp != nil {
		deleted = pod.DeletionTimestamp.Time
		if grace := pod.DeletionGracePeriodSeconds; grace != nil {
			deleted = deleted.Add(-time.Duration(*grace) * time.Second)
		}
	}
	timeout, err := time.ParseDuration(pod.Annotations[cullTimeout])
	if err != nil { // edited by hand
		timeout = usedTimeout
	}
	launched, _ := time.Parse(time.RFC3339, pod.Annotations[launchedAt])
	l.ledger.SawPod(Pod{
		UID: string(pod.UID), ID: pod.Labels[idLabel], Timeout: timeout, Ready: readySince(pod), Deleted: deleted,
		Warm: launched.Sub(pod.CreationTimestamp.Time) > 2*time.Second, // the creation is in whole seconds
	}, gone, l.now())
}

// readySince returns since when a pod is Ready; zero if it is not.
func readySince(pod *corev1.Pod) time.Time {
	for _, condition := range pod.Status.Conditions {
		if condition.Type == corev1.PodReady && condition.Status == corev1.ConditionTrue {
			return condition.LastTransitionTime.Time
		}
	}
	return time.Time{}
}

// poll asks each replica about each instance until ctx is done, and compares what its API
// says with what its proxy does.
func (l *Load) poll(ctx context.Context) {
	var replicas []harness.Replica
	for pause(ctx, pollEvery) {
		if ready, err := l.suite.ReadyReplicas(ctx); err == nil { // else those of before: the API server is away
			replicas = ready
		}
		for _, entry := range l.ledger.Entries() {
			if entry.Edited || !entry.Told.IsZero() && l.now().Sub(entry.Told) > 10*time.Second {
				continue
			}
			for _, replica := range replicas {
				l.compare(ctx, replica, entry)
			}
		}
		for _, replica := range replicas {
			for _, of := range []string{template, pooled} {
				l.checkList(ctx, replica, of)
			}
		}
	}
}

// listedAfter is how long after it was seen to be deployed an instance must be in the list of every
// replica.
const listedAfter = 10 * time.Second

// checkList asks a replica for the list of a template's instances. It must have no id twice, and
// lack none that lives for a while.
func (l *Load) checkList(ctx context.Context, replica harness.Replica, of string) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	asked, living := l.now(), l.ledger.Entries()
	answer, err := replica.API.OfOtherVersion().Try(ctx, http.MethodGet, "/applications/"+of, "", "Authorization", replica.API.Key())
	failure, unsure := failureOf(answer.Code, err), l.unsure.Load()
	if err != nil && failure != noAnswer || failure == "503" && unsure.lasts(l.now()) {
		return // as a replica that just went away, or one that cannot know
	}
	l.note(ctx, Polls, failure, "list of", replica.Name)
	var list []harness.Status
	if failure != "" {
		return
	}
	if err := json.Unmarshal(answer.Body, &list); err != nil {
		l.ledger.Complain("%s lists %.300q: %v", replica.Name, answer.Body, err)
		return
	}
	listed := map[string]bool{}
	for _, status := range list {
		if listed[status.ID] {
			l.ledger.Complain("%s lists %s twice", replica.Name, status.ID)
		}
		listed[status.ID] = true
	}
	for _, before := range living {
		now := l.ledger.Entry(before.ID) // it may have ended meanwhile
		known := !before.Deployed.IsZero() && asked.Sub(before.Deployed) > listedAfter && (!unsure.lasts(l.now()) || before.Deployed.Before(unsure.since.Add(-time.Second)))
		if before.Template == of && known && l.ledger.Knows(before.ID) && !listed[before.ID] && !now.Edited && now.Told.IsZero() && l.ledger.Deleted(before.ID).IsZero() {
			l.ledger.Complain("%s does not list %s", replica.Name, before.ID)
		}
	}
}

// compare asks a replica's API, its proxy, and its API again. If the API says the same twice,
// the proxy must not say otherwise in between.
func (l *Load) compare(ctx context.Context, replica harness.Replica, entry Entry) {
	before, ok := l.status(ctx, replica, entry)
	if !ok || before != "deployed" && before != "deleted" && before != "failed" || entry.Template == recorded {
		return
	}
	page, err := l.visitAt(ctx, replica, entry.ID, "idle")
	if err != nil {
		return // the load's own visits count what is not answered
	}
	after, ok := l.status(ctx, replica, entry)
	if !ok || after != before {
		return
	}
	switch {
	case l.ledger.Entry(entry.ID).Edited: // meanwhile
	case before == "failed" && page == http.StatusOK,
		before == "deployed" && (page == http.StatusNotFound || page == http.StatusGone),
		before == "deleted" && page != http.StatusGone:
		l.ledger.Complain("%s says that %s is %s, and its proxy answers %d", replica.Name, entry.ID, before, page)
	}
}

// status asks a replica about an instance. ok is false if it has not answered.
func (l *Load) status(ctx context.Context, replica harness.Replica, entry Entry) (status string, ok bool) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	// To compare each answer with docs/openapi.json would be most of what the suite does.
	answer, err := replica.API.OfOtherVersion().Try(ctx, http.MethodGet, "/applications/"+entry.Template+"/"+entry.ID, "")
	if err != nil {
		return "", false // as a replica that just went away
	}
	if !l.ledger.Knows(entry.ID) { // it had ended, and was forgotten while the request was under way
		return "", false
	}
	if answer.Code == http.StatusNotFound && l.mayBeForgotten(entry.ID) {
		l.ledger.SawStatus(replica.Name, entry.ID, "deleted", "not remembered", l.now())
		return "", false
	}
	l.noteOf(ctx, entry.ID, Polls, failureOf(answer.Code, nil))
	switch {
	case answer.Code == http.StatusNotFound && !l.ledger.Entry(entry.ID).Edited && !l.unsure.Load().isBlind(l.now()):
		l.ledger.Complain("%s does not know %s", replica.Name, entry.ID)
		return "", false
	case answer.Code != http.StatusOK:
		return "", false
	}
	var got harness.Status
	if err := json.Unmarshal(answer.Body, &got); err != nil {
		l.ledger.Complain("%s answers %q", replica.Name, answer.Body)
		return "", false
	}
	l.ledger.SawStatus(replica.Name, entry.ID, got.Status, got.Reason, l.now())
	return got.Status, true
}

// mayBeForgotten reports whether an instance has ended while its end could not be remembered.
func (l *Load) mayBeForgotten(id string) bool {
	during := l.forgets.Load()
	if during == nil {
		return false
	}
	const lag = 2 * time.Second // Kubernetes writes the time of a deletion in whole seconds, after the tombstone
	deleted := l.ledger.Deleted(id)
	return !deleted.IsZero() && deleted.After(during.first.Add(-lag)) && (during.last.IsZero() || deleted.Before(during.last.Add(lag)))
}

// visitAt visits an instance through a replica. A visit of the path "idle" does not count as
// use, because the template names it as idle.
func (l *Load) visitAt(ctx context.Context, replica harness.Replica, id, path string) (code int, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, replica.Proxy+"/user/"+id+"/"+path, nil)
	if err != nil {
		return 0, err
	}
	response, err := l.visits.Do(request)
	if err != nil {
		return 0, err
	}
	_ = response.Body.Close()
	return response.StatusCode, nil
}
