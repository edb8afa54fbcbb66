package podtemplate_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
	"github.com/binder-project/binder-deploy-kubernetes/internal/podtemplate"
)

type annotationRow struct {
	key, allowed   string
	preventsLaunch bool
	valid, invalid []string
}

// annotationRows are all annotations of a template.
var annotationRows = []annotationRow{
	{"binder-project.org/port", "1 to 65535", true, []string{"1", "65535"}, []string{"", "http", "0", "-1", "65536", "80.5"}},
	{"binder-project.org/cull-timeout", "positive duration such as 30m", true, []string{"30m"}, []string{"", "soon", "3600", "0s", "-1h"}},
	{"binder-project.org/max-age", "positive duration such as 30m", true, []string{"12h"}, []string{"", "long", "3600", "0s", "-1h"}},
	{"binder-project.org/max-instances", "whole number from 0 on", true, []string{"0", "1", "250"}, []string{"", "many", "-1", "1.5"}},
	{"binder-project.org/token-header", "a header field with the token in it", true, []string{"Authorization: token $(BINDER_TOKEN)", "x-key:$(BINDER_TOKEN)"},
		[]string{"", "$(BINDER_TOKEN)", "X-Key: secret", "X Key: $(BINDER_TOKEN)", "X: $(BINDER_TOKEN)$(BINDER_TOKEN)", "X: $(BINDER_TOKEN)\r\nY: z", "Cookie: a=$(BINDER_TOKEN)", "host: $(BINDER_TOKEN)"}},
	{"binder-project.org/pool-size", "from 0 to 1000", false, []string{"0", "1000", "2..20", "3..3"}, []string{"", "two", "-1", "1001", "1.5", "2..", "..2", "3..2", "0..1001", "1..2..3", "1 .. 2"}},
	{"binder-project.org/pool-schedule", "such as Mon-Fri 08:00-18:00 Europe/Berlin 10", false, []string{"Mon 00:00-24:00 UTC 0", "Sat-Mon,Wed 22:00-02:00 Asia/Tokyo 5;\n"},
		[]string{"", ";", "Mon", "Monday 08:00-18:00 UTC 1", "Mon 8:00-18:00 UTC 1", "Mon 08:00 UTC 1", "Mon 08:00-24:01 UTC 1", "Mon 08:00-18:00 Local 1", "Mon 08:00-18:00 ../x 1", "Mon 08:00-18:00 UTC 1001", "Mon 08:00-18:00 UTC 1 1"}},
	{"binder-project.org/title", "of 1 to 80 characters", false, []string{"Machine learning – ein Überblick", "1"}, []string{"", "a\nb", "a\u202eb", "\xff"}},
	{"binder-project.org/description", "of 1 to 500 characters", false, []string{"What it is <for>", "1"}, []string{"", "a\x00"}},
	{"binder-project.org/icon", "a picture as data:image/png;base64,…", false, []string{"data:image/png;base64,iVBORw0KGgo="}, []string{"", "https://a.example/x.png"}},
	{"binder-project.org/logs", "is not start", false, []string{"start"}, []string{"", "true", "Start"}},
	{"binder-project.org/ports", "ports from 1 to 65535, separated by commas", false, []string{"3000", "8888, 3000,65535"}, []string{"", "http", "0", "65536", "03000", "3000,,1", "1,1", "1,2,3,4,5,6,7,8,9"}},
	{"binder-project.org/strip-prefix", "true or false", false, []string{"true", "false"}, []string{"", "True", "yes", "1"}},
	{"binder-project.org/idle-paths", "regular expression", false, []string{"poll"}, []string{"(", "[", "a)|(b"}},
	{"binder-project.org/idle-requests", "regular expression", false, []string{"POST events/poll"}, []string{"(", "a)|(b"}},
	{"binder-project.org/heartbeat-frames", "a size in bytes from 0 to 1024", false, []string{"1 ws", "0 .*", "1024 a b"}, []string{"", "ws", "1", "1 (", "-1 ws", "1025 ws", "x ws"}},
	{"binder-project.org/activity-probe", "path below the base URL", false, []string{"api/kernels"}, []string{"", "/x", "%zz", "http://10.0.0.1/"}},
}

// allInvalid is a template all of whose annotations are invalid.
func allInvalid(name string) *corev1.PodTemplate {
	template := kubetest.Template(name)
	for _, row := range annotationRows {
		template.Annotations[row.key] = row.invalid[0]
	}
	return template
}

