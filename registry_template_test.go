package main

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"

	"github.com/binder-project/binder-deploy-kubernetes/internal/podtemplate"

	"github.com/binder-project/binder-deploy-kubernetes/internal/registry"
)

func TestRegistryTemplateIsRead(t *testing.T) {
	got, err := registry.ParseRegistryTemplate("p", []byte(` {"name": "p", "image-name": "i", "image-source": "r/p:v1", "port": 80,
		"command": ["a", "b"], "limits": {"cpu": "1"}, "services": [], "time-created": 1, "time-modified": "x", "more": {}} `))
	if err != nil {
		t.Fatal(err)
	}
	if got.Name != "p" || got.ImageSource != "r/p:v1" || *got.Port != 80 || !slices.Equal(got.Command, []string{"a", "b"}) ||
		string(got.Limits["cpu"]) != `"1"` || got.HasServices() {
		t.Errorf("got %+v", got)
	}
}

func TestRegistryTemplateNonsenseIsRefused(t *testing.T) {
	for _, body := range []string{
		``, `{`, `[]`, `[{"name": "p"}]`, `"p"`, `1`, `true`, `nul`, `<html>`, "\x00", `{"name": "p"} {"name": "p"}`, `{"name": "p"}x`,
		`{}`, `{"name": null}`, `{"name": 1}`, `{"name": "q"}`, `{"name": "P"}`,
		`{"type": "registryError", "error": "no such template"}`,
		`{"name": "p", "port": "http"}`, `{"name": "p", "port": 1e999}`, `{"name": "p", "port": 8888.5}`,
		`{"name": "p", "port": 99999999999999999999}`, `{"name": "p", "port": [8888]}`,
		`{"name": "p", "command": "start.sh"}`, `{"name": "p", "command": [1]}`, `{"name": "p", "limits": "512Mi"}`,
		`{"name": "p", "limits": []}`, `{"name": "p", "image-source": {"repository": "x"}}`,
		strings.Repeat("[", 20000), `{"name": "p", "services": ` + strings.Repeat("[", 20000),
	} {
		if got, err := registry.ParseRegistryTemplate("p", []byte(body)); err == nil || errors.Is(err, podtemplate.ErrUnknown) {
			t.Errorf("%.60q: got %+v, %v, want an error that is not about an unknown template", body, got, err)
		}
	}
}

func TestRegistryTemplateNullIsUnknown(t *testing.T) {
	if _, err := registry.ParseRegistryTemplate("p", []byte(" null\n")); !errors.Is(err, podtemplate.ErrUnknown) {
		t.Errorf("got %v", err)
	}
}

func TestRegistryTemplateServices(t *testing.T) {
	for services, want := range map[string]bool{
		`null`: false, `[]`: false, `{}`: false, `["spark"]`: true, `{"spark": {}}`: true, `"spark"`: true,
	} {
		got, err := registry.ParseRegistryTemplate("p", []byte(`{"name": "p", "services": `+services+`}`))
		if err != nil || got.HasServices() != want {
			t.Errorf("%s: got %v, %v, want %v", services, got.HasServices(), err, want)
		}
	}
}

// convertRegistryTemplate makes a PodTemplate of a template with some more fields.
func convertRegistryTemplate(t testing.TB, fields string) (*corev1.PodTemplate, error) {
	t.Helper()
	parsed, err := registry.ParseRegistryTemplate("My_project", []byte(`{"name": "My_project"`+fields+`}`))
	if err != nil {
		t.Fatal(err)
	}
	return parsed.PodTemplate("somewhere")
}

// registryContainer is the container that comes of such a template.
func registryContainer(t testing.TB, fields string) corev1.Container {
	t.Helper()
	template, err := convertRegistryTemplate(t, fields)
	if err != nil {
		t.Fatal(err)
	}
	return template.Template.Spec.Containers[0]
}

