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
)

const (
	// notebookUser is the uid of the user "main" of Binder images. The kubelet accepts
	// runAsNonRoot only for a user that is a number.
	notebookUser = 1000
	// startScript is the start script of Binder images.
	startScript = "/home/main/start-notebook.sh"

	maxImageLength   = 512
	maxCommandLength = 16 << 10 // of the words, with spaces in between
	maxLimits        = 16
)

// binderTemplate is a template as a Binder registry describes it. The fields
// image-name, time-created and time-modified are not used.
type binderTemplate struct {
	Name        string                     `json:"name"`
	ImageSource string                     `json:"image-source"`
	Port        *int64                     `json:"port"`
	Command     []string                   `json:"command"`
	Limits      map[string]json.RawMessage `json:"limits"`
	Services    any                        `json:"services"`
}

// parse reads a registry's answer to the question for a template. Some registries
// answer null for a template that they do not have: the error is errNoTemplate.
func parse(name string, body []byte) (binderTemplate, error) {
	text := strings.TrimSpace(string(body))
	if text == "null" {
		return binderTemplate{}, errNoTemplate
	}
	if !strings.HasPrefix(text, "{") {
		return binderTemplate{}, errors.New("the answer is not a JSON object")
	}
	var t binderTemplate
	if err := json.Unmarshal([]byte(text), &t); err != nil {
		return binderTemplate{}, fmt.Errorf("read the answer: %.300s", err) // it can quote the answer
	}
	// The object may be an error, or another template.
	if t.Name != name {
		return binderTemplate{}, fmt.Errorf("the answer has the name %.100q", t.Name)
	}
	return t, nil
}

