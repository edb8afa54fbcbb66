package registry

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"

	"github.com/binder-project/binder-deploy-kubernetes/internal/podtemplate"
)

const (
	// binderUser is the uid of the user "main" of Binder images. It is given as a
	// number, because the kubelet cannot tell that a user known by name only is
	// not root.
	binderUser = 1000
	// binderStart is the start script of Binder images.
	binderStart = "/home/main/start-notebook.sh"

	maxImageLength   = 512
	maxCommandLength = 16 << 10
)

// RegistryTemplate is a template as a Binder registry describes it. Its names
// of the image and its times are of no use here.
type RegistryTemplate struct {
	Name        string                     `json:"name"`
	ImageSource string                     `json:"image-source"`
	Port        *int64                     `json:"port"`
	Command     []string                   `json:"command"`
	Limits      map[string]json.RawMessage `json:"limits"`
	Services    any                        `json:"services"`
}

// ParseRegistryTemplate reads what a registry answers when it is asked for a
// template. null is how some registries say that there is none.
func ParseRegistryTemplate(name string, body []byte) (RegistryTemplate, error) {
	text := strings.TrimSpace(string(body))
	if text == "null" {
		return RegistryTemplate{}, fmt.Errorf("%w: %q", podtemplate.ErrUnknown, name)
	}
	if !strings.HasPrefix(text, "{") {
		return RegistryTemplate{}, errors.New("the answer is not a JSON object")
	}
	var t RegistryTemplate
	if err := json.Unmarshal([]byte(text), &t); err != nil {
		return RegistryTemplate{}, fmt.Errorf("read the answer: %w", err)
	}
	// An error in a JSON object, or another template, must not be launched.
	if t.Name != name {
		return RegistryTemplate{}, fmt.Errorf("the answer has the name %.100q", t.Name)
	}
	return t, nil
}

// HasServices reports whether the template asks for more than one container,
// which no Binder deploy server has ever done for it.
func (t RegistryTemplate) HasServices() bool {
	switch services := t.Services.(type) {
	case nil:
		return false
	case []any:
		return len(services) > 0
	case map[string]any:
		return len(services) > 0
	}
	return true
}

// PodTemplate makes the PodTemplate that somebody would write for it: it passes
// the restricted pod security standard. Errors name the field, and what it may
// be.
func (t RegistryTemplate) PodTemplate(namespace string) (*corev1.PodTemplate, error) {
	image, imageErr := registryImage(t.ImageSource)
	port, portErr := registryPort(t.Port)
	command, commandErr := registryCommand(t.Command, port)
	resources, limitsErr := registryResources(t.Limits)
	if err := errors.Join(imageErr, portErr, commandErr, limitsErr); err != nil {
		return nil, err
	}
	return &corev1.PodTemplate{
		ObjectMeta: metav1.ObjectMeta{Name: t.Name, Namespace: namespace, Annotations: map[string]string{
			instance.IdlePathsAnnotation:     JupyterIdlePaths,
			instance.ActivityProbeAnnotation: JupyterActivityProbe,
		}},
		Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{
			SecurityContext: &corev1.PodSecurityContext{
				RunAsNonRoot:   new(true),
				RunAsUser:      new(int64(binderUser)),
				SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
			},
			// A visitor who left need not be waited for long.
			TerminationGracePeriodSeconds: new(int64(5)),
			Containers: []corev1.Container{{
				Name: "notebook",
				// The pull policy is Kubernetes' own: Always for :latest, else
				// IfNotPresent.
				Image:     image,
				Command:   command,
				Ports:     []corev1.ContainerPort{{ContainerPort: port}},
				Resources: resources,
				SecurityContext: &corev1.SecurityContext{
					AllowPrivilegeEscalation: new(false),
					Capabilities:             &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
				},
			}},
		}},
	}, nil
}

var imagePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._/:@+-]*$`)

// registryImage adds :latest where there is neither a tag nor a digest. The
// colon of a host's port is no tag: that one is followed by a slash.
func registryImage(source string) (string, error) {
	if len(source) > maxImageLength || !imagePattern.MatchString(source) {
		return "", fmt.Errorf("image-source is %.100q: it must be the name of an image, such as registry.example.com/project:v1", source)
	}
	last := source[strings.LastIndexByte(source, '/')+1:]
	if strings.ContainsAny(last, ":@") {
		return source, nil
	}
	return source + ":latest", nil
}

func registryPort(port *int64) (int32, error) {
	switch {
	case port == nil:
		return instance.DefaultPort, nil
	case *port < 1 || *port > 65535:
		return 0, fmt.Errorf("port is %d: it must be 1 to 65535", *port)
	}
	return int32(*port), nil
}

// registryCommand returns the command, or else the Binder image's own start
// script with what it is told by the protocol. Kubernetes expands the variable;
// that it ends with a slash is how a notebook writes its base URL anyway.
func registryCommand(command []string, port int32) ([]string, error) {
	if len(command) == 0 {
		return []string{
			binderStart, "--ip=*", "--port=" + strconv.Itoa(int(port)),
			"--NotebookApp.base_url=$(BINDER_BASE_URL)", "--debug",
		}, nil
	}
	length := 0
	for _, word := range command {
		length += len(word)
	}
	switch {
	case length > maxCommandLength:
		return nil, fmt.Errorf("command has %d bytes: it may have at most %d", length, maxCommandLength)
	case command[0] == "":
		return nil, errors.New("command begins with an empty word: it must begin with a program")
	}
	return command, nil
}

// limitRule is what a limit of some name may be. Kubernetes would request as much
// as the limit; at most request is requested here, for a limit is what an
// instance may take, and not what is put aside for it.
type limitRule struct {
	request, least resource.Quantity
	example        string
}

func registryLimitRule(name corev1.ResourceName) (limitRule, bool) {
	switch name {
	case corev1.ResourceCPU:
		return limitRule{resource.MustParse("100m"), resource.MustParse("1m"), "500m or 1"}, true
	case corev1.ResourceMemory:
		return limitRule{resource.MustParse("256Mi"), resource.MustParse("1Mi"), "512Mi"}, true
	case corev1.ResourceEphemeralStorage:
		return limitRule{resource.MustParse("256Mi"), resource.MustParse("1Mi"), "2Gi"}, true
	}
	return limitRule{}, false
}

// quantityPattern is what of Kubernetes' quantities makes sense for a limit:
// exponents and endless numbers do not, and cost much to compare.
var quantityPattern = regexp.MustCompile(`^[0-9]{1,15}(\.[0-9]{1,9})?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$`)

func registryResources(limits map[string]json.RawMessage) (corev1.ResourceRequirements, error) {
	var resources corev1.ResourceRequirements
	var errs []error
	for _, key := range slices.Sorted(maps.Keys(limits)) {
		name := corev1.ResourceName(key)
		rule, ok := registryLimitRule(name)
		if !ok {
			errs = append(errs, fmt.Errorf("limits has %.100q: it may have cpu, memory and ephemeral-storage", key))
			continue
		}
		text := string(limits[key])
		if text == "null" {
			continue
		}
		if quoted := ""; json.Unmarshal(limits[key], &quoted) == nil {
			text = quoted
		}
		limit, err := parseLimit(text)
		// 512m is half a byte, and not what somebody meant by it.
		if err != nil || limit.Cmp(rule.least) < 0 {
			errs = append(errs, fmt.Errorf("limits.%s is %.100q: it must be a Kubernetes quantity such as %s", key, text, rule.example))
			continue
		}
		if resources.Limits == nil {
			resources.Limits, resources.Requests = corev1.ResourceList{}, corev1.ResourceList{}
		}
		resources.Limits[name], resources.Requests[name] = limit, limit
		if limit.Cmp(rule.request) > 0 {
			resources.Requests[name] = rule.request.DeepCopy()
		}
	}
	return resources, errors.Join(errs...)
}

func parseLimit(text string) (resource.Quantity, error) {
	if !quantityPattern.MatchString(text) {
		return resource.Quantity{}, errors.New("not a quantity")
	}
	return resource.ParseQuantity(text)
}

// JupyterIdlePaths is what Jupyter's own pages ask for by themselves, every few
// seconds to a minute: the tree of the classic Notebook 6 asks for sessions and
// terminals; JupyterLab and Notebook 7 for these, kernels, kernelspecs, the user,
// workspaces, and the listing of the directory that is shown; the extension for
// resource usage for metrics. JupyterLab and Notebook 7 also keep a WebSocket open
// by which the server tells of events, and of each listing that they ask for.
// Of contents all: a directory and a file look alike there, and who opens a file
// does more, such as to start a kernel, or have the layout of the page saved. Not
// the usage of kernels: to answer that changes what a kernel says of itself.
const JupyterIdlePaths = `api/((kernels|sessions|terminals)(/[^/]+)?|kernelspecs|me|status|events/subscribe|metrics/v1|contents(/.*)?)` +
	`|metrics|lab/api/workspaces/?`

// JupyterActivityProbe lists the kernels, each with what it does and when it
// last did something. (api/status would count the probe itself as activity.)
const JupyterActivityProbe = "api/kernels"
