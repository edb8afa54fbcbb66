package instance_test

import (
	"maps"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	. "github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
)

// The name is what `printf %s $id | sha256sum | cut -c1-32` prints, after "binder-".
const (
	anID   = "84b8f9e8d573e73016fa2c14bad86a4d"
	itsPod = "binder-2210a9e369c1372b7a8c250f2973ec9c"
)

// The keys are written out here, because operators, dashboards and other versions of
// this service rely on them.
func TestFromPodReadsTheContract(t *testing.T) {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name:              itsPod,
			CreationTimestamp: metav1.NewTime(kubetest.Noon),
			Labels: map[string]string{
				"app.kubernetes.io/managed-by": "binder-deploy-kubernetes",
				"binder-project.org/id":        anID,
				"binder-project.org/template":  "a-name-cut-short-12345678",
			},
			Annotations: map[string]string{
				"binder-project.org/template-name":    "a/name",
				"binder-project.org/last-activity":    "2026-01-02T12:00:00.000Z",
				"binder-project.org/port":             "8080",
				"binder-project.org/strip-prefix":     "true",
				"binder-project.org/idle-paths":       "api/status",
				"binder-project.org/idle-requests":    "POST /poll",
				"binder-project.org/heartbeat-frames": "4 ws/.*",
				"binder-project.org/launched":         "2026-01-02T13:00:00.000Z",
			},
		},
		Spec: corev1.PodSpec{NodeName: "node-1"},
		Status: corev1.PodStatus{
			Phase: corev1.PodRunning, PodIP: "10.0.0.7",
			Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}},
		},
	}
	want := Instance{
		ID: anID, Template: "a/name", Status: StatusDeployed, Created: kubetest.Noon, Launched: kubetest.Noon.Add(time.Hour), Address: "10.0.0.7:8080",
		StripPrefix: true, IdlePaths: "api/status", IdleRequests: "POST /poll", HeartbeatFrames: "4 ws/.*",
	}
	if got := FromPod(pod, nil, kubetest.Noon, kubetest.StartTimeout); got != want {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if got, err := LastActivity(pod); err != nil || !got.Equal(kubetest.Noon) {
		t.Errorf("last activity is %s, %v; want %s", got, err, kubetest.Noon)
	}
	if got, want := Selector().String(), "app.kubernetes.io/managed-by=binder-deploy-kubernetes"; got != want {
		t.Errorf("the selector is %q, want %q", got, want)
	}
	if got := PodName(anID); got != pod.Name {
		t.Errorf("the pod's name is %q, want %q", got, pod.Name)
	}
	if got, want := TombstoneName(anID), itsPod+".deleted"; got != want {
		t.Errorf("the tombstone's name is %q, want %q", got, want)
	}
	if got, want := BaseURL(anID), "/user/"+anID+"/"; got != want {
		t.Errorf("the base URL is %q, want %q", got, want)
	}
}

func TestLaunchAnnotations(t *testing.T) {
	at := kubetest.Noon.Add(1234567 * time.Nanosecond).In(time.FixedZone("east", 3600))
	want := map[string]string{
		"binder-project.org/launched":             "2026-01-02T12:00:00.001Z",
		"binder-project.org/last-activity":        "2026-01-02T12:00:00.001Z",
		"binder-project.org/last-activity-source": "launch",
	}
	if got := LaunchAnnotations(at, 0); !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	want["binder-project.org/cull-timeout"] = "30m0s"
	if got := LaunchAnnotations(at, 30*time.Minute); !maps.Equal(got, want) {
		t.Errorf("with a cull timeout: got %v, want %v", got, want)
	}
}

// An instance that was warm was launched after its creation. Its tombstone remembers that
// too.
func TestLaunched(t *testing.T) {
	later := kubetest.Noon.Add(time.Hour)
	for name, test := range map[string]struct {
		change func(*corev1.Pod)
		want   time.Time
	}{
		"launched later": {kubetest.LaunchedAt(later), later},
		"no annotation":  {kubetest.WithoutAnnotation(LaunchedAnnotation), kubetest.Noon},
		"unreadable":     {kubetest.WithAnnotation(LaunchedAnnotation, "at one"), kubetest.Noon},
		"empty":          {kubetest.WithAnnotation(LaunchedAnnotation, ""), kubetest.Noon},
	} {
		pod := kubetest.Pod(anID, kubetest.Noon, test.change)
		if got := FromPod(pod, nil, later, kubetest.StartTimeout).Launched; !got.Equal(test.want) {
			t.Errorf("%s: the pod says %s, want %s", name, got, test.want)
		}
		if got := FromTombstone(kubetest.Tombstone(pod, EndCulled, "")).Launched; !got.Equal(test.want) {
			t.Errorf("%s: the tombstone says %s, want %s", name, got, test.want)
		}
	}
}

