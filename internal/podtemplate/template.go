package podtemplate

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
)

// NewPod makes a pod of a template: the template's own pod, the state contract's
// labels and annotations, the containers' environment, a readiness probe where there
// is none, and what no instance may have taken away. The pod is nobody's instance
// yet: instance.LaunchAnnotations make it somebody's.
func NewPod(template *corev1.PodTemplate, id string) (*corev1.Pod, error) {
	if len(template.Template.Spec.Containers) == 0 {
		return nil, errors.New("it has no container")
	}
	port, err := Port(template)
	if err != nil {
		return nil, err
	}
	timeout, err := CullTimeout(template)
	if err != nil {
		return nil, err
	}
	maxAge, err := MaxAge(template)
	if err != nil {
		return nil, err
	}
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name:        instance.PodName(id),
			Namespace:   template.Namespace,
			Labels:      maps.Clone(template.Template.Labels),
			Annotations: maps.Clone(template.Template.Annotations),
		},
		Spec: *template.Template.Spec.DeepCopy(),
	}
	setContract(pod, template, id, port)
	for key := range instance.LaunchAnnotations(time.Time{}, time.Second) {
		delete(pod.Annotations, key) // they are not the template's to set
	}
	delete(pod.Annotations, instance.MaxAgeAnnotation)
	if maxAge != 0 {
		pod.Annotations[instance.MaxAgeAnnotation] = maxAge.String()
	}
	if timeout != 0 {
		pod.Annotations[instance.CullTimeoutAnnotation] = timeout.String()
	}
	// The application is untrusted code: it gets no identity in the cluster, and
	// is not told what other Services there are.
	pod.Spec.AutomountServiceAccountToken = new(false)
	pod.Spec.EnableServiceLinks = new(false)
	setEnvironment(&pod.Spec, id, template.Name)
	addReadinessProbe(&pod.Spec, port)
	delete(pod.Annotations, instance.ReadyWhenAnnotation)
	if readyWhenListens(&pod.Spec, port) {
		pod.Annotations[instance.ReadyWhenAnnotation] = instance.ReadyWhenListening
	}
	return pod, nil
}

// setContract writes the labels and annotations by which the pod will be known.
func setContract(pod *corev1.Pod, template *corev1.PodTemplate, id string, port int) {
	if pod.Labels == nil {
		pod.Labels = map[string]string{}
	}
	if pod.Annotations == nil {
		pod.Annotations = map[string]string{}
	}
	delete(pod.Labels, instance.PoolLabel)
	delete(pod.Labels, instance.PreloadLabel)
	delete(pod.Labels, instance.PreloadNameLabel)
	pod.Labels[instance.ManagedByLabel] = instance.ManagerName
	pod.Labels[instance.IDLabel] = id
	pod.Labels[instance.TemplateLabel] = instance.TemplateLabelValue(template.Name)
	pod.Labels[instance.TemplateHashLabel] = Hash(template)
	pod.Annotations[instance.TemplateNameAnnotation] = template.Name
	pod.Annotations[instance.PortAnnotation] = strconv.Itoa(port)
	// Copied, so that an instance outlives its template.
	if strip, ok := template.Annotations[instance.StripPrefixAnnotation]; ok {
		pod.Annotations[instance.StripPrefixAnnotation] = strip
	}
	copyIdleness(pod, template)
}

// Hash tells versions of a template apart: it covers the pod and our
// own annotations, not what others write on the object.
func Hash(template *corev1.PodTemplate) string {
	hash := sha256.New()
	encoder := json.NewEncoder(hash) // sorts map keys
	for _, part := range []any{
		template.Template,
		template.Annotations[instance.PortAnnotation],
		template.Annotations[instance.CullTimeoutAnnotation],
		template.Annotations[instance.StripPrefixAnnotation],
		template.Annotations[instance.MaxAgeAnnotation],
		template.Annotations[instance.IdlePathsAnnotation],
		template.Annotations[instance.ActivityProbeAnnotation],
	} {
		if err := encoder.Encode(part); err != nil { // plain data cannot fail to encode
			panic(err)
		}
	}
	return hex.EncodeToString(hash.Sum(nil)[:5])
}

// Port is where traffic goes: the annotation, else the first port that
// a container declares, else the Binder image's.
func Port(template *corev1.PodTemplate) (int, error) {
	if value, ok := template.Annotations[instance.PortAnnotation]; ok {
		port, err := strconv.Atoi(value)
		if err != nil || port < 1 || port > 65535 {
			return 0, fmt.Errorf("annotation %s: %q is not a port (1 to 65535)", instance.PortAnnotation, value)
		}
		return port, nil
	}
	for _, container := range template.Template.Spec.Containers {
		for _, port := range container.Ports {
			if port.Protocol == corev1.ProtocolTCP || port.Protocol == "" {
				return int(port.ContainerPort), nil
			}
		}
	}
	return instance.DefaultPort, nil
}

