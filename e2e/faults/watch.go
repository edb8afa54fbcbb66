package faults

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"

	"github.com/binder-project/binder-deploy-kubernetes/e2e/harness"
)

const idLabel = "binder-project.org/id"

// WatchPods notes in the ledger what the API server says of pods with ids, until ctx is done.
// It asks the API server itself, past every fault between that and the service.
func (l *Load) WatchPods(ctx context.Context) error {
	selector, err := labels.Parse(idLabel + ",binder-project.org/pool!=warm")
	if err != nil {
		return fmt.Errorf("select pods with ids: %w", err)
	}
	factory := informers.NewSharedInformerFactoryWithOptions(l.suite.Kube.Client, 0,
		informers.WithNamespace(harness.InstancesNamespace),
		informers.WithTweakListOptions(func(o *metav1.ListOptions) { o.LabelSelector = selector.String() }))
	informer := factory.Core().V1().Pods().Informer()
	if _, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(object any) { l.sawPod(object, false) },
		UpdateFunc: func(_, object any) { l.sawPod(object, false) },
		DeleteFunc: func(object any) { l.sawPod(object, true) },
	}); err != nil {
		return fmt.Errorf("watch pods: %w", err)
	}
	factory.Start(ctx.Done())
	synced, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if !cache.WaitForCacheSync(synced.Done(), informer.HasSynced) {
		return fmt.Errorf("list pods: not in time")
	}
	return nil
}

func (l *Load) sawPod(object any, gone bool) {
	if unknown, ok := object.(cache.DeletedFinalStateUnknown); ok {
		object = unknown.Obj
	}
	pod, ok := object.(*corev1.Pod)
	if !ok {
		return
	}
	var deleted time.Time
	if pod.DeletionTimestamp != nil {
		deleted = pod.DeletionTimestamp.Time
		if grace := pod.DeletionGracePeriodSeconds; grace != nil {
			deleted = deleted.Add(-time.Duration(*grace) * time.Second)
		}
	}
	l.ledger.SawPod(string(pod.UID), pod.Labels[idLabel], deleted, gone, l.now())
}

// poll asks each replica about each instance until ctx is done, and compares what its API
// says with what its proxy does.
func (l *Load) poll(ctx context.Context) {
	for pause(ctx, pollEvery) {
		replicas, err := l.suite.ReadyReplicas(ctx)
		if err != nil {
			continue // the API server is away: nobody knows which replicas there are
		}
		for _, entry := range l.ledger.Entries() {
			if !entry.Told.IsZero() && l.now().Sub(entry.Told) > 10*time.Second {
				continue
			}
			for _, replica := range replicas {
				l.compare(ctx, replica, entry)
			}
		}
	}
}

// compare asks a replica's API, its proxy, and its API again. If the API says the same twice,
// the proxy must not say otherwise in between.
func (l *Load) compare(ctx context.Context, replica harness.Replica, entry Entry) {
	before, ok := l.status(ctx, replica, entry)
	if !ok || before != "deployed" && before != "deleted" {
		return
	}
	page, err := l.visitAt(ctx, replica, entry)
	if err != nil {
		return // the load's own visits count what is not answered
	}
	after, ok := l.status(ctx, replica, entry)
	if !ok || after != before {
		return
	}
	switch {
	case before == "deployed" && (page == http.StatusNotFound || page == http.StatusGone),
		before == "deleted" && page != http.StatusGone:
		l.ledger.Complain("%s says that %s is %s, and its proxy answers %d", replica.Name, entry.ID, before, page)
	}
}

// status asks a replica about an instance. ok is false if it has not answered.
func (l *Load) status(ctx context.Context, replica harness.Replica, entry Entry) (status string, ok bool) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	answer, err := replica.API.Try(ctx, http.MethodGet, "/applications/"+entry.Template+"/"+entry.ID, "")
	switch {
	case err != nil:
		return "", false // as a replica that just went away
	case answer.Code == http.StatusNotFound:
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

// visitAt visits an instance through a replica. The visit does not count as use, because the
// template names the path as idle.
func (l *Load) visitAt(ctx context.Context, replica harness.Replica, entry Entry) (code int, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, replica.Proxy+"/user/"+entry.ID+"/idle", nil)
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
