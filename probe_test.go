package main

import (
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"

	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"

	"github.com/binder-project/binder-deploy-kubernetes/internal/metrics"
)

func mustURL(t testing.TB, address string) *url.URL {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func TestProbeVerdict(t *testing.T) {
	last := kubetest.Noon.Add(-time.Hour)
	for _, row := range []struct {
		name, body string
		want       ProbeResult
		active     time.Time
	}{
		{"no kernels", `[]`, ProbeIdle, time.Time{}},
		{"a kernel idle for long", `[{"execution_state":"idle","last_activity":"2026-01-02T10:00:00.000000Z"}]`, ProbeIdle, time.Time{}},
		{"a busy kernel", `[{"execution_state":"idle"},{"execution_state":"busy","last_activity":"2026-01-02T10:00:00Z"}]`, ProbeBusy, kubetest.Noon},
		{"busy somewhere", `{"a":[1,{"b":{"execution_state":"busy"}}]}`, ProbeBusy, kubetest.Noon},
		{"as a session", `[{"kernel":{"execution_state":"busy"}}]`, ProbeBusy, kubetest.Noon},
		{"used later", `[{"last_activity":"2026-01-02T11:00:00.001000Z"}]`, ProbeActive, last.Add(time.Millisecond)},
		{"used later, in another zone", `[{"last_activity":"2026-01-02T13:30:00+02:00"}]`, ProbeActive, kubetest.Noon.Add(-30 * time.Minute)},
		{"the latest of several", `[{"last_activity":"2026-01-02T11:20:00Z"},{"last_activity":"2026-01-02T11:40:00Z"},{"last_activity":"2026-01-02T11:30:00Z"}]`, ProbeActive, kubetest.Noon.Add(-20 * time.Minute)},
		{"as late as we know", `[{"last_activity":"2026-01-02T11:00:00Z"}]`, ProbeIdle, time.Time{}},
		{"later by less than is written", `[{"last_activity":"2026-01-02T11:00:00.000999Z"}]`, ProbeIdle, time.Time{}},
		{"in the future", `[{"last_activity":"2999-01-01T00:00:00Z"}]`, ProbeActive, kubetest.Noon},
		{"busy as a word elsewhere", `{"name":"busy","execution_state":"idle"}`, ProbeIdle, time.Time{}},
		{"busy as a key", `{"busy":"execution_state"}`, ProbeIdle, time.Time{}},
		{"another type", `{"execution_state":{"state":"busy"},"last_activity":1767351600}`, ProbeIdle, time.Time{}},
		{"no RFC 3339", `{"last_activity":"2026-01-02 11:30:00"}`, ProbeIdle, time.Time{}},
		{"null", `null`, ProbeIdle, time.Time{}},
		{"nothing", ``, ProbeBadAnswer, time.Time{}},
		{"a page", `<html>execution_state: "busy"</html>`, ProbeBadAnswer, time.Time{}},
		{"cut off", `[{"execution_state":"busy"}`, ProbeBadAnswer, time.Time{}},
		{"two values", `{"execution_state":"busy"} {}`, ProbeBadAnswer, time.Time{}},
		{"deep", strings.Repeat("[", 500000), ProbeBadAnswer, time.Time{}},
	} {
		if got, active := probeVerdict([]byte(row.body), last, kubetest.Noon); got != row.want || !active.Equal(row.active) {
			t.Errorf("%s: got %s, %s; want %s, %s", row.name, got, active, row.want, row.active)
		}
	}
}

func TestParseProbePath(t *testing.T) {
	for _, value := range []string{"api/kernels", "api/kernels/", "status", "a%20b", "api/sessions?x=1"} {
		if _, err := instance.ParseProbePath(value); err != nil {
			t.Errorf("%q: got error %v", value, err)
		}
	}
	for _, value := range []string{
		"", "/", "/api/kernels", "//10.0.0.1/x", "http://10.0.0.1/x", "http:x", "..", "../x", "a/../../x", "%2e%2e/x", "a//b", "a/./b",
		"?x=1", "a#b", "%zz", "a\nb", strings.Repeat("a", instance.MaxProbePath+1),
	} {
		if u, err := instance.ParseProbePath(value); err == nil {
			t.Errorf("%.40q: got %v, want an error", value, u)
		}
	}
}

// probed is a pod that was last used two hours before noon, in which h answers.
func probed(t testing.TB, h http.HandlerFunc, changes ...func(*corev1.Pod)) *corev1.Pod {
	t.Helper()
	application := httptest.NewServer(h)
	t.Cleanup(application.Close)
	host, port, err := net.SplitHostPort(application.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	pod := ago(1, 2*time.Hour, append([]func(*corev1.Pod){
		kubetest.WithAnnotation(instance.ActivityProbeAnnotation, "api/kernels"), kubetest.WithAnnotation(instance.PortAnnotation, port),
	}, changes...)...)
	pod.Status.PodIP = host
	return pod
}

func answer(body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(body)) }
}