func TestRegistryImage(t *testing.T) {
	const digest = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	for source, want := range map[string]string{
		"p":                         "p:latest",
		"andrewosh/p":               "andrewosh/p:latest",
		"r.example.com/a/b/p":       "r.example.com/a/b/p:latest",
		"host:5000/p":               "host:5000/p:latest",
		"host:5000/a/p":             "host:5000/a/p:latest",
		"host:5000/p:v1":            "host:5000/p:v1",
		"p:v1":                      "p:v1",
		"r/p:latest":                "r/p:latest",
		"p@" + digest:               "p@" + digest,
		"host:5000/p@" + digest:     "host:5000/p@" + digest,
		"host:5000/p:v1@" + digest:  "host:5000/p:v1@" + digest,
		"localhost/binder-echo:dev": "localhost/binder-echo:dev",
		"r/x_y-z.0__1":              "r/x_y-z.0__1:latest",
		strings.Repeat("x", 512):    strings.Repeat("x", 512) + ":latest",
	} {
		container := registryContainer(t, `, "image-source": "`+source+`"`)
		if container.Image != want {
			t.Errorf("%s: got image %s, want %s", source, container.Image, want)
		}
		if container.ImagePullPolicy != "" {
			t.Errorf("%s: got pull policy %s, want Kubernetes' default", source, container.ImagePullPolicy)
		}
	}
}