// An operator finds out which annotation is invalid, what is allowed, and what
// happens, which is also so.
func TestAnnotations(t *testing.T) {
	for _, row := range annotationRows {
		for _, value := range slices.Concat(row.valid, row.invalid) {
			valid := slices.Contains(row.valid, value)
			template := kubetest.Template("t", kubetest.WithTemplateAnnotation(instance.PoolSizeAnnotation, "2..20"), kubetest.WithTemplateAnnotation(row.key, value))
			problems := podtemplate.Problems(template)
			pod, err := podtemplate.NewPod(template, kubetest.ID(1), kubetest.Token)
			if _, _, limit := podtemplate.MaxInstances(template); limit != nil {
				err = limit // it prevents a launch as well
			}
			if prevented := !valid && row.preventsLaunch; (err != nil) != prevented || err != nil && err.Error() != problems[0].Err.Error() {
				t.Errorf("%s %q: got error %v, want one: %t", row.key, value, err, prevented)
			} else if !valid && !prevented && pod.Annotations[row.key] != "" {
				t.Errorf("the pod has %s: %q", row.key, value)
			}
			if valid && len(problems) == 0 {
				continue
			}
			if len(problems) != 1 || problems[0].Annotation != row.key || problems[0].PreventsLaunch != row.preventsLaunch || valid {
				t.Errorf("%s %q: got problems %+v", row.key, value, problems)
				continue
			}
			for _, part := range []string{row.key, fmt.Sprintf("%q", value), row.allowed} {
				if !strings.Contains(problems[0].Err.Error(), part) {
					t.Errorf("%s %q: the error is %q, want %s in it", row.key, value, problems[0].Err, part)
				}
			}
		}
	}
	if got := podtemplate.Problems(allInvalid("t")); len(got) != len(annotationRows) {
		t.Errorf("got %v, want all %d annotations", got, len(annotationRows))
	}
	long := kubetest.Template("t", kubetest.WithTemplateAnnotation(instance.PortAnnotation, strings.Repeat("ä", 1<<16)))
	if got := podtemplate.Problems(long)[0].Err.Error(); len(got) > 512 {
		t.Errorf("the error has %d bytes, want the value cut off", len(got))
	}
	noContainer := kubetest.Template("t", func(template *corev1.PodTemplate) { template.Template.Spec.Containers = nil })
	if _, err := podtemplate.NewPod(noContainer, kubetest.ID(1), kubetest.Token); err == nil {
		t.Error("a template without a container is accepted")
	}
}

func TestNumbers(t *testing.T) {
	declares := func(ports ...corev1.ContainerPort) func(*corev1.PodTemplate) {
		return func(template *corev1.PodTemplate) {
			template.Template.Spec.Containers = []corev1.Container{{}, {Ports: ports}}
		}
	}
	maxInstances := func(template *corev1.PodTemplate) (int, error) {
		most, limited, err := podtemplate.MaxInstances(template)
		if !limited {
			return -1, err
		}
		return most, err
	}
	http, dns := corev1.ContainerPort{ContainerPort: 80}, corev1.ContainerPort{ContainerPort: 53, Protocol: corev1.ProtocolUDP}
	for _, test := range []struct {
		name   string
		read   func(*corev1.PodTemplate) (int, error)
		change func(*corev1.PodTemplate)
		want   int
	}{
		{"the port of the annotation", podtemplate.Port, kubetest.WithTemplateAnnotation(instance.PortAnnotation, "9000"), 9000},
		{"the first declared port", podtemplate.Port, declares(http, corev1.ContainerPort{ContainerPort: 81}), 80},
		{"no UDP port", podtemplate.Port, declares(dns, corev1.ContainerPort{ContainerPort: 81, Protocol: corev1.ProtocolTCP}), 81},
		{"a Binder image's port", podtemplate.Port, declares(), 8888},
		{"no limit", maxInstances, declares(), -1},
		{"a pause", maxInstances, kubetest.WithTemplateAnnotation(instance.MaxInstancesAnnotation, "0"), 0},
		{"a limit", maxInstances, kubetest.WithTemplateAnnotation(instance.MaxInstancesAnnotation, "250"), 250},
	} {
		if got, err := test.read(kubetest.Template("t", test.change)); err != nil || got != test.want {
			t.Errorf("%s: got %d, %v; want %d", test.name, got, err, test.want)
		}
	}
}

func TestTexts(t *testing.T) {
	with := func(title, description string) *corev1.PodTemplate {
		return kubetest.Template("t", kubetest.WithTemplateAnnotation(instance.TitleAnnotation, title), kubetest.WithTemplateAnnotation(instance.DescriptionAnnotation, description))
	}
	longest, most := strings.Repeat("é", 80), strings.Repeat("é", 500)
	if title, description := podtemplate.Texts(with(longest, most)); title != longest || description != most {
		t.Errorf("got %q, %q", title, description)
	}
	if title, description := podtemplate.Texts(with(longest+"x", most+"x")); title != "" || description != "" {
		t.Errorf("what is too long is %q, %q", title, description)
	}
	if title, description := podtemplate.Texts(kubetest.Template("t")); title != "" || description != "" {
		t.Errorf("what is missing is %q, %q", title, description)
	}
}

func TestIcon(t *testing.T) {
	const picture = "data:image/png;base64,iVBORw0KGgo="
	for value, want := range map[string]string{
		picture:                                                 picture,
		"data:image/svg+xml;base64,PHN2Zy8+":                    "data:image/svg+xml;base64,PHN2Zy8+",
		"data:text/html;base64,PHN2Zy8+":                        "",
		"data:image/png,x":                                      "",
		"data:image/png;base64,iVBORw0KGgo":                     "", // its end is missing
		"https://elsewhere.example/logo.png":                    "",
		"javascript:alert(1)":                                   "",
		"data:image/png;base64,x\" onerror=":                    "",
		"data:image/png;base64," + strings.Repeat("AAAA", 4096): "",
	} {
		if got := podtemplate.Icon(kubetest.Template("t", kubetest.WithTemplateAnnotation(instance.IconAnnotation, value))); got != want {
			t.Errorf("%.60q: got %.60q", value, got)
		}
	}
}