// sweepProbed lets a culler with a probed pod look at it once.
func sweepProbed(t testing.TB, pod *corev1.Pod, want ProbeResult) (*testCluster, testCuller) {
	t.Helper()
	c := startCluster(t, kubetest.ClockAt(kubetest.Noon), pod)
	culler := newTestCuller(t, c)
	culler.sweep(t.Context(), kubetest.Noon, culler.policy)
	wantOnlyOne(t, culler.metrics, "binder_activity_probes_total", string(want))
	return c, culler
}

func TestWorkIsNotCulled(t *testing.T) {
	for _, row := range []struct {
		name, body string
		result     ProbeResult
		written    time.Time
	}{
		{"busy", `[{"execution_state":"busy"}]`, ProbeBusy, kubetest.Noon},
		{"used since", `[{"last_activity":"2026-01-02T11:59:00.5Z"}]`, ProbeActive, kubetest.Noon.Add(-59500 * time.Millisecond)},
		{"in the future", `[{"last_activity":"2999-01-01T00:00:00Z"}]`, ProbeActive, kubetest.Noon},
		{"busy, in a MiB", `[{"execution_state":"busy"}]` + strings.Repeat(" ", 1<<20-28), ProbeBusy, kubetest.Noon},
	} {
		pod := probed(t, answer(row.body))
		c, culler := sweepProbed(t, pod, row.result)
		writes := c.Writes()
		if len(writes) != 1 {
			t.Fatalf("%s: the writes are %v, want one of its activity", row.name, writes)
		}
		wantActivityPatch(t, writes[0], pod, row.written, instance.SourceProbe)
		culler.wantCounts(t, nil, 0, 0)
	}
}

// However busy, it ends at its max age.
func TestWorkEndsAtItsMaxAge(t *testing.T) {
	pod := probed(t, answer(`[{"execution_state":"busy"}]`), kubetest.WithAnnotation(instance.MaxAgeAnnotation, "1h"), kubetest.WithAnnotation(instance.CullTimeoutAnnotation, "1m"),
		kubetest.LastUsed(kubetest.Noon))
	c := startCluster(t, kubetest.ClockAt(kubetest.Noon), pod)
	culler := newTestCuller(t, c)
	culler.sweep(t.Context(), kubetest.Noon, culler.policy)
	culler.wantCounts(t, map[instance.EndReason]float64{instance.EndExpired: 1}, 0, 0)
}

// Work that was over for the cull timeout is idleness as well.
func TestOldWorkIsNoReprieve(t *testing.T) {
	_, culler := sweepProbed(t, probed(t, answer(`[{"last_activity":"2026-01-02T10:30:00Z"}]`)), ProbeIdle)
	culler.wantCounts(t, map[instance.EndReason]float64{instance.EndCulled: 1}, 0, 0)
}

func TestNoReprieve(t *testing.T) {
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("the redirect was followed") }))
	defer elsewhere.Close()
	busy := `{"execution_state":"busy"}`
	for _, row := range []struct {
		name   string
		h      http.HandlerFunc
		change func(*corev1.Pod)
		want   ProbeResult
	}{
		{"idle", answer(`[]`), changes(), ProbeIdle},
		{"nonsense", answer("busy"), changes(), ProbeBadAnswer},
		{"too large", answer(busy + strings.Repeat(" ", 1<<20+1-len(busy))), changes(), ProbeBadAnswer},
		{"an error", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, busy, http.StatusForbidden) }, changes(), ProbeBadAnswer},
		{"a redirect", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, elsewhere.URL, http.StatusFound) }, changes(), ProbeBadAnswer},
		{"broken off", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1000")
			_, _ = w.Write([]byte(busy))
		}, changes(), ProbeNoAnswer},
		{"nobody listens", answer(busy), kubetest.WithAnnotation(instance.PortAnnotation, "1"), ProbeNoAnswer},
		{"a port that is none", answer(busy), kubetest.WithAnnotation(instance.PortAnnotation, "80@127.0.0.1:81"), ProbeNoAnswer},
	} {
		_, culler := sweepProbed(t, probed(t, row.h, row.change), row.want)
		culler.wantCounts(t, map[instance.EndReason]float64{instance.EndCulled: 1}, 0, 0)
	}
}

