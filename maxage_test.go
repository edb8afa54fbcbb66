package main

import (
	"testing"
	"time"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"

	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
)

func TestMaxAge(t *testing.T) {
	for _, test := range []struct {
		pod          string
		server, want time.Duration
	}{
		{"", 0, 0},
		{"", time.Hour, time.Hour},
		{"30m", 0, 30 * time.Minute},
		{"30m", time.Hour, 30 * time.Minute},
		{"2h", time.Hour, time.Hour},
		{"soon", 0, 0},
		{"soon", time.Hour, time.Hour},
		{"0s", 0, 0},
		{"-1h", time.Hour, time.Hour},
	} {
		pod := kubetest.Pod(kubetest.ID(1), kubetest.Noon, kubetest.WithAnnotation(instance.MaxAgeAnnotation, test.pod))
		if got := maxAge(pod, test.server); got != test.want {
			t.Errorf("of %q where the server's is %s: got %s, want %s", test.pod, test.server, got, test.want)
		}
	}
}

func TestBuildPodMaxAge(t *testing.T) {
	template := kubetest.Template("t", kubetest.WithTemplateAnnotation(instance.MaxAgeAnnotation, "90m"))
	if got := mustBuildPod(t, template, 0).Annotations[instance.MaxAgeAnnotation]; got != "1h30m0s" {
		t.Errorf("got %q, want the template's", got)
	}
	template = kubetest.Template("t")
	template.Template.Annotations = map[string]string{instance.MaxAgeAnnotation: "1m", instance.LaunchedAnnotation: "2099-01-01T00:00:00Z"}
	pod := mustBuildPod(t, template, 0)
	if got, said := pod.Annotations[instance.MaxAgeAnnotation]; said {
		t.Errorf("got %q, want none: the template has none where it belongs", got)
	}
	if got, err := launchedAt(pod, kubetest.Noon); err != nil || !got.Equal(kubetest.Noon) {
		t.Errorf("launched at %s, %v; want %s", got, err, kubetest.Noon)
	}
	for _, wrong := range []string{"", "long", "-1h", "0s"} {
		if _, err := buildPod(kubetest.Template("t", kubetest.WithTemplateAnnotation(instance.MaxAgeAnnotation, wrong)), kubetest.ID(1), kubetest.Noon, 0); err == nil {
			t.Errorf("a max age of %q is no error", wrong)
		}
	}
}