func TestFromPodAddressAndPrefix(t *testing.T) {
	for _, test := range []struct {
		name    string
		change  func(*corev1.Pod)
		address string
		strip   bool
	}{
		{"port of the annotation", kubetest.WithAnnotation(PortAnnotation, "9000"), "10.0.0.7:9000", false},
		{"no port: that of Binder images", kubetest.WithoutAnnotation(PortAnnotation), "10.0.0.7:8888", false},
		{"IPv6", func(p *corev1.Pod) { p.Status.PodIP = "fd00::7" }, "[fd00::7]:8888", false},
		{"not listening yet", kubetest.Starting, "", false},
		{"being deleted", kubetest.Deleting, "", false},
		{"failed", kubetest.Broken, "", false},
		{"strip-prefix", kubetest.WithAnnotation(StripPrefixAnnotation, "true"), "10.0.0.7:8888", true},
		{"no strip-prefix", kubetest.WithAnnotation(StripPrefixAnnotation, "false"), "10.0.0.7:8888", false},
		{"invalid strip-prefix", kubetest.WithAnnotation(StripPrefixAnnotation, "yes"), "10.0.0.7:8888", false},
	} {
		inst := FromPod(kubetest.Pod(anID, kubetest.Noon, test.change), nil, kubetest.Noon, kubetest.StartTimeout)
		if inst.Address != test.address || inst.StripPrefix != test.strip {
			t.Errorf("%s: got address %q and %t, want %q and %t", test.name, inst.Address, inst.StripPrefix, test.address, test.strip)
		}
	}
}

func TestFromTombstone(t *testing.T) {
	for _, template := range []string{kubetest.TemplateName, "registry/with/slashes", strings.Repeat("organisation/", 10) + "image:tag"} {
		pod := kubetest.Pod(anID, kubetest.Noon, kubetest.OfTemplate(template))
		got := FromTombstone(kubetest.Tombstone(pod, EndCulled, "not used for 1h5m"))
		want := Instance{
			ID: anID, Template: template, Status: StatusDeleted, Created: kubetest.Noon, Launched: kubetest.Noon,
			Reason: "Culled", Message: "not used for 1h5m", Ended: kubetest.Noon.Add(time.Hour),
		}
		if got != want {
			t.Errorf("template %q:\ngot  %+v\nwant %+v", template, got, want)
		}
		delete(pod.Annotations, TemplateNameAnnotation)
		if got, want := TemplateOf(pod), TemplateLabelValue(template); got != want {
			t.Errorf("without the annotation: got template %q, want %q", got, want)
		}
	}
}

// A pod of this service is an instance, warm, a stray, or controlled by a DaemonSet.
func TestIsInstanceAndIsWarm(t *testing.T) {
	for _, test := range []struct {
		name           string
		change         func(*corev1.Pod)
		instance, warm bool
	}{
		{"an instance", kubetest.All(), true, false},
		{"no id", func(p *corev1.Pod) { delete(p.Labels, IDLabel) }, false, false},
		{"an invalid id", kubetest.WithLabel(IDLabel, "jupyter"), false, false},
		{"the id of another instance", kubetest.WithLabel(IDLabel, strings.Repeat("b", len(anID))), false, false},
		{"waits in the pool", kubetest.WithLabel(PoolLabel, "warm"), false, true},
		{"waits in the pool, with an invalid id", kubetest.All(kubetest.WithLabel(PoolLabel, "warm"), kubetest.WithLabel(IDLabel, "1")), false, false},
		{"waits in the pool, with the id of another instance", kubetest.All(kubetest.WithLabel(PoolLabel, "warm"), kubetest.WithLabel(IDLabel, strings.Repeat("b", len(anID)))), false, false},
		{"of an unknown state of the pool", kubetest.WithLabel(PoolLabel, "hot"), true, false},
		{"of another spelling", kubetest.WithLabel(PoolLabel, "Warm"), true, false},
		{"with an empty label of the pool", kubetest.WithLabel(PoolLabel, ""), true, false},
		{"with a label of a preload", kubetest.WithLabel(PreloadLabel, "true"), true, false},
		{"with an odd label of a preload", kubetest.WithLabel(PreloadLabel, "false"), true, false},
		{"with labels of both", kubetest.All(kubetest.WithLabel(PoolLabel, "hot"), kubetest.WithLabel(PreloadLabel, "true")), true, false},
		{"waits in the pool, with a label of a preload", kubetest.All(kubetest.WithLabel(PoolLabel, "warm"), kubetest.WithLabel(PreloadLabel, "true")), false, true},
		{"pulls an image", func(p *corev1.Pod) { p.Labels = map[string]string{PreloadLabel: "true", PreloadNameLabel: "x"} }, false, false},
	} {
		pod := kubetest.Pod(anID, kubetest.Noon, test.change)
		if isInstance, isWarm := IsInstance(pod), IsWarm(pod); isInstance != test.instance || isWarm != test.warm {
			t.Errorf("%s: instance %t, warm %t; want %t, %t", test.name, isInstance, isWarm, test.instance, test.warm)
		}
		if got, want := IsStray(pod), !test.instance && !test.warm; got != want {
			t.Errorf("%s: stray %t, want %t", test.name, got, want)
		}
		pod.OwnerReferences = []metav1.OwnerReference{{Kind: "DaemonSet", Name: "x", Controller: new(true)}}
		if IsStray(pod) {
			t.Errorf("%s: it is a stray with a controller", test.name)
		}
	}
}