// CullTimeout is the template's own cull timeout; 0 when it has none.
func CullTimeout(template *corev1.PodTemplate) (time.Duration, error) {
	return templateDuration(template, instance.CullTimeoutAnnotation)
}

// templateDuration reads an annotation; 0 when there is none.
func templateDuration(template *corev1.PodTemplate, annotation string) (time.Duration, error) {
	value, ok := template.Annotations[annotation]
	if !ok {
		return 0, nil
	}
	duration, err := time.ParseDuration(value)
	if err != nil || duration <= 0 {
		return 0, fmt.Errorf("annotation %s: %q is not a positive duration such as 30m", annotation, value)
	}
	return duration, nil
}

// MaxInstances is how many instances may live at once; 0 is no limit.
func MaxInstances(template *corev1.PodTemplate) (int, error) {
	value, ok := template.Annotations[instance.MaxInstancesAnnotation]
	if !ok {
		return 0, nil
	}
	most, err := strconv.Atoi(value)
	if err != nil || most < 1 {
		return 0, fmt.Errorf("annotation %s: %q is not a positive whole number", instance.MaxInstancesAnnotation, value)
	}
	return most, nil
}

// setEnvironment tells every container who it is. The variables come first, so
// that the template's own may refer to them; in command and args, Kubernetes
// expands $(BINDER_BASE_URL). The values depend only on the id and the template,
// never on a request.
func setEnvironment(spec *corev1.PodSpec, id, template string) {
	ours := []corev1.EnvVar{
		{Name: "BINDER_ID", Value: id},
		{Name: "BINDER_TEMPLATE", Value: template},
		{Name: "BINDER_BASE_URL", Value: instance.BaseURL(id)},
	}
	isOurs := func(have corev1.EnvVar) bool {
		return slices.ContainsFunc(ours, func(our corev1.EnvVar) bool { return our.Name == have.Name })
	}
	for _, containers := range [][]corev1.Container{spec.InitContainers, spec.Containers} {
		for i := range containers {
			containers[i].Env = slices.Concat(ours, slices.DeleteFunc(containers[i].Env, isOurs))
		}
	}
}

// addReadinessProbe makes Ready mean "something listens". A failureThreshold of
// an hour keeps it true while a kernel is too busy to accept a connection. It is
// no startupProbe, because the kubelet runs a first readiness probe at once and
// a first startup probe only after a period.
func addReadinessProbe(spec *corev1.PodSpec, port int) {
	container := ServingContainer(spec, port)
	if container.ReadinessProbe != nil {
		return
	}
	container.ReadinessProbe = ListenProbe(port)
}

func ListenProbe(port int) *corev1.Probe {
	return &corev1.Probe{
		ProbeHandler: corev1.ProbeHandler{
			TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt(port)},
		},
		PeriodSeconds:    1,
		FailureThreshold: 3600,
	}
}

// readyWhenListens reports whether a pod is Ready as soon as its port answers:
// the probe that addReadinessProbe adds is the only thing that is waited for.
func readyWhenListens(spec *corev1.PodSpec, port int) bool {
	if len(spec.ReadinessGates) > 0 {
		return false
	}
	serving := ServingContainer(spec, port)
	for _, containers := range [][]corev1.Container{spec.InitContainers, spec.Containers} {
		for i := range containers {
			c := &containers[i]
			if c.StartupProbe != nil || c != serving && c.ReadinessProbe != nil {
				return false
			}
		}
	}
	return reflect.DeepEqual(serving.ReadinessProbe, ListenProbe(port))
}

// ServingContainer is the one that declares the port, else the first.
func ServingContainer(spec *corev1.PodSpec, port int) *corev1.Container {
	i := slices.IndexFunc(spec.Containers, func(c corev1.Container) bool {
		return slices.ContainsFunc(c.Ports, func(p corev1.ContainerPort) bool { return int(p.ContainerPort) == port })
	})
	return &spec.Containers[max(i, 0)]
}

// Error is a template that no pod can be made from: the operator's to
// mend, not the client's.
type Error struct {
	Template string
	// Use is what the template cannot be used for: launched (for ""), or preloaded.
	Use string
	Err error
}

func (e *Error) Error() string {
	return e.Summary() + ": " + e.Err.Error()
}

// Summary is the error without its cause, which may tell how the cluster is made.
func (e *Error) Summary() string {
	return fmt.Sprintf("template %q cannot be %s", e.Template, cmp.Or(e.Use, "launched"))
}

func (e *Error) Unwrap() error { return e.Err }

// Result names what came of asking for a template, as a label of a metric.
func Result(err error) string {
	var template *Error
	switch {
	case err == nil:
		return "ok"
	case errors.Is(err, ErrUnknown):
		return "unknown_template"
	case errors.As(err, &template):
		return "bad_template"
	}
	return "error"
}

func Results() []string { return []string{"ok", "unknown_template", "bad_template", "error"} }
