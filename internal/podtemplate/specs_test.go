package podtemplate

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
	"github.com/binder-project/binder-deploy-kubernetes/internal/repospec"
)

func TestFindBySpec(t *testing.T) {
	serving := func(name, specs string) *corev1.PodTemplate {
		return kubetest.Template(name, kubetest.WithTemplateAnnotation(instance.SpecsAnnotation, specs))
	}
	templates := []*corev1.PodTemplate{
		kubetest.Template("without"),
		serving("z-all", "gh/org/repo"),
		serving("b-v1", "gh/org/other\ngh/org/repo v1.*"),
		serving("a-all", "gh/org/repo"),
		serving("c-v1", "gh/org/repo v1.*"),
		serving("broken", "gh/org/repo v1.*\ngh/org"),
	}
	var specs Specs
	specs.Find([]*corev1.PodTemplate{serving("a-all", "gh/of/before")}, repospec.Spec{})
	for spec, want := range map[string]string{
		"gh/org/repo/main": "a-all", "gh/org/repo/v1.0": "b-v1", "gh/org/other": "b-v1", "gh/org/none": "", "gh/of/before": "",
	} {
		parsed, err := repospec.Parse(spec)
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		if found := specs.Find(templates, parsed); found != nil {
			got = found.Name
		}
		if got != want {
			t.Errorf("%s: got %q, want %q", spec, got, want)
		}
	}
}

// A template's own name does not stand for the versions that its list leaves out.
func TestExcludesVersion(t *testing.T) {
	for specs, want := range map[string]bool{
		"gh/org/repo 2026*": true, "gh/org/repo 2025*": false, "gh/org/repo": false, "gh/org/other": false, "gh/org": false, "gh/org/repo 2026*\ngh/org/repo 2025": false,
	} {
		template := kubetest.Template("org-repo", kubetest.WithTemplateAnnotation(instance.SpecsAnnotation, specs))
		if got := ExcludesVersion(template, repospec.Spec{Provider: "gh", Repo: []string{"Org", "repo"}, Ref: "2025"}); got != want {
			t.Errorf("%q: got %t", specs, got)
		}
	}
	if ExcludesVersion(kubetest.Template("org-repo"), repospec.Spec{Provider: "gh", Repo: []string{"org", "repo"}}) {
		t.Error("a template without a list excludes a version")
	}
}

func TestInvalidSpecs(t *testing.T) {
	for value, says := range map[string]string{
		"gh/org":                        "must name a repository",
		" \n":                           "one a line",
		strings.Repeat("gh/o/r\n", 9e3): "more than",
	} {
		problems := Problems(kubetest.Template("jupyter", kubetest.WithTemplateAnnotation(instance.SpecsAnnotation, value)))
		if len(problems) != 1 || problems[0].PreventsLaunch || !strings.Contains(problems[0].Err.Error(), says) {
			t.Errorf("%.20q: got %+v, want one problem that says %q", value, problems, says)
		}
	}
}
