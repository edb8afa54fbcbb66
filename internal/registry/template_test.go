package registry

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
	"github.com/binder-project/binder-deploy-kubernetes/internal/podtemplate"
)

func TestAnswerIsNoTemplate(t *testing.T) {
	for _, answer := range []string{
		``, `{`, `[]`, `[{"name": "p"}]`, `"p"`, `1`, `true`, `nul`, `<html>`, "\x00", `{"name": "p"} {"name": "p"}`, `{"name": "p"}x`,
		`{}`, `{"name": null}`, `{"name": 1}`, `{"name": "q"}`, `{"name": "P"}`,
		`{"type": "registryError", "error": "no such template"}`, `{"name": "` + strings.Repeat("q", 1<<20) + `"}`,
		`{"name": "p", "port": "http"}`, `{"name": "p", "port": 1e999}`, `{"name": "p", "port": 8888.5}`,
		`{"name": "p", "port": ` + strings.Repeat("9", 1<<20) + `}`, `{"name": "p", "port": [8888]}`,
		`{"name": "p", "command": "start.sh"}`, `{"name": "p", "command": [1]}`, `{"name": "p", "limits": "512Mi"}`,
		`{"name": "p", "limits": []}`, `{"name": "p", "image-source": {"repository": "x"}}`, `{"name": "p", "image-source": 7}`,
		strings.Repeat("[", 20000), `{"name": "p", "services": ` + strings.Repeat("[", 20000),
	} {
		got, err := parse("p", []byte(answer))
		if err == nil || errors.Is(err, errNoTemplate) {
			t.Errorf("%.60q: got %+v, %v, want an error", answer, got, err)
		} else if len(err.Error()) > 1000 {
			t.Errorf("%.60q: the error has %d bytes", answer, len(err.Error()))
		}
	}
	if _, err := parse("p", []byte(" null\n")); !errors.Is(err, errNoTemplate) {
		t.Errorf("null: got %v, want %v", err, errNoTemplate)
	}
}

// template makes a PodTemplate of a template with some more fields.
func template(t testing.TB, fields string) (*corev1.PodTemplate, error) {
	t.Helper()
	parsed, err := parse("My_project", []byte(` {"name": "My_project", "image-name": "i", "time-created": 1, "more": {}`+fields+`} `))
	if err != nil {
		t.Fatal(err)
	}
	return parsed.podTemplate("somewhere")
}

// container makes the container of a template with some more fields.
func container(t testing.TB, fields string) corev1.Container {
	t.Helper()
	template, err := template(t, fields)
	if err != nil {
		t.Fatal(err)
	}
	return template.Template.Spec.Containers[0]
}

func TestServices(t *testing.T) {
	for services, want := range map[string]bool{
		`null`: false, `[]`: false, `{}`: false, `["spark"]`: true, `{"spark": {}}`: true, `"spark"`: true,
	} {
		got, err := parse("p", []byte(`{"name": "p", "services": `+services+`}`))
		if err != nil || got.hasServices() != want {
			t.Errorf("%s: got %v, %v, want %v", services, got.hasServices(), err, want)
		}
	}
}

func TestImage(t *testing.T) {
	digest := "@sha256:" + strings.Repeat("0123456789abcdef", 4)
	for source, want := range map[string]string{
		"p":                         "p:latest",
		"andrewosh/p":               "andrewosh/p:latest",
		"r.example.com/a/b/p":       "r.example.com/a/b/p:latest",
		"host:5000/a/p":             "host:5000/a/p:latest",
		"host:5000/p:v1":            "host:5000/p:v1",
		"p:v1":                      "p:v1",
		"p" + digest:                "p" + digest,
		"host:5000/p:v1" + digest:   "host:5000/p:v1" + digest,
		"localhost/binder-echo:dev": "localhost/binder-echo:dev",
		"r/x_y-z.0__1":              "r/x_y-z.0__1:latest",
		strings.Repeat("x", 512):    strings.Repeat("x", 512) + ":latest",
	} {
		got := container(t, `, "image-source": "`+source+`"`)
		if got.Image != want || got.ImagePullPolicy != "" {
			t.Errorf("%s: got image %s with pull policy %q, want %s with Kubernetes' default", source, got.Image, got.ImagePullPolicy, want)
		}
	}
}

