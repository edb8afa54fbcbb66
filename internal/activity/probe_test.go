package activity

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
)

func TestJudgeAnswer(t *testing.T) {
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
		{"as late as the pod says", `[{"last_activity":"2026-01-02T11:00:00Z"}]`, ProbeIdle, time.Time{}},
		{"later by less than can be written", `[{"last_activity":"2026-01-02T11:00:00.000999Z"}]`, ProbeIdle, time.Time{}},
		{"in the future", `[{"last_activity":"2999-01-01T00:00:00Z"}]`, ProbeActive, kubetest.Noon},
		{"busy as a word elsewhere", `{"name":"busy","execution_state":"idle"}`, ProbeIdle, time.Time{}},
		{"busy as a key", `{"busy":"execution_state"}`, ProbeIdle, time.Time{}},
		{"another type", `{"execution_state":{"state":"busy"},"last_activity":1767351600}`, ProbeIdle, time.Time{}},
		{"not RFC 3339", `{"last_activity":"2026-01-02 11:30:00"}`, ProbeIdle, time.Time{}},
		{"null", `null`, ProbeIdle, time.Time{}},
		{"nothing", ``, ProbeBadAnswer, time.Time{}},
		{"a page", `<html>execution_state: "busy"</html>`, ProbeBadAnswer, time.Time{}},
		{"cut off", `[{"execution_state":"busy"}`, ProbeBadAnswer, time.Time{}},
		{"two values", `{"execution_state":"busy"} {}`, ProbeBadAnswer, time.Time{}},
		{"deep", strings.Repeat("[", 500000), ProbeBadAnswer, time.Time{}},
	} {
		if got, active := judgeAnswer([]byte(row.body), last, kubetest.Noon); got != row.want || !active.Equal(row.active) {
			t.Errorf("%s: got %s, %s; want %s, %s", row.name, got, active, row.want, row.active)
		}
	}
}

// probe asks an application with this handler, in a pod that was last used two hours
// before noon, at noon.
func probe(t testing.TB, h http.HandlerFunc, changes ...func(*corev1.Pod)) (result ProbeResult, active time.Time, asked bool) {
	t.Helper()
	application := httptest.NewServer(h)
	defer application.Close()
	host, port, err := net.SplitHostPort(application.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	changes = append([]func(*corev1.Pod){
		kubetest.WithAnnotation(instance.ActivityProbeAnnotation, "api/kernels"), kubetest.WithAnnotation(instance.PortAnnotation, port),
		func(pod *corev1.Pod) { pod.Status.PodIP = host },
	}, changes...)
	return Probe(t.Context(), podUsed(1, 2*time.Hour, kubetest.Noon, changes...), rules, kubetest.ClockAt(kubetest.Noon))
}

func answer(body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(body)) }
}