// hasServices reports whether the template asks for services, which are further
// containers. The protocol has them, but no Binder deploy server ever started any.
func (t binderTemplate) hasServices() bool {
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

// podTemplate makes a PodTemplate, whose pods meet the restricted pod security
// standard. Errors name each wrong field and its valid values.
func (t binderTemplate) podTemplate(namespace string) (*corev1.PodTemplate, error) {
	image, imageErr := imageOf(t.ImageSource)
	port, portErr := portOf(t.Port)
	command, commandErr := commandOf(t.Command, port)
	resources, limitsErr := resourcesOf(t.Limits)
	if err := errors.Join(imageErr, portErr, commandErr, limitsErr); err != nil {
		return nil, err
	}
	annotations := map[string]string{
		instance.IdlePathsAnnotation:     jupyterIdlePaths,
		instance.ActivityProbeAnnotation: jupyterActivityProbe,
	}
	if strings.Contains(strings.Join(command, " "), tokenReference) {
		annotations[instance.TokenHeaderAnnotation] = jupyterTokenHeader
	}
	return &corev1.PodTemplate{
		ObjectMeta: metav1.ObjectMeta{Name: t.Name, Namespace: namespace, Annotations: annotations},
		Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{
			// The instance ends with its application. A restarted container would
			// have lost its files.
			RestartPolicy: corev1.RestartPolicyNever,
			SecurityContext: &corev1.PodSecurityContext{
				RunAsNonRoot:   new(true),
				RunAsUser:      new(int64(notebookUser)),
				SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
			},
			// Nobody uses an instance that is ended, so its shutdown can be short.
			TerminationGracePeriodSeconds: new(int64(5)),
			Containers: []corev1.Container{{
				Name: "notebook",
				// Without a pull policy, Kubernetes pulls :latest every time and
				// other tags if the node lacks them.
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

// imageOf adds :latest to an image without a tag or a digest. A colon before the last
// slash belongs to the port of a host.
func imageOf(source string) (string, error) {
	if len(source) > maxImageLength || !imagePattern.MatchString(source) {
		return "", fmt.Errorf("image-source is %.100q: it must be the name of an image, such as registry.example.com/project:v1", source)
	}
	last := source[strings.LastIndexByte(source, '/')+1:]
	if strings.ContainsAny(last, ":@") {
		return source, nil
	}
	return source + ":latest", nil
}

func portOf(port *int64) (int32, error) {
	switch {
	case port == nil:
		return instance.DefaultPort, nil
	case *port < 1 || *port > 65535:
		return 0, fmt.Errorf("port is %d: it must be 1 to 65535", *port)
	}
	return int32(*port), nil
}

// commandOf returns the command, or the start script of Binder images with the
// arguments that the Binder deploy protocol prescribes. Kubernetes expands the
// variable. It ends with a slash, which the notebook accepts.
func commandOf(command []string, port int32) ([]string, error) {
	if len(command) == 0 {
		return []string{
			startScript, "--ip=*", "--port=" + strconv.Itoa(int(port)),
			"--NotebookApp.base_url=$(BINDER_BASE_URL)", "--NotebookApp.token=" + tokenReference, "--debug",
		}, nil
	}
	switch length := len(strings.Join(command, " ")); {
	case length > maxCommandLength:
		return nil, fmt.Errorf("command has %d bytes: at most %d are allowed", length, maxCommandLength)
	case command[0] == "":
		return nil, errors.New("command starts with an empty word: it must start with a program")
	}
	return command, nil
}

// limitRule says which values a limit can have. Kubernetes would request the whole
// limit for an instance; at most request is requested here, because few instances use
// all that they may.
type limitRule struct {
	request, least resource.Quantity
	example        string
}

func limitRuleOf(name corev1.ResourceName) (limitRule, bool) {
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

// quantityPattern matches the Kubernetes quantities that make sense as a limit.
// Exponents and very long numbers do not, and are expensive to compare.
var quantityPattern = regexp.MustCompile(`^[0-9]{1,15}(\.[0-9]{1,9})?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$`)

func resourcesOf(limits map[string]json.RawMessage) (corev1.ResourceRequirements, error) {
	if len(limits) > maxLimits { // each could be an error
		return corev1.ResourceRequirements{}, fmt.Errorf("limits has %d entries: it may have cpu, memory and ephemeral-storage", len(limits))
	}
	var resources corev1.ResourceRequirements
	var errs []error
	for _, key := range slices.Sorted(maps.Keys(limits)) {
		limit, rule, err := parseLimit(key, limits[key])
		if err != nil {
			errs = append(errs, err)
		}
		if limit == nil {
			continue
		}
		if resources.Limits == nil {
			resources.Limits, resources.Requests = corev1.ResourceList{}, corev1.ResourceList{}
		}
		name := corev1.ResourceName(key)
		resources.Limits[name], resources.Requests[name] = *limit, *limit
		if limit.Cmp(rule.request) > 0 {
			resources.Requests[name] = rule.request
		}
	}
	return resources, errors.Join(errs...)
}

// parseLimit reads a limit, a JSON string or number. For null it returns nil.
func parseLimit(key string, value json.RawMessage) (*resource.Quantity, limitRule, error) {
	rule, ok := limitRuleOf(corev1.ResourceName(key))
	if !ok {
		return nil, rule, fmt.Errorf("limits has %.100q: it may have cpu, memory and ephemeral-storage", key)
	}
	text := string(value)
	if text == "null" {
		return nil, rule, nil
	}
	if quoted := ""; json.Unmarshal(value, &quoted) == nil {
		text = quoted
	}
	if quantityPattern.MatchString(text) {
		limit, err := resource.ParseQuantity(text)
		if err == nil && limit.Cmp(rule.least) >= 0 { // 512m is half a byte: nobody means that
			return &limit, rule, nil
		}
	}
	return nil, rule, fmt.Errorf("limits.%s is %.100q: it must be a Kubernetes quantity such as %s", key, text, rule.example)
}

// jupyterIdlePaths are the paths that Jupyter's own pages poll while nobody uses
// them. The tree page of Notebook 6 polls sessions and terminals. JupyterLab and
// Notebook 7 also poll kernels, kernelspecs, the user, workspaces and the listing of
// the current directory, and keep a WebSocket open on which the server reports
// events. The resource usage extension polls metrics.
//
// All of contents is here, because the paths of files and directories look alike. A
// user who opens a file causes other requests too, such as for a new kernel. The
// resource usage of kernels is not here: a request for it makes a kernel report
// activity.
const jupyterIdlePaths = `api/((kernels|sessions|terminals)(/[^/]+)?|kernelspecs|me|status|events/subscribe|metrics/v1|contents(/.*)?)` +
	`|metrics|lab/api/workspaces/?`

// tokenReference is the token in a command. A command without it may start anything, which
// may take the header for a login of its own.
const tokenReference = "$(" + instance.TokenVariable + ")"

// jupyterTokenHeader is where every version of Jupyter looks for its token.
const jupyterTokenHeader = "Authorization: token " + tokenReference

// jupyterActivityProbe lists the kernels, with their state and last activity.
// Jupyter counts a request for api/status as activity, so that path would not do.
const jupyterActivityProbe = "api/kernels"