func TestMistakesAreNamed(t *testing.T) {
	manyLimits, manyWords := []string{}, strings.Repeat(`,""`, 17000)
	for i := range 17 {
		manyLimits = append(manyLimits, fmt.Sprintf(`"x%d": 1`, i))
	}
	for _, row := range []struct {
		fields string // after a good image-source, which they can replace
		says   []string
	}{
		{`"image-source": ""`, []string{"image-source", `""`}},
		{`"image-source": " p"`, []string{"image-source"}},
		{`"image-source": "p p"`, []string{"image-source"}},
		{`"image-source": "p\n"`, []string{"image-source"}},
		{`"image-source": "docker run p;"`, []string{"image-source"}},
		{`"image-source": "` + strings.Repeat("x", 513) + `"`, []string{"image-source"}},
		{`"port": 0`, []string{"port is 0", "1 to 65535"}},
		{`"port": -1`, []string{"port is -1", "1 to 65535"}},
		{`"port": 65536`, []string{"port is 65536", "1 to 65535"}},
		{`"command": ["", "x"]`, []string{"command"}},
		{`"command": ["` + strings.Repeat("x", 17000) + `"]`, []string{"command", "17000", "16384"}},
		{`"command": ["x"` + manyWords + `]`, []string{"command", "17001"}},
		{`"limits": {"memory": "512MB"}`, []string{"limits.memory", "512MB", "512Mi"}},
		{`"limits": {"memory": "512m"}`, []string{"limits.memory", "512m", "512Mi"}},
		{`"limits": {"memory": 512}`, []string{"limits.memory", "512Mi"}},
		{`"limits": {"memory": "0"}`, []string{"limits.memory"}},
		{`"limits": {"memory": "-1Gi"}`, []string{"limits.memory"}},
		{`"limits": {"memory": ""}`, []string{"limits.memory"}},
		{`"limits": {"memory": "lots"}`, []string{"limits.memory", `"lots"`}},
		{`"limits": {"memory": {"max": "1Gi"}}`, []string{"limits.memory"}},
		{`"limits": {"memory": "1e999999999"}`, []string{"limits.memory"}},
		{`"limits": {"cpu": 1e99}`, []string{"limits.cpu", "500m"}},
		{`"limits": {"cpu": true}`, []string{"limits.cpu"}},
		{`"limits": {"cpu": "0.0001"}`, []string{"limits.cpu"}},
		{`"limits": {"disk": "1Gi"}`, []string{"disk", "cpu, memory and ephemeral-storage"}},
		{`"limits": {"nvidia.com/gpu": 1}`, []string{"nvidia.com/gpu"}},
		{`"limits": {` + strings.Join(manyLimits, ",") + `}`, []string{"limits", "17", "cpu, memory and ephemeral-storage"}},
		{`"image-source": "", "port": 0, "limits": {"cpu": "x", "memory": "y"}`, []string{"image-source", "port", "limits.cpu", "limits.memory"}},
	} {
		began := time.Now()
		template, err := template(t, `, "image-source": "p", `+row.fields)
		if err == nil {
			t.Errorf("%.80s: got %+v, want an error", row.fields, template)
			continue
		}
		for _, want := range row.says {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%.80s: got %q, want %q in it", row.fields, err, want)
			}
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("%.80s: took %s", row.fields, took)
		}
	}
}

func TestPortAndCommand(t *testing.T) {
	start := func(port string) []string {
		return []string{"/home/main/start-notebook.sh", "--ip=*", "--port=" + port, "--NotebookApp.base_url=$(BINDER_BASE_URL)", "--NotebookApp.token=$(BINDER_TOKEN)", "--debug"}
	}
	for _, row := range []struct {
		fields  string
		port    int32
		command []string
	}{
		{``, 8888, start("8888")},
		{`, "port": null, "command": null`, 8888, start("8888")},
		{`, "port": 1, "command": []`, 1, start("1")},
		{`, "port": 65535`, 65535, start("65535")},
		{`, "port": 80, "command": ["/echo"]`, 80, []string{"/echo"}},
		{`, "command": ["sh", "-c", "x $(BINDER_BASE_URL)", ""]`, 8888, []string{"sh", "-c", "x $(BINDER_BASE_URL)", ""}},
	} {
		got := container(t, `, "image-source": "p"`+row.fields)
		if got.Ports[0].ContainerPort != row.port || !slices.Equal(got.Command, row.command) || got.Args != nil {
			t.Errorf("%s: got port %d, command %q and args %q, want %d, %q and none",
				row.fields, got.Ports[0].ContainerPort, got.Command, got.Args, row.port, row.command)
		}
	}
}

