package main

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"

	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
)

// The keys are written out here, for they are what operators, dashboards and
// other versions of this service go by.
func TestInstanceFromPodReadsTheContract(t *testing.T) {
	const id = "84b8f9e8d573e73016fa2c14bad86a4d"
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name:              "binder-" + id,
			CreationTimestamp: metav1.NewTime(kubetest.Noon),
			Labels: map[string]string{
				"app.kubernetes.io/managed-by": "binder-deploy-kubernetes",
				"binder-project.org/id":        id,
				"binder-project.org/template":  "a-name-cut-short-12345678",
			},
			Annotations: map[string]string{
				"binder-project.org/template-name": "a/name",
				"binder-project.org/last-activity": "2026-01-02T12:00:00.000Z",
				"binder-project.org/cull-timeout":  "30m0s",
				"binder-project.org/port":          "8080",
				"binder-project.org/strip-prefix":  "true",
			},
		},
		Spec: corev1.PodSpec{NodeName: "node-1"},
		Status: corev1.PodStatus{
			Phase: corev1.PodRunning, PodIP: "10.0.0.7",
			Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}},
		},
	}
	want := instance.Instance{
		ID: id, Template: "a/name", Status: instance.StatusDeployed, Created: kubetest.Noon, Address: "10.0.0.7:8080", StripPrefix: true,
	}
	if got := instance.FromPod(pod, kubetest.Noon, kubetest.StartTimeout); got != want {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if got, err := instance.LastActivity(pod); err != nil || !got.Equal(kubetest.Noon) {
		t.Errorf("last activity is %s, %v; want %s", got, err, kubetest.Noon)
	}
	if got, want := instance.CullTimeout(pod, time.Hour), 30*time.Minute; got != want {
		t.Errorf("cull timeout is %s, want %s", got, want)
	}
	if got, want := instance.Selector().String(), "app.kubernetes.io/managed-by=binder-deploy-kubernetes"; got != want {
		t.Errorf("the selector is %q, want %q", got, want)
	}
}

func TestInstanceFromPodAddress(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(*corev1.Pod)
		want   string
	}{
		{"port of the annotation", kubetest.WithAnnotation(instance.PortAnnotation, "9000"), "10.0.0.7:9000"},
		{"port of a Binder image where there is none", func(p *corev1.Pod) { delete(p.Annotations, instance.PortAnnotation) }, "10.0.0.7:8888"},
		{"IPv6", func(p *corev1.Pod) { p.Status.PodIP = "fd00::7" }, "[fd00::7]:8888"},
		{"none before it listens", kubetest.Starting, ""},
		{"none once it is being deleted", kubetest.Deleting, ""},
		{"none once it has failed", kubetest.Broken, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			inst := instance.FromPod(kubetest.Pod(kubetest.ID(1), kubetest.Noon, test.change), kubetest.Noon, kubetest.StartTimeout)
			if inst.Address != test.want {
				t.Errorf("got address %q, want %q", inst.Address, test.want)
			}
		})
	}
}

func TestInstanceFromPodStripPrefix(t *testing.T) {
	for value, want := range map[string]bool{"true": true, "false": false, "": false, "yes": false} {
		pod := kubetest.Pod(kubetest.ID(1), kubetest.Noon, kubetest.WithAnnotation(instance.StripPrefixAnnotation, value))
		if got := instance.FromPod(pod, kubetest.Noon, kubetest.StartTimeout).StripPrefix; got != want {
			t.Errorf("strip-prefix %q: got %t, want %t", value, got, want)
		}
	}
}

func TestTombstoneRoundTrip(t *testing.T) {
	long := strings.Repeat("organisation/", 10) + "image:tag"
	for _, template := range []string{kubetest.TemplateName, "registry/with/slashes", long} {
		pod := kubetest.Pod(kubetest.ID(1), kubetest.Noon, kubetest.OfTemplate(template))
		got := instance.FromTombstone(kubetest.Tombstone(pod, instance.EndCulled, "not used for 1h5m"))
		want := instance.Instance{
			ID: kubetest.ID(1), Template: template, Status: instance.StatusDeleted, Created: kubetest.Noon,
			Reason: "Culled", Message: "not used for 1h5m", Ended: kubetest.Noon.Add(time.Hour),
		}
		if !got.Created.Equal(want.Created) || !got.Ended.Equal(want.Ended) {
			t.Errorf("template %q: from %s to %s, want %s to %s", template, got.Created, got.Ended, want.Created, want.Ended)
		}
		got.Created, got.Ended = want.Created, want.Ended // the same times in another zone
		if got != want {
			t.Errorf("template %q:\ngot  %+v\nwant %+v", template, got, want)
		}
	}
}

func TestTemplateOf(t *testing.T) {
	pod := kubetest.Pod(kubetest.ID(1), kubetest.Noon, kubetest.WithLabel(instance.TemplateLabel, "label"), kubetest.WithAnnotation(instance.TemplateNameAnnotation, "the/full/name"))
	if got, want := instance.TemplateOf(pod), "the/full/name"; got != want {
		t.Errorf("with both: got %q, want %q", got, want)
	}
	delete(pod.Annotations, instance.TemplateNameAnnotation)
	if got, want := instance.TemplateOf(pod), "label"; got != want {
		t.Errorf("with the label alone: got %q, want %q", got, want)
	}
}