func TestRegistryTemplateMistakesAreNamed(t *testing.T) {
	const image = `, "image-source": "p"`
	for _, row := range []struct {
		fields string
		says   []string
	}{
		{``, []string{"image-source", `""`}},
		{`, "image-source": ""`, []string{"image-source"}},
		{`, "image-source": " p"`, []string{"image-source"}},
		{`, "image-source": "p p"`, []string{"image-source"}},
		{`, "image-source": "p\n"`, []string{"image-source"}},
		{`, "image-source": "docker run p;"`, []string{"image-source"}},
		{`, "image-source": "` + strings.Repeat("x", 513) + `"`, []string{"image-source"}},
		{image + `, "port": 0`, []string{"port is 0", "1 to 65535"}},
		{image + `, "port": -1`, []string{"port is -1", "1 to 65535"}},
		{image + `, "port": 65536`, []string{"port is 65536", "1 to 65535"}},
		{image + `, "command": ["", "x"]`, []string{"command"}},
		{image + `, "command": ["` + strings.Repeat("x", 17000) + `"]`, []string{"command", "17000", "16384"}},
		{image + `, "limits": {"memory": "512MB"}`, []string{"limits.memory", "512MB", "512Mi"}},
		{image + `, "limits": {"memory": "512m"}`, []string{"limits.memory", "512m", "512Mi"}},
		{image + `, "limits": {"memory": 512}`, []string{"limits.memory", "512Mi"}},
		{image + `, "limits": {"memory": "0"}`, []string{"limits.memory"}},
		{image + `, "limits": {"memory": "-1Gi"}`, []string{"limits.memory"}},
		{image + `, "limits": {"memory": ""}`, []string{"limits.memory"}},
		{image + `, "limits": {"memory": "lots"}`, []string{"limits.memory", `"lots"`}},
		{image + `, "limits": {"memory": {"max": "1Gi"}}`, []string{"limits.memory"}},
		{image + `, "limits": {"memory": "1e999999999"}`, []string{"limits.memory"}},
		{image + `, "limits": {"cpu": 1e99}`, []string{"limits.cpu", "500m"}},
		{image + `, "limits": {"cpu": "two"}`, []string{"limits.cpu", "500m"}},
		{image + `, "limits": {"cpu": true}`, []string{"limits.cpu"}},
		{image + `, "limits": {"cpu": "0.0001"}`, []string{"limits.cpu"}},
		{image + `, "limits": {"disk": "1Gi"}`, []string{"disk", "cpu, memory and ephemeral-storage"}},
		{image + `, "limits": {"nvidia.com/gpu": 1}`, []string{"nvidia.com/gpu"}},
		{`, "port": 0, "limits": {"cpu": "x", "memory": "y"}`, []string{"image-source", "port", "limits.cpu", "limits.memory"}},
	} {
		began := time.Now()
		template, err := convertRegistryTemplate(t, row.fields)
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

func TestRegistryPortAndCommand(t *testing.T) {
	start := func(port string) []string {
		return []string{"/home/main/start-notebook.sh", "--ip=*", "--port=" + port, "--NotebookApp.base_url=$(BINDER_BASE_URL)", "--debug"}
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
		container := registryContainer(t, `, "image-source": "p"`+row.fields)
		if got := container.Ports[0].ContainerPort; got != row.port {
			t.Errorf("%s: got port %d, want %d", row.fields, got, row.port)
		}
		if !slices.Equal(container.Command, row.command) || container.Args != nil {
			t.Errorf("%s: got command %q and args %q, want %q and none", row.fields, container.Command, container.Args, row.command)
		}
	}
}

func TestRegistryLimits(t *testing.T) {
	for _, row := range []struct{ limits, want string }{
		{`null`, ""},
		{`{}`, ""},
		{`{"memory": null}`, ""},
		{`{"memory": "512Mi", "cpu": "1"}`, "cpu 1 of which 100m, memory 512Mi of which 256Mi"},
		{`{"memory": "64Mi", "cpu": "50m"}`, "cpu 50m of which 50m, memory 64Mi of which 64Mi"},
		{`{"memory": 536870912, "cpu": 0.5}`, "cpu 500m of which 100m, memory 536870912 of which 256Mi"},
		{`{"memory": "1.5Gi"}`, "memory 1536Mi of which 256Mi"},
		{`{"memory": "500M", "ephemeral-storage": "1Gi"}`, "ephemeral-storage 1Gi of which 256Mi, memory 500M of which 256Mi"},
	} {
		resources := registryContainer(t, `, "image-source": "p", "limits": `+row.limits).Resources
		var got []string
		for _, name := range []corev1.ResourceName{"cpu", "ephemeral-storage", "memory"} {
			limit, ok := resources.Limits[name]
			request, requested := resources.Requests[name]
			if ok != requested {
				t.Errorf("%s: %s has a limit %v and a request %v", row.limits, name, ok, requested)
			}
			if ok {
				got = append(got, string(name)+" "+limit.String()+" of which "+request.String())
			}
		}
		if got := strings.Join(got, ", "); got != row.want {
			t.Errorf("%s: got %s, want %s", row.limits, got, row.want)
		}
	}
}

// A pod of it has no more rights than one of a careful PodTemplate.
func TestRegistryTemplateIsHarmless(t *testing.T) {
	template, err := convertRegistryTemplate(t, `, "image-source": "p", "port": 80`)
	if err != nil {
		t.Fatal(err)
	}
	if template.Name != "My_project" || template.Namespace != "somewhere" {
		t.Errorf("got %s/%s", template.Namespace, template.Name)
	}
	pod, err := podtemplate.NewPod(template, strings.Repeat("a", 32), time.Unix(0, 0), 0)
	if err != nil {
		t.Fatal(err)
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
	if pod.Annotations[instance.IdlePathsAnnotation] != registry.JupyterIdlePaths || pod.Annotations[instance.ActivityProbeAnnotation] != "api/kernels" {
		t.Errorf("it does not know what Jupyter's pages poll, or how to ask for work: %v", pod.Annotations)
	}
	if pod.Annotations[instance.PortAnnotation] != "80" || pod.Annotations[instance.TemplateNameAnnotation] != "My_project" {
		t.Errorf("got annotations %v", pod.Annotations)
	}
	again, _ := convertRegistryTemplate(t, `, "image-source": "p", "port": 80`)
	if podtemplate.Hash(again) != podtemplate.Hash(template) {
		t.Error("the same template has two hashes")
	}
}