func TestLimits(t *testing.T) {
	for limits, want := range map[string]string{
		`null`:                              "",
		`{}`:                                "",
		`{"memory": null}`:                  "",
		`{"memory": "512Mi", "cpu": "1"}`:   "cpu 1 of which 100m, memory 512Mi of which 256Mi",
		`{"memory": "64Mi", "cpu": "50m"}`:  "cpu 50m of which 50m, memory 64Mi of which 64Mi",
		`{"memory": 536870912, "cpu": 0.5}`: "cpu 500m of which 100m, memory 536870912 of which 256Mi",
		`{"memory": "1.5Gi"}`:               "memory 1536Mi of which 256Mi",
		`{"memory": "500M", "ephemeral-storage": "1Gi"}`: "ephemeral-storage 1Gi of which 256Mi, memory 500M of which 256Mi",
	} {
		resources := container(t, `, "image-source": "p", "limits": `+limits).Resources
		var got []string
		for _, name := range []corev1.ResourceName{"cpu", "ephemeral-storage", "memory"} {
			limit, limited := resources.Limits[name]
			request, requested := resources.Requests[name]
			if limited != requested {
				t.Errorf("%s: %s has a limit: %v, a request: %v", limits, name, limited, requested)
			}
			if limited {
				got = append(got, fmt.Sprintf("%s %s of which %s", name, limit.String(), request.String()))
			}
		}
		if got := strings.Join(got, ", "); got != want {
			t.Errorf("%s: got %s, want %s", limits, got, want)
		}
	}
}

// A pod of a registry's template has no more rights than one of a careful PodTemplate.
func TestPodOfATemplate(t *testing.T) {
	made, err := template(t, `, "image-source": "p", "port": 80`)
	if err != nil {
		t.Fatal(err)
	}
	pod, err := podtemplate.NewPod(made, kubetest.ID(1), kubetest.Token)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := instance.TokenOf(pod), (instance.Token{Name: "Authorization", Value: "token " + kubetest.Token}); got != want {
		t.Errorf("the token is shown as %v, want %v", got, want)
	}
	security, container := pod.Spec.SecurityContext, pod.Spec.Containers[0].SecurityContext
	if !*security.RunAsNonRoot || *security.RunAsUser != 1000 || security.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault {
		t.Errorf("got pod security %+v", security)
	}
	if *container.AllowPrivilegeEscalation || !slices.Equal(container.Capabilities.Drop, []corev1.Capability{"ALL"}) {
		t.Errorf("got container security %+v", container)
	}
	if *pod.Spec.AutomountServiceAccountToken || pod.Namespace != "somewhere" || *pod.Spec.TerminationGracePeriodSeconds > 10 {
		t.Errorf("got pod %+v", pod)
	}
	if pod.Spec.RestartPolicy != corev1.RestartPolicyNever {
		t.Errorf("the restart policy is %q, want Never: a restarted container has lost its files", pod.Spec.RestartPolicy)
	}
	for annotation, want := range map[string]string{
		instance.IdlePathsAnnotation: jupyterIdlePaths, instance.ActivityProbeAnnotation: "api/kernels",
		instance.PortAnnotation: "80", instance.TemplateNameAnnotation: "My_project", instance.ReadyWhenAnnotation: instance.ReadyWhenListening,
	} {
		if got := pod.Annotations[annotation]; got != want {
			t.Errorf("annotation %s is %q, want %q", annotation, got, want)
		}
	}
	again, _ := template(t, `, "image-source": "p", "port": 80`)
	if podtemplate.Hash(again) != podtemplate.Hash(made) {
		t.Error("the same template has two hashes")
	}
}

// Templates from a registry are idle when the example template is, and end when it does.
func TestExampleTemplateIsLikeThoseOfARegistry(t *testing.T) {
	manifest, err := os.ReadFile("../../manifests/base/instances/template-jupyter.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for annotation, want := range map[string]string{
		instance.IdlePathsAnnotation: jupyterIdlePaths, instance.ActivityProbeAnnotation: jupyterActivityProbe,
	} {
		line := regexp.MustCompile(`(?m)^    ` + annotation + `: "?([^"\n]+)"?$`).FindSubmatch(manifest)
		if line == nil || string(line[1]) != want {
			t.Errorf("the example has %s: %q, want %s", annotation, line, want)
		}
	}
	if !regexp.MustCompile(`(?m)^    restartPolicy: Never$`).Match(manifest) {
		t.Error("the example's container is restarted when it ends")
	}
}
