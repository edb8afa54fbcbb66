package tombstone_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
	"github.com/binder-project/binder-deploy-kubernetes/internal/tombstone"
)

// courtesy is how long a delete may wait for its tombstone.
const courtesy = 5 * time.Second

// answer is what an API server says to a request; nil is silence.
type answer *metav1.Status

func says(code int32, reason metav1.StatusReason, message string) answer {
	return &metav1.Status{Status: metav1.StatusFailure, Code: code, Reason: reason, Message: message}
}

// apiServer deletes pods, and answers each write of an Event, and each dry run, as told.
type apiServer struct {
	events  []answer // the last one is repeated
	broken  bool     // connections break off instead
	dryRun  answer
	tried   int             // writes of Events
	written []*corev1.Event // Events that were written
	deleted int             // pods
	metrics int             // tombstones counted as not written
	log     *kubetest.LogBuffer
}

func (s *apiServer) TombstoneFailed() { s.metrics++ }

func (s *apiServer) remover(t testing.TB) *tombstone.Remover {
	t.Helper()
	client, err := kubernetes.NewForConfig(&rest.Config{
		Host: "http://kubernetes", Transport: s, QPS: -1, ContentConfig: rest.ContentConfig{ContentType: "application/json"},
	})
	if err != nil {
		t.Fatal(err)
	}
	log, lines := kubetest.RecordLog()
	s.log = lines
	return &tombstone.Remover{Client: client, Namespace: kubetest.Namespace, Now: time.Now, Log: log, Metrics: s}
}

func (s *apiServer) RoundTrip(r *http.Request) (*http.Response, error) {
	var body []byte
	if r.Body != nil {
		body, _ = io.ReadAll(r.Body)
	}
	success := &metav1.Status{Status: metav1.StatusSuccess, Code: http.StatusOK}
	switch {
	case r.Method == http.MethodDelete && strings.Contains(string(body), "dryRun"):
		if s.dryRun != nil {
			return reply(r, s.dryRun), nil
		}
	case r.Method == http.MethodDelete:
		s.deleted++
	default:
		event := &corev1.Event{}
		if err := json.Unmarshal(body, event); err != nil {
			return nil, err
		}
		return s.answerEvent(r, event)
	}
	return reply(r, success), nil
}

func (s *apiServer) answerEvent(r *http.Request, event *corev1.Event) (*http.Response, error) {
	now := s.events[min(s.tried, len(s.events)-1)]
	s.tried++
	switch {
	case s.broken:
		return nil, errors.New("connection reset by peer")
	case now == nil:
		<-r.Context().Done()
		return nil, r.Context().Err()
	case now.Code == http.StatusOK:
		s.written = append(s.written, event)
		return reply(r, event), nil
	}
	return reply(r, (*metav1.Status)(now)), nil
}

// reply is an answer in JSON.
func reply(r *http.Request, object any) *http.Response {
	code := http.StatusOK
	header := http.Header{"Content-Type": {"application/json"}}
	if status, ok := object.(answer); ok {
		object = (*metav1.Status)(status)
	}
	if status, ok := object.(*metav1.Status); ok {
		code = int(status.Code)
		if status.Details != nil {
			header.Set("Retry-After", strconv.Itoa(int(status.Details.RetryAfterSeconds)))
		}
	}
	body, err := json.Marshal(object)
	if err != nil {
		panic(err)
	}
	return &http.Response{StatusCode: code, Header: header, Body: io.NopCloser(strings.NewReader(string(body))), Request: r}
}