// Who does not answer holds the culler up for no longer than the timeout.
func TestProbeTimesOut(t *testing.T) {
	ended := make(chan struct{})
	defer close(ended)
	pod := probed(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write([]byte("["))
		_ = http.NewResponseController(w).Flush()
		select {
		case <-r.Context().Done():
		case <-ended:
		}
	})
	began := time.Now()
	sweepProbed(t, pod, ProbeNoAnswer)
	if took := time.Since(began); took < 2*time.Second || took > 7*time.Second {
		t.Errorf("it took %s", took)
	}
}

func TestProbeAsks(t *testing.T) {
	for _, row := range []struct {
		probe string
		strip string
		want  string
	}{
		{"api/kernels", "false", instance.BaseURL(kubetest.ID(1)) + "api/kernels"},
		{"api/kernels", "true", "/api/kernels"},
		{"a%2Fb%20c/?x=1&y", "false", instance.BaseURL(kubetest.ID(1)) + "a%2Fb%20c/?x=1&y"},
	} {
		asked := make(chan string, 1)
		pod := probed(t, func(w http.ResponseWriter, r *http.Request) { asked <- r.Method + " " + r.RequestURI },
			kubetest.WithAnnotation(instance.ActivityProbeAnnotation, row.probe), kubetest.WithAnnotation(instance.StripPrefixAnnotation, row.strip))
		sweepProbed(t, pod, ProbeBadAnswer)
		if got := receive(t, asked); got != "GET "+row.want {
			t.Errorf("%s: asked %s, want GET %s", row.probe, got, row.want)
		}
	}
}

// Only what would be culled is asked, and only where its template says how.
func TestWhatIsNotAsked(t *testing.T) {
	never := func(http.ResponseWriter, *http.Request) { t.Error("it was asked") }
	for name, change := range map[string]func(*corev1.Pod){
		"in use":       kubetest.LastUsed(kubetest.Noon.Add(-time.Minute)),
		"broken":       kubetest.Broken,
		"completed":    kubetest.Completed,
		"no probe":     func(pod *corev1.Pod) { delete(pod.Annotations, instance.ActivityProbeAnnotation) },
		"a bad probe":  kubetest.WithAnnotation(instance.ActivityProbeAnnotation, "http://127.0.0.1/"),
		"another bad":  kubetest.WithAnnotation(instance.ActivityProbeAnnotation, "../x"),
		"being erased": kubetest.Deleting,
		"too old":      changes(kubetest.LastUsed(kubetest.Noon), kubetest.WithAnnotation(instance.MaxAgeAnnotation, "1h")),
	} {
		c := startCluster(t, kubetest.ClockAt(kubetest.Noon), probed(t, never, change))
		culler := newTestCuller(t, c)
		culler.sweep(t.Context(), kubetest.Noon, culler.policy)
		if got, want := scrape(t, culler.metrics, "binder_activity_probes"), scrape(t, metrics.New("test", metricValues()), "binder_activity_probes"); got != want {
			t.Errorf("%s: counted\n%s", name, got)
		}
	}
}

// What was found at work lives on, be it written or not.
func TestReprieveThatIsNotWritten(t *testing.T) {
	for _, row := range []struct {
		err    error
		logged bool
	}{{kubetest.Conflict(instance.PodName(kubetest.ID(1))), false}, {errors.New("the API server is away"), true}} {
		c := startCluster(t, kubetest.ClockAt(kubetest.Noon), probed(t, answer(`{"execution_state":"busy"}`)))
		culler := newTestCuller(t, c)
		c.FailOn("patch", "pods", row.err)
		culler.sweep(t.Context(), kubetest.Noon, culler.policy)
		culler.wantCounts(t, nil, 0, 0)
		if got := strings.Contains(culler.log.String(), "level=ERROR"); got != row.logged {
			t.Errorf("%v: logged is %t, want %t:\n%s", row.err, got, row.logged, culler.log)
		}
	}
}

// An application may be asked while the API server goes away: what others know of
// its use is not written then, and it is not ended.
func TestOutageWhileItIsAsked(t *testing.T) {
	cut := make(chan struct{})
	c := startCluster(t, kubetest.ClockAt(kubetest.Noon), probed(t, func(w http.ResponseWriter, _ *http.Request) {
		<-cut
		_, _ = w.Write([]byte("[]"))
	}))
	culler := newTestCuller(t, c)
	policy := culler.policy
	culler.contact.note(time.Now())
	pod, _ := c.Pod(kubetest.ID(1))
	go func() {
		defer close(cut)
		culler.contact.note(time.Now().Add(2 * contactGap)) // nothing was written between
	}()
	culler.end(t.Context(), pod, verdict{end, instance.EndCulled, "idle"}, policy)
	if writes := c.Writes(); len(writes) > 0 {
		t.Errorf("the writes are %v", writes)
	}
}