func TestIsInstance(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(*corev1.Pod)
		want   bool
	}{
		{"an instance", func(*corev1.Pod) {}, true},
		{"no id", func(p *corev1.Pod) { delete(p.Labels, instance.IDLabel) }, false},
		{"an id that is none", kubetest.WithLabel(instance.IDLabel, "jupyter"), false},
		{"nobody's yet", kubetest.WithLabel(instance.PoolLabel, "warm"), false},
		{"pulls an image", kubetest.WithLabel(instance.PreloadLabel, "true"), false},
	} {
		if got := instance.IsInstance(kubetest.Pod(kubetest.ID(1), kubetest.Noon, test.change)); got != test.want {
			t.Errorf("%s: got %t, want %t", test.name, got, test.want)
		}
	}
}

func TestValidID(t *testing.T) {
	const id = "84b8f9e8d573e73016fa2c14bad86a4d"
	for s, want := range map[string]bool{
		id: true, "": false, id[1:]: false, id + "0": false, strings.ToUpper(id): false,
		"g" + id[1:]: false, id + "\n": false, "../" + id[3:]: false,
	} {
		if got := instance.ValidID(s); got != want {
			t.Errorf("validID(%q) is %t, want %t", s, got, want)
		}
	}
}

func TestAlive(t *testing.T) {
	alive := map[instance.Status]bool{instance.StatusPending: true, instance.StatusDeploying: true, instance.StatusDeployed: true}
	for _, status := range instance.Statuses() {
		if got := (instance.Instance{Status: status}).Alive(); got != alive[status] {
			t.Errorf("%s: got %t, want %t", status, got, alive[status])
		}
	}
}

func TestTemplateLabelValue(t *testing.T) {
	most := strings.Repeat("a", validation.LabelValueMaxLength)
	for _, test := range []struct{ name, want string }{
		{"jupyter", "jupyter"},
		{"Jupyter_3.1-base", "Jupyter_3.1-base"},
		{most, most},
		{most + "a", most[:54] + "-ffe054fe"},
		{"org/image:tag", "org-image-tag-84d40163"},
		{"-dashed-", "dashed-4c3f31a0"},
		{"ünïcode", "n-code-b8be8967"},
		{"///", "732c4e97"},
	} {
		if got := instance.TemplateLabelValue(test.name); got != test.want {
			t.Errorf("templateLabelValue(%q) is %q, want %q", test.name, got, test.want)
		}
	}
}

// Whatever a template is called, its label is valid and its own.
func FuzzTemplateLabelValue(f *testing.F) {
	for _, name := range []string{"", "jupyter", "a/b", "a:b", "a b", "-", "é", "\xff", strings.Repeat("é", 100), strings.Repeat("-", 64), strings.Repeat("a-", 50)} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		got := instance.TemplateLabelValue(name)
		if problems := validation.IsValidLabelValue(got); len(problems) > 0 {
			t.Errorf("%q gives %q: %s", name, got, problems)
		}
		if other := instance.TemplateLabelValue(name + "/"); other == got {
			t.Errorf("%q and %q both give %q", name, name+"/", got)
		}
	})
}

func TestLastActivity(t *testing.T) {
	for _, test := range []struct {
		value string
		want  time.Time
	}{
		{"2026-01-02T12:00:00Z", kubetest.Noon},
		{"2026-01-02T12:00:00.250Z", kubetest.Noon.Add(250 * time.Millisecond)},
		{"2026-01-02T13:00:00+01:00", kubetest.Noon},
	} {
		got, err := instance.LastActivity(kubetest.Pod(kubetest.ID(1), kubetest.Noon, kubetest.WithAnnotation(instance.LastActivityAnnotation, test.value)))
		if err != nil || !got.Equal(test.want) {
			t.Errorf("%q: got %s, %v; want %s", test.value, got, err, test.want)
		}
	}
}

// An unreadable annotation is an error that names it, and no time at all.
func TestLastActivityUnreadable(t *testing.T) {
	pods := map[string]*corev1.Pod{
		"missing": kubetest.Pod(kubetest.ID(1), kubetest.Noon, func(p *corev1.Pod) { delete(p.Annotations, instance.LastActivityAnnotation) }),
	}
	for _, value := range []string{"", "yesterday", "1767355200", "2026-01-02", "2026-13-02T12:00:00Z"} {
		pods[value] = kubetest.Pod(kubetest.ID(1), kubetest.Noon, kubetest.WithAnnotation(instance.LastActivityAnnotation, value))
	}
	for value, pod := range pods {
		got, err := instance.LastActivity(pod)
		if err == nil || !strings.Contains(err.Error(), "binder-project.org/last-activity") {
			t.Errorf("%q: got %s and error %v, want an error that names the annotation", value, got, err)
		}
	}
}

func TestFormatActivity(t *testing.T) {
	at := kubetest.Noon.Add(1234567 * time.Nanosecond).In(time.FixedZone("east", 3600))
	if got, want := instance.FormatTime(at), "2026-01-02T12:00:00.001Z"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestCullTimeout(t *testing.T) {
	for value, want := range map[string]time.Duration{
		"30m": 30 * time.Minute, "1.5s": 1500 * time.Millisecond, // readable
		"": time.Hour, "soon": time.Hour, "0s": time.Hour, "-5m": time.Hour, "3600": time.Hour, // not
	} {
		if got := instance.CullTimeout(kubetest.Pod(kubetest.ID(1), kubetest.Noon, kubetest.WithAnnotation(instance.CullTimeoutAnnotation, value)), time.Hour); got != want {
			t.Errorf("%q: got %s, want %s", value, got, want)
		}
	}
}