// TestTombstoneIsRefused has each way in which the API server can refuse a tombstone, or be
// silent about it. The pod is deleted all the same, soon; that is logged and counted once;
// and a later try says why the instance ended.
func TestTombstoneIsRefused(t *testing.T) {
	var silence answer
	busy := says(http.StatusTooManyRequests, metav1.StatusReasonTooManyRequests, "too many requests")
	waits := says(http.StatusTooManyRequests, metav1.StatusReasonTooManyRequests, "please wait")
	waits.Details = &metav1.StatusDetails{RetryAfterSeconds: 3600}
	for name, test := range map[string]struct {
		answer answer
		broken bool
		tries  int // 0 for any number
	}{
		"no right":              {says(403, metav1.StatusReasonForbidden, "events is forbidden"), false, 1},
		"a quota":               {says(403, metav1.StatusReasonForbidden, "exceeded quota: events"), false, 1},
		"a webhook denies it":   {says(400, "", "admission webhook denied the request"), false, 1},
		"the namespace ends":    {says(403, metav1.StatusReasonForbidden, "because it is being terminated"), false, 1},
		"no namespace":          {says(404, metav1.StatusReasonNotFound, "namespaces not found"), false, 1},
		"conflict":              {says(409, metav1.StatusReasonConflict, "modified"), false, 1},
		"too large":             {says(413, metav1.StatusReasonRequestEntityTooLarge, "too large"), false, 1},
		"invalid":               {says(422, metav1.StatusReasonInvalid, "invalid"), false, 1},
		"not authenticated":     {says(401, metav1.StatusReasonUnauthorized, "token expired"), false, 1},
		"too many requests":     {busy, false, 3},
		"wait for an hour":      {waits, false, 0}, // client-go tries again
		"etcd is full":          {says(500, metav1.StatusReasonInternalError, "etcdserver: mvcc: database space exceeded"), false, 3},
		"a webhook fails":       {says(500, metav1.StatusReasonInternalError, "failed calling webhook"), false, 3},
		"unavailable":           {says(503, metav1.StatusReasonServiceUnavailable, "unavailable"), false, 3},
		"timeout":               {says(504, metav1.StatusReasonTimeout, "timeout"), false, 3},
		"connections break off": {silence, true, 3},
		"silence":               {silence, false, 1},
	} {
		for kind, method := range map[string]func(*tombstone.Remover) func(context.Context, *corev1.Pod, instance.End) error{
			"stop": func(r *tombstone.Remover) func(context.Context, *corev1.Pod, instance.End) error { return r.Remove },
			"cull": func(r *tombstone.Remover) func(context.Context, *corev1.Pod, instance.End) error {
				return r.RemoveIfUnchanged
			},
		} {
			t.Run(kind+", "+name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					server := &apiServer{events: []answer{test.answer}, broken: test.broken}
					r, pod, began := server.remover(t), newPod(), time.Now()
					if err := method(r)(t.Context(), pod, instance.End{Reason: instance.EndCulled, Message: "not used"}); err != nil {
						t.Errorf("got error %v", err)
					}
					if took := time.Since(began); took > courtesy || server.deleted != 1 || test.tries > 0 && server.tried != test.tries {
						t.Errorf("after %s there were %d deletes and %d writes of the tombstone, want 1 and %d within %s", took, server.deleted, server.tried, test.tries, courtesy)
					}
					if lines := strings.Count(server.log.String(), "level=WARN"); lines != 1 || server.metrics != 1 {
						t.Errorf("%d warnings and %d counted, want 1 and 1:\n%s", lines, server.metrics, server.log)
					}
					// The pod is gone, and the API server takes Events again.
					server.events, server.broken = []answer{says(200, "", "")}, false
					if news, err := r.Remember(t.Context(), pod, instance.End{Reason: instance.EndGone, Message: "deleted from outside"}); err != nil || news {
						t.Errorf("got %v, %v, want false: the end was reported when the pod was deleted", news, err)
					}
					if len(server.written) != 1 || server.written[0].Reason != "Culled" || server.written[0].Message != "not used" {
						t.Errorf("remembered is %+v, want why it was culled", server.written)
					}
				})
			})
		}
	}
}

// An error that passes costs no tombstone.
func TestTombstoneErrorPasses(t *testing.T) {
	ok := says(200, "", "")
	for name, answers := range map[string][]answer{
		"once":  {says(500, metav1.StatusReasonInternalError, "leader changed"), ok},
		"twice": {says(503, "", "starting"), says(429, "", "busy"), ok},
	} {
		synctest.Test(t, func(t *testing.T) {
			server := &apiServer{events: answers}
			if err := server.remover(t).RemoveIfUnchanged(t.Context(), newPod(), instance.End{Reason: instance.EndCulled}); err != nil {
				t.Error(err)
			}
			if len(server.written) != 1 || server.deleted != 1 || server.metrics != 0 {
				t.Errorf("%s: %d tombstones, %d deletes, %d counted as not written", name, len(server.written), server.deleted, server.metrics)
			}
		})
	}
}

// While the API server is silent about Events, only now and then one is waited for.
func TestTombstonesOfManyAreNotAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const many = 25
		server := &apiServer{events: []answer{nil}}
		r, began := server.remover(t), time.Now()
		for range many {
			if err := r.Remove(t.Context(), newPod(), instance.End{Reason: instance.EndStopped}); err != nil {
				t.Error(err)
			}
		}
		if took := time.Since(began); took > courtesy+many*time.Second || server.deleted != many {
			t.Errorf("%d deletes took %s", server.deleted, took)
		}
	})
}

// A pod whose delete failed owes no tombstone.
func TestNothingIsOwedForAPodThatStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := &apiServer{events: []answer{says(403, metav1.StatusReasonForbidden, "no")}}
		r := server.remover(t)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := r.Remove(ctx, newPod(), instance.End{Reason: instance.EndCulled}); err == nil {
			t.Fatal("no error")
		}
		server.events = []answer{says(200, "", "")}
		if _, err := r.Remember(t.Context(), newPod(), instance.End{Reason: instance.EndGone}); err != nil || server.written[0].Reason != "Gone" {
			t.Errorf("got %v, %+v", err, server.written)
		}
	})
}

// An admission webhook on pods that knows no dry run keeps no pod.
func TestDryRunIsNotSupported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := &apiServer{
			events: []answer{says(200, "", "")},
			dryRun: says(400, metav1.StatusReasonBadRequest, `admission webhook "x" does not support dry run`),
		}
		if err := server.remover(t).RemoveIfUnchanged(t.Context(), newPod(), instance.End{Reason: instance.EndCulled}); err != nil || server.deleted != 1 {
			t.Errorf("got %d deletes, %v", server.deleted, err)
		}
	})
}
