package podtemplate

import (
	"errors"
	"maps"
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
)

// NewPod makes a pod of a template: the template's own pod with the labels,
// annotations and environment of the state contract, and with a readiness probe if
// the template has none. The pod is nobody's instance yet. Its token is random, as
// instance.NewToken makes it.
func NewPod(template *corev1.PodTemplate, id, token string) (*corev1.Pod, error) {
	if len(template.Template.Spec.Containers) == 0 {
		return nil, errors.New("it has no container")
	}
	port, err := Port(template)
	if err != nil {
		return nil, err
	}
	annotations, err := podAnnotations(template)
	if err != nil {
		return nil, err
	}
	annotations[instance.PortAnnotation] = strconv.Itoa(port)
	annotations[instance.TokenAnnotation] = token
	spec := template.Template.Spec.DeepCopy()
	// The application is untrusted code. It gets no identity in the cluster, and is
	// not told which other Services there are.
	spec.AutomountServiceAccountToken = new(false)
	spec.EnableServiceLinks = new(false)
	setEnvironment(spec, id, token, template.Name)
	addReadinessProbe(spec, port)
	setTerminationMessagePolicy(spec)
	if annotations[instance.DefaultContainerAnnotation] == "" {
		annotations[instance.DefaultContainerAnnotation] = ServingContainer(spec, port).Name
	}
	if readyWhenListens(spec, port) {
		annotations[instance.ReadyWhenAnnotation] = instance.ReadyWhenListening
	}
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name:        instance.PodName(id),
			Namespace:   template.Namespace,
			Labels:      podLabels(template, id),
			Annotations: annotations,
		},
		Spec: *spec,
	}, nil
}

// setTerminationMessagePolicy makes the kubelet put the end of a container's log into the pod's status
// when the container fails and has written no termination message. So the visitor can be told,
// and nobody needs the right to read logs. The API server fills in the policy File, so a
// container has a policy of its own if it has another, or a terminationMessagePath of its own.
func setTerminationMessagePolicy(spec *corev1.PodSpec) {
	for _, containers := range [][]corev1.Container{spec.InitContainers, spec.Containers} {
		for i := range containers {
			c := &containers[i]
			if c.TerminationMessagePath == "" || c.TerminationMessagePath == corev1.TerminationMessagePathDefault {
				c.TerminationMessagePolicy = corev1.TerminationMessageFallbackToLogsOnError
			}
		}
	}
}

// podLabels returns the labels of the template's own pod and those by which the read
// model finds the pod.
func podLabels(template *corev1.PodTemplate, id string) map[string]string {
	labels := copyOf(template.Template.Labels)
	for _, key := range []string{instance.PoolLabel, instance.ClientLabel, instance.QueueLabel, instance.PreloadLabel, instance.PreloadNameLabel} {
		delete(labels, key)
	}
	labels[instance.ManagedByLabel] = instance.ManagerName
	labels[instance.IDLabel] = id
	labels[instance.TemplateLabel] = instance.TemplateLabelValue(template.Name)
	labels[instance.TemplateHashLabel] = Hash(template)
	return labels
}

// podAnnotations returns the annotations of the template's own pod and what the
// template's annotations say of its instances. The same keys on
// template.metadata are dropped, because they are not checked.
func podAnnotations(template *corev1.PodTemplate) (map[string]string, error) {
	timeout, err := cullTimeout(template)
	if err != nil {
		return nil, err
	}
	age, err := maxAge(template)
	if err != nil {
		return nil, err
	}
	if _, err := parseAnnotation(template, instance.TokenHeaderAnnotation, parseTokenHeader); err != nil {
		return nil, err
	}
	all := copyOf(template.Template.Annotations)
	delete(all, instance.ReadyWhenAnnotation)
	delete(all, instance.TokenAnnotation)
	for key := range instance.LaunchAnnotations(time.Time{}, 0) {
		delete(all, key)
	}
	for _, a := range annotationTable() {
		delete(all, a.key)
		if value, ok := template.Annotations[a.key]; ok && a.copied && a.check(value) == nil {
			all[a.key] = value
		}
	}
	all[instance.TemplateNameAnnotation] = template.Name
	if timeout != 0 {
		all[instance.CullTimeoutAnnotation] = timeout.String()
	}
	if age != 0 {
		all[instance.MaxAgeAnnotation] = age.String()
	}
	return all, nil
}

// copyOf never returns nil.
func copyOf(m map[string]string) map[string]string {
	all := map[string]string{}
	maps.Copy(all, m)
	return all
}

// setEnvironment tells every container its instance. The variables come first, so
// that the template's own can refer to them; in command and args, Kubernetes
// expands $(BINDER_BASE_URL) and $(BINDER_TOKEN). The values depend only on the id, the
// token and the template, never on a request.
func setEnvironment(spec *corev1.PodSpec, id, token, template string) {
	ours := []corev1.EnvVar{
		{Name: "BINDER_ID", Value: id},
		{Name: "BINDER_TEMPLATE", Value: template},
		{Name: "BINDER_BASE_URL", Value: instance.BaseURL(id)},
		{Name: instance.TokenVariable, Value: token},
	}
	isOurs := func(variable corev1.EnvVar) bool {
		return slices.ContainsFunc(ours, func(our corev1.EnvVar) bool { return our.Name == variable.Name })
	}
	for _, containers := range [][]corev1.Container{spec.InitContainers, spec.Containers} {
		for i := range containers {
			containers[i].Env = slices.Concat(ours, slices.DeleteFunc(containers[i].Env, isOurs))
		}
	}
}
