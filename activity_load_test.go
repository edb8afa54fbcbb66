package main

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"

	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
)

// Through however many replicas it is used, a pod is written once a period.
func TestActivityIsWrittenOnceAPeriod(t *testing.T) {
	for _, replicas := range []int{1, 2} {
		synctest.Test(t, func(t *testing.T) {
			began := time.Now()
			server := kubetest.NewServer(time.Now, kubetest.Pod(kubetest.ID(1), began))
			first := startClusterOn(t, server)
			clusters := []*testCluster{first}
			for len(clusters) < replicas {
				clusters = append(clusters, startClusterOn(t, server))
			}
			var activities []*Activity
			for _, c := range clusters {
				activity, _ := newTestActivity(c)
				defer activity.start()()
				activities = append(activities, activity)
			}
			// Each write that met no conflict, for two may be due at one moment.
			version := func() string {
				pod, err := server.StoredPod(instance.PodName(kubetest.ID(1)))
				if err != nil {
					t.Fatal(err)
				}
				return pod.ResourceVersion
			}
			period := flushPeriod(time.Hour)
			var written []time.Time // when, not what
			for seen, n := version(), 0; time.Since(began) < 2*time.Hour; n++ {
				activities[n%replicas].Touch(kubetest.ID(1), instance.SourceHTTP)
				time.Sleep(flushTick / 4)
				if now := version(); now != seen {
					seen = now
					written = append(written, time.Now())
				}
			}
			for i := 1; i < len(written); i++ {
				if gap := written[i].Sub(written[i-1]); gap < period-flushTick || gap > period+2*flushTick {
					t.Errorf("%d replicas: %s between two writes, want %s", replicas, gap, period)
				}
			}
			if got, want := len(written), int(2*time.Hour/period); got > want || got < want-2 {
				t.Errorf("%d replicas: written %d times in two hours, want %d, or a little less", replicas, got, want)
			}
		})
	}
}

// Nor is it written more often where its uses are few, and come at the wrong time;
// and what a replica holds back when it is killed is no more than is allowed for.
func TestActivityOfFewUses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		server := kubetest.NewServer(time.Now, kubetest.Pod(kubetest.ID(1), began.Add(-time.Hour), kubetest.LastUsed(began)))
		var replicas []*Activity
		for range 2 {
			activity, _ := newTestActivity(startClusterOn(t, server))
			defer activity.start()()
			replicas = append(replicas, activity)
		}
		var written time.Time
		used := []time.Time{began}
		version := ""
		for step := 0; time.Since(began) < 40*time.Minute; step++ {
			switch since := time.Since(began); {
			case step == 1, since > 5*time.Minute+4*time.Second && since < 10*time.Minute-2*time.Second, since > 30*time.Minute && step%7 == 0:
				used = append(used, time.Now())
				replicas[step%2].Touch(kubetest.ID(1), instance.SourceHTTP)
			}
			time.Sleep(flushTick / 2)
			pod, err := server.StoredPod(instance.PodName(kubetest.ID(1)))
			if err != nil {
				t.Fatal(err)
			}
			for len(used) > 1 && time.Since(used[1]) >= 2*flushTick { // before that it may be under way
				used = used[1:]
			}
			if last, _ := instance.LastActivity(pod); used[0].Sub(last) > flushPeriod(time.Hour) {
				t.Fatalf("after %s the annotation is %s behind", time.Since(began), used[0].Sub(last))
			}
			if version != "" && pod.ResourceVersion != version {
				if gap := time.Since(written); gap < flushPeriod(time.Hour)-flushTick {
					t.Errorf("after %s: %s between two writes", time.Since(began), gap)
				}
				written = time.Now()
			}
			version = pod.ResourceVersion
		}
		if written.IsZero() {
			t.Error("it was never written")
		}
	})
}

// An instance that was used after a long silence is written at once, whoever
// wrote last: the culler may be about to look.
func TestActivityAfterASilenceIsWrittenAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startCluster(t, time.Now, kubetest.Pod(kubetest.ID(1), time.Now()))
		activity, _ := newTestActivity(c)
		defer activity.start()()
		time.Sleep(6 * time.Minute)
		activity.Touch(kubetest.ID(1), instance.SourceHTTP)
		time.Sleep(2 * flushTick) // and this replica has seen a write
		c.put(t, kubetest.Pod(kubetest.ID(1), time.Now(), kubetest.LastUsed(time.Now().Add(6*time.Minute))))
		time.Sleep(time.Hour)
		before := len(c.Writes())
		activity.Touch(kubetest.ID(1), instance.SourceWebSocket)
		time.Sleep(2 * flushTick)
		synctest.Wait()
		if got := len(c.Writes()) - before; got != 1 {
			t.Errorf("there were %d writes, want one at once", got)
		}
		if pod, _ := c.Pod(kubetest.ID(1)); pod.Annotations[instance.ActivitySourceAnnotation] != "websocket" {
			t.Errorf("the pod says %v", pod.Annotations)
		}
	})
}

// While the API server is away, what cannot be read is neither logged nor counted
// at each attempt, but once it is mended.
func TestActivityUnreadableIsToldOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startCluster(t, time.Now, kubetest.Pod(kubetest.ID(1), time.Now(), kubetest.WithAnnotation(instance.LastActivityAnnotation, "mangled")))
		activity, log := newTestActivity(c)
		mend := c.FailOn("patch", "pods", errors.New("the API server is away"))
		stop := activity.start()
		activity.Touch(kubetest.ID(1), instance.SourceHTTP)
		time.Sleep(10*flushTick + flushTick/2)
		if got := metric(t, activity.metrics, "binder_activity_unreadable_total"); got != 0 || strings.Contains(log.String(), "unreadable") {
			t.Errorf("counted before it is mended are %v; the log is\n%s", got, log)
		}
		mend()
		time.Sleep(10 * flushTick)
		stop()
		if got := metric(t, activity.metrics, "binder_activity_unreadable_total"); got != 1 {
			t.Errorf("counted are %v, want 1", got)
		}
		if got := strings.Count(log.String(), "last activity unreadable, was written anew"); got != 1 {
			t.Errorf("said %d times, want once:\n%s", got, log)
		}
	})
}

// Nothing is held of instances that have come, been used, and gone.
func TestActivityHoldsNothingOfWhatIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startCluster(t, time.Now)
		activity, _ := newTestActivity(c)
		defer activity.start()()
		for n := range 200 {
			c.put(t, kubetest.Pod(kubetest.ID(n), time.Now(), func(pod *corev1.Pod) {
				if n%3 == 0 { // of these the use is never due
					kubetest.WithAnnotation(instance.CullTimeoutAnnotation, "100h")(pod)
				}
			}))
			activity.Touch(kubetest.ID(n), instance.SourceHTTP)
			time.Sleep(6 * time.Minute)
			activity.Touch(kubetest.ID(n), instance.SourceHTTP)
			time.Sleep(2 * flushTick)
			c.drop(t, kubetest.ID(n))
		}
		if got := len(c.Writes()); got < 100 {
			t.Errorf("only %d writes: nothing was to be held", got)
		}
		time.Sleep(2 * flushTick)
		synctest.Wait()
		activity.mu.Lock()
		defer activity.mu.Unlock()
		if len(activity.last) > 0 || len(activity.own) > 0 {
			t.Errorf("held are %v and %v", activity.last, activity.own)
		}
	})
}
