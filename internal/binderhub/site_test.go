package binderhub

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
	"github.com/binder-project/binder-deploy-kubernetes/internal/launch"
	"github.com/binder-project/binder-deploy-kubernetes/internal/podtemplate"
	"github.com/binder-project/binder-deploy-kubernetes/internal/protocol"
)

// site is a BinderHub on a port of its own, and what is behind it. It launches pods that do
// not start by themselves.
type site struct {
	*kubetest.World
	t      *testing.T
	url    string
	other  string // the address of another replica
	hub    *BinderHub
	most   int // --max-instances
	sick   bool
	quotas []*corev1.ResourceQuota

	templatesFail error // what templates are not found for, if it is not nil

	drain     func()
	change    func(*Deps)
	mu        sync.Mutex
	refuse    error // what launches fail with, if it is not nil
	launching func()
	launched  []launch.Request
	keys      map[string]string // ids by template and key
}

func newSite(t *testing.T, allowOrigins ...string) *site {
	t.Helper()
	s := &site{t: t}
	s.open(t, allowOrigins)
	return s
}

// Count counts the pods whose ids are even as warm.
func (s *site) Count() (instances, warm int) {
	for _, inst := range s.Instances("") {
		if inst.ID[len(inst.ID)-1]%2 == 0 {
			warm++
		} else {
			instances++
		}
	}
	return instances, warm
}

func (s *site) open(t *testing.T, allowOrigins []string) {
	t.Helper()
	s.World = kubetest.NewWorld(time.Now, podtemplate.ErrUnknown,
		kubetest.Template("org-repo"),
		kubetest.Template("school-old", kubetest.WithTemplateAnnotation(instance.SpecsAnnotation, "gh/school/old 2026*")),
		kubetest.Template("course", kubetest.WithTemplateAnnotation(instance.SpecsAnnotation, "gh/school/course 2026*\ngit/https%3A%2F%2Fexample.com%2Fa.git")))
	draining, drain := context.WithCancel(context.Background())
	deps := Deps{
		Instances: s, Launcher: s, Templates: s, PodTemplates: s.PodTemplates, AllowOrigins: allowOrigins,
		Client: func(*http.Request) string { return "somebody" },
		Pods:   s, Quotas: func() []*corev1.ResourceQuota { return s.quotas }, MaxInstances: s.most,
		Refuse: func(w http.ResponseWriter, _ *http.Request, repository string, answer *protocol.Error) {
			http.Error(w, repository+": "+answer.Message, answer.Code)
		},
		Healthy: func() bool { return !s.sick }, Version: "1.2.3", Draining: draining, Log: kubetest.NoLog(),
	}
	if s.change != nil {
		s.change(&deps)
	}
	s.hub, s.keys, s.drain = New(deps), map[string]string{}, drain
	for _, url := range []*string{&s.url, &s.other} {
		server := httptest.NewServer(New(deps))
		t.Cleanup(server.Close)
		*url = server.URL
	}
	t.Cleanup(drain)
}

// NewKey returns a key of its own for each launch.
func (s *site) NewKey() (key string, made time.Time, err error) {
	key, err = instance.NewID(rand.Reader)
	return key, time.Now(), err
}

func (s *site) Launch(ctx context.Context, req launch.Request) (id string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := req.Template + "\x00" + req.IdempotencyKey
	if id, repeated := s.keys[key]; repeated {
		return id, nil
	}
	s.launched = append(s.launched, req)
	if s.refuse != nil {
		return "", s.refuse
	}
	id = kubetest.ID(len(s.launched))
	pod := kubetest.Pod(id, time.Now(), kubetest.OfTemplate(req.Template), kubetest.Unscheduled,
		kubetest.WithAnnotation(instance.TokenAnnotation, "the-token"), kubetest.WithAnnotation(instance.TokenHeaderAnnotation, "Authorization: token $(BINDER_TOKEN)"))
	s.PutPod(s.t, pod)
	if s.launching != nil {
		s.launching()
	}
	if ctx.Err() != nil && !req.Warm { // the API server has done it all the same
		return "", ctx.Err()
	}
	s.keys[key] = id
	return id, nil
}

func (s *site) Template(ctx context.Context, name string) (*corev1.PodTemplate, error) {
	if s.templatesFail != nil {
		return nil, s.templatesFail
	}
	return s.World.Template(ctx, name)
}

func (s *site) launches() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.launched)
}

// client reads a stream.
type client struct {
	*http.Response
	lines  *bufio.Reader
	lastID string
}

// ask sends a request for a repository. header has alternating names and values.
func (s *site) ask(t *testing.T, spec string, header ...string) *client {
	t.Helper()
	return askAt(t, s.url, spec, header...)
}

// askAt is ask at the address of a replica.
func askAt(t *testing.T, address, spec string, header ...string) *client {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, address+"/build/"+spec, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Accept", "text/event-stream")
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	response, err := http.DefaultTransport.RoundTrip(r) // it follows no redirect
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = response.Body.Close() })
	return &client{Response: response, lines: bufio.NewReader(response.Body)}
}

// next returns the data of the next event, as EventSource does.
func (c *client) next(t *testing.T) (data map[string]any) {
	t.Helper()
	text := ""
	for {
		line, err := c.lines.ReadString('\n')
		if err != nil {
			t.Fatalf("the stream has ended: %v", err)
		}
		line = strings.TrimSuffix(line, "\n")
		name, value, _ := strings.Cut(line, ": ")
		switch {
		case line == "" && text != "":
			if err := json.Unmarshal([]byte(text), &data); err != nil {
				t.Fatalf("%q: %v", text, err)
			}
			return data
		case name == "id":
			c.lastID = value
		case name == "data":
			text += value
		case name == "event":
			t.Fatalf("an event has the name %q: clients read messages only", value)
		}
	}
}

// start lets a pod reach its node, and serve lets its application listen.
func (s *site) start(t *testing.T, id string) { s.become(t, id, kubetest.Starting) }
func (s *site) serve(t *testing.T, id string) { s.become(t, id) }

func (s *site) become(t *testing.T, id string, changes ...func(*corev1.Pod)) {
	t.Helper()
	like := kubetest.Pod(id, time.Now(), changes...)
	s.ChangePod(t, instance.PodName(id), func(pod *corev1.Pod) { pod.Status, pod.Spec.NodeName = like.Status, like.Spec.NodeName })
}

func want(t *testing.T, event map[string]any, phase string, says ...string) {
	t.Helper()
	message, _ := event["message"].(string)
	if event["phase"] != phase {
		t.Fatalf("got %v, want the phase %s", event, phase)
	}
	for _, text := range says {
		if !strings.Contains(message, text) {
			t.Errorf("the message %q does not say %q", message, text)
		}
	}
}

func body(t *testing.T, response *http.Response) string {
	t.Helper()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