func TestProbe(t *testing.T) {
	t.Parallel()
	never := func(http.ResponseWriter, *http.Request) { t.Error("it was asked") }
	elsewhere := httptest.NewServer(http.HandlerFunc(never))
	t.Cleanup(elsewhere.Close)
	const busy = `{"execution_state":"busy"}`
	probeAt, portAt := instance.ActivityProbeAnnotation, instance.PortAnnotation
	same := func(*corev1.Pod) {}
	for _, row := range []struct {
		name   string
		h      http.HandlerFunc
		change func(*corev1.Pod)
		want   ProbeResult // "" if it must not be asked
		active time.Time
	}{
		{"busy", answer(busy), same, ProbeBusy, kubetest.Noon},
		{"busy, in a MiB", answer(busy + strings.Repeat(" ", 1<<20-len(busy))), same, ProbeBusy, kubetest.Noon},
		{"used since", answer(`[{"last_activity":"2026-01-02T11:59:00.5Z"}]`), same, ProbeActive, kubetest.Noon.Add(-59500 * time.Millisecond)},
		{"used since, but idle for the cull timeout", answer(`[{"last_activity":"2026-01-02T10:30:00Z"}]`), same, ProbeIdle, time.Time{}},
		{"idle", answer(`[]`), same, ProbeIdle, time.Time{}},
		{"nonsense", answer("busy"), same, ProbeBadAnswer, time.Time{}},
		{"too large", answer(busy + strings.Repeat(" ", 1<<20+1-len(busy))), same, ProbeBadAnswer, time.Time{}},
		{"an error", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, busy, http.StatusForbidden) }, same, ProbeBadAnswer, time.Time{}},
		{"a redirect", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, elsewhere.URL, http.StatusFound) }, same, ProbeBadAnswer, time.Time{}},
		{"broken off", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1000")
			_, _ = w.Write([]byte(busy))
		}, same, ProbeNoAnswer, time.Time{}},
		{"nobody listens", never, kubetest.WithAnnotation(portAt, "1"), ProbeNoAnswer, time.Time{}},
		{"not a port", never, kubetest.WithAnnotation(portAt, "80@127.0.0.1:81"), ProbeNoAnswer, time.Time{}},
		{"no address", never, func(pod *corev1.Pod) { pod.Status.PodIP = "" }, ProbeNoAnswer, time.Time{}},
		{"no probe", never, func(pod *corev1.Pod) { delete(pod.Annotations, probeAt) }, "", time.Time{}},
		{"a probe of another host", never, kubetest.WithAnnotation(probeAt, elsewhere.URL), "", time.Time{}},
		{"a probe outside the base URL", never, kubetest.WithAnnotation(probeAt, "../x"), "", time.Time{}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			got, active, asked := probe(t, row.h, row.change)
			if got != row.want || !active.Equal(row.active) || asked != (row.want != "") {
				t.Errorf("got %q, %s, %t; want %q, %s", got, active, asked, row.want, row.active)
			}
		})
	}
}

// An application that misses requests is asked again, but holds the culler up no longer
// than the time limits of all of them.
func TestProbeOfASlowApplication(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		misses int64
		want   ProbeResult
	}{{1, ProbeBusy}, {probeAttempts - 1, ProbeBusy}, {probeAttempts, ProbeNoAnswer}} {
		t.Run(fmt.Sprint(row.misses, " missed"), func(t *testing.T) {
			t.Parallel()
			var asked atomic.Int64
			began := time.Now()
			got, _, _ := probe(t, func(w http.ResponseWriter, r *http.Request) {
				if asked.Add(1) > row.misses {
					answer(`{"execution_state":"busy"}`)(w, r)
					return
				}
				_, _ = w.Write([]byte("["))
				_ = http.NewResponseController(w).Flush()
				<-r.Context().Done()
			})
			const most = probeAttempts*probeTimeout + (probeAttempts-1)*probePause
			if took := time.Since(began); got != row.want || took > most+5*time.Second {
				t.Errorf("got %s after %s, want %s", got, took, row.want)
			}
			if want := min(row.misses+1, probeAttempts); asked.Load() != want {
				t.Errorf("asked %d times, want %d", asked.Load(), want)
			}
		})
	}
}

func TestProbeAsks(t *testing.T) {
	base := instance.BaseURL(kubetest.ID(1))
	for _, row := range []struct{ probe, strip, want string }{
		{"api/kernels", "false", base + "api/kernels"},
		{"api/kernels", "true", "/api/kernels"},
		{"a%2Fb%20c/?x=1&y", "false", base + "a%2Fb%20c/?x=1&y"},
	} {
		var asked string
		probe(t, func(_ http.ResponseWriter, r *http.Request) {
			asked = r.Method + " " + r.RequestURI + " " + r.Header.Get("X-Binder-Token")
		},
			kubetest.WithAnnotation(instance.TokenAnnotation, kubetest.Token),
			kubetest.WithAnnotation(instance.ActivityProbeAnnotation, row.probe), kubetest.WithAnnotation(instance.StripPrefixAnnotation, row.strip))
		if want := "GET " + row.want + " " + kubetest.Token; asked != want {
			t.Errorf("%s: asked %s, want %s", row.probe, asked, want)
		}
	}
}