func TestValidID(t *testing.T) {
	for s, want := range map[string]bool{
		anID: true, "": false, anID[1:]: false, anID + "0": false, strings.ToUpper(anID): false,
		"g" + anID[1:]: false, anID + "\n": false, "../" + anID[3:]: false,
	} {
		if got := ValidID(s); got != want {
			t.Errorf("ValidID(%q) is %t, want %t", s, got, want)
		}
	}
}

func TestNewID(t *testing.T) {
	id, err := NewID(strings.NewReader("\x00\x01\xfe\xff............"))
	if want := "0001feff2e2e2e2e2e2e2e2e2e2e2e2e"; id != want || err != nil || !ValidID(id) {
		t.Errorf("got %q, %v; want %q", id, err, want)
	}
	if id, err := NewID(strings.NewReader("too short")); err == nil {
		t.Errorf("got %q without enough random bytes, want an error", id)
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
		if got := TemplateLabelValue(test.name); got != test.want {
			t.Errorf("TemplateLabelValue(%q) is %q, want %q", test.name, got, test.want)
		}
	}
}

// Every template name has a valid label value, and two names have different ones.
func FuzzTemplateLabelValue(f *testing.F) {
	for _, name := range []string{"", "jupyter", "a/b", "a b", "-", "é", "\xff", strings.Repeat("é", 100), "._x/", strings.Repeat("-", 64), strings.Repeat("a-", 50)} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		got := TemplateLabelValue(name)
		if problems := validation.IsValidLabelValue(got); len(problems) > 0 {
			t.Errorf("%q gives %q: %s", name, got, problems)
		}
		if other := TemplateLabelValue(name + "/"); other == got {
			t.Errorf("%q and %q both give %q", name, name+"/", got)
		}
	})
}

func TestLastActivity(t *testing.T) {
	for value, want := range map[string]time.Time{
		"2026-01-02T12:00:00Z":      kubetest.Noon,
		"2026-01-02T12:00:00.250Z":  kubetest.Noon.Add(250 * time.Millisecond),
		"2026-01-02T13:00:00+01:00": kubetest.Noon,
	} {
		got, err := LastActivity(kubetest.Pod(anID, kubetest.Noon, kubetest.WithAnnotation(LastActivityAnnotation, value)))
		if err != nil || !got.Equal(want) {
			t.Errorf("%q: got %s, %v; want %s", value, got, err, want)
		}
	}
	changes := map[string]func(*corev1.Pod){"missing": kubetest.WithoutAnnotation(LastActivityAnnotation)}
	for _, value := range []string{"", "yesterday", "1767355200", "2026-01-02", "2026-13-02T12:00:00Z"} {
		changes[value] = kubetest.WithAnnotation(LastActivityAnnotation, value)
	}
	for value, change := range changes {
		got, err := LastActivity(kubetest.Pod(anID, kubetest.Noon, change))
		if err == nil || !strings.Contains(err.Error(), LastActivityAnnotation) {
			t.Errorf("%q: got %s, %v; want an error that names the annotation", value, got, err)
		}
	}
}
