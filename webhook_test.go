package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
)

// usage is a receiver of events that is down at every other try of each event: it cuts the
// connection, or it answers 500, or it takes the event and then says 500. It keeps what it took.
type usage struct {
	t     *testing.T
	mu    sync.Mutex
	tries map[string]int
	taken map[string]usageEvent // by the id, without repeats
	raw   strings.Builder
}

type usageEvent struct {
	SpecVersion, ID, Source, Type, Subject, Time string
	Data                                         struct {
		Template, Pod, Launched, Reason, Fault string
		Lifetime                               *float64 `json:"lifetime-seconds"`
		Duration                               *float64 `json:"duration-seconds"`
	}
}

func (u *usage) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	mac := hmac.New(sha256.New, []byte(webhookSecret))
	io.WriteString(mac, r.Header.Get("webhook-id")+"."+r.Header.Get("webhook-timestamp")+"."+string(body))
	if signed := "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil)); err != nil || r.Header.Get("webhook-signature") != signed {
		u.t.Errorf("got a delivery with a wrong signature: %v %q, %v", r.Header, body, err)
	}
	var event usageEvent
	if err := json.Unmarshal(body, &event); err != nil || event.ID != r.Header.Get("webhook-id") {
		u.t.Errorf("got %q, %v", body, err)
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.raw.Write(body)
	u.tries[event.ID]++
	down := u.tries[event.ID]%2 == 1
	switch of := len(u.tries) % 3; {
	case down && of == 0:
		panic(http.ErrAbortHandler) // cuts the connection
	case down && of == 1:
		w.WriteHeader(http.StatusInternalServerError)
		return
	case down:
		w.WriteHeader(http.StatusInternalServerError)
	}
	u.taken[event.ID] = event
}

// kinds are the kinds of events that the receiver has of a pod, sorted.
func (u *usage) kinds(pod string) (kinds []string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, event := range u.taken {
		if event.Subject == pod {
			kinds = append(kinds, strings.TrimPrefix(event.Type, "org.binder-project.deploy.instance."))
		}
	}
	slices.Sort(kinds)
	return kinds
}

// webhookApp is an app that runs, tells a receiver, and has a template.
func webhookApp(t *testing.T, receiver http.Handler) (a *app, server *kubetest.Server, stop func() error) {
	t.Helper()
	listening := httptest.NewServer(receiver)
	t.Cleanup(listening.Close)
	server = kubetest.NewServer(time.Now, kubetest.Template("jupyter"))
	a = newTestApp(t, server.Client, kubetest.NoLog(), "--webhook-url="+listening.URL, "--webhook-secret-file="+webhookSecretFile)
	stop = runApp(t, a)
	awaitCode(t, a.url(metricsServer, "/readyz"), 200)
	return a, server, stop
}

func launchOne(t *testing.T, a *app) (id string) {
	t.Helper()
	got := call(t, "POST", a.url(apiServer, "/applications/jupyter"), "")
	var launched struct{ ID string }
	if err := json.Unmarshal([]byte(got.body), &launched); err != nil || got.code != 200 {
		t.Fatalf("the launch got %d %s", got.code, got.body)
	}
	return launched.ID
}

// A receiver that is down half of the time still gets every event of every instance. No event
// holds an id, which would let its holder in.
func TestWebhookReceiverIsDownHalfOfTheTime(t *testing.T) {
	records := &usage{t: t, tries: map[string]int{}, taken: map[string]usageEvent{}}
	a, server, stop := webhookApp(t, records)
	const each = 3
	want := map[string][]string{} // by the name of a pod
	var ids []string
	for n := range 3 * each {
		id := launchOne(t, a)
		pod := instance.PodName(id)
		ids = append(ids, id)
		become := func(change func(*corev1.Pod)) {
			server.ChangePod(t, pod, func(stored *corev1.Pod) {
				stored.Spec.NodeName, stored.Status = "node-1", kubetest.Pod(id, time.Now(), change).Status
			})
		}
		end := func() {
			wantEqual(t, "stop", call(t, "DELETE", a.url(apiServer, "/applications/jupyter/"+id), "").code, 200)
		}
		settled := func(status instance.Status) {
			kubetest.Eventually(t, "the instance is "+string(status), func() bool {
				inst, _ := a.cache.Instance(id)
				return inst.Status == status
			})
		}
		switch n % 3 {
		case 0: // it is used, and stopped
			become(func(*corev1.Pod) {})
			settled(instance.StatusDeployed)
			want[pod] = []string{"ended", "launched", "ready"}
			end()
		case 1: // it fails, and is stopped
			become(kubetest.Broken)
			settled(instance.StatusFailed)
			want[pod] = []string{"ended", "failed", "launched"}
			end()
		case 2: // somebody else deletes it, before it is ready
			want[pod] = []string{"ended", "launched"}
			server.DropPod(t, pod)
		}
	}
	for pod, kinds := range want {
		kubetest.Eventually(t, "the receiver has all events of "+pod, func() bool { return slices.Equal(records.kinds(pod), kinds) })
	}
	kubetest.Eventually(t, "nothing waits", func() bool { return metric(t, a.metrics, "binder_webhook_queue_length") == 0 })
	events, wanted := len(records.taken), each*(3+3+2)
	if events != wanted {
		t.Errorf("the receiver has %d events, want %d", events, wanted)
	}
	for result, want := range map[string]float64{"ok": float64(wanted), "retried": float64(wanted), "refused": 0, "dropped": 0} {
		wantEqual(t, "deliveries: "+result, metric(t, a.metrics, "binder_webhook_deliveries_total", result), want)
	}
	for _, event := range records.taken {
		ended := strings.HasSuffix(event.Type, ".ended")
		if event.SpecVersion != "1.0" || event.Source != "/binder-deploy-kubernetes/binder-instances" || event.Data.Template != "jupyter" ||
			event.Data.Pod != event.Subject || event.Data.Launched == "" || ended != (event.Data.Lifetime != nil) ||
			strings.HasSuffix(event.Type, ".ready") != (event.Data.Duration != nil) || ended && event.Data.Reason == "" {
			t.Errorf("got the event %+v", event)
		}
	}
	for _, secret := range append(ids, testAPIKey, webhookSecret, "127.0.0.1") {
		if strings.Contains(records.raw.String(), secret) {
			t.Errorf("an event has %q", secret)
		}
	}
	noError(t, stop())
}

// A receiver that hangs delays no launch, even when no event fits into the queue any more.
func TestWebhookReceiverHangs(t *testing.T) {
	release := make(chan struct{})
	a, _, stop := webhookApp(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
	pod := kubetest.Pod(kubetest.ID(1), time.Now())
	for range 11_000 { // more than the queue holds; if one of these calls waited, the test would not end
		a.webhook.Launched(pod, false)
	}
	before := metric(t, a.metrics, "binder_webhook_deliveries_total", "dropped")
	began := time.Now()
	for range 20 {
		launchOne(t, a)
	}
	if took := time.Since(began); took > 5*time.Second { // one try of a delivery takes twice as long
		t.Errorf("20 launches took %s", took)
	}
	if dropped := metric(t, a.metrics, "binder_webhook_deliveries_total", "dropped"); before == 0 || dropped != before+20 {
		t.Errorf("%v events were dropped, then %v; want 20 more, as the queue is full", before, dropped)
	}
	close(release)
	noError(t, stop())
}
