package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/binder-project/binder-deploy-kubernetes/e2e/harness"
	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/podtemplate"
)

// examplesDir has the templates of docs/applications.md, but for Jupyter's, which every
// installation has.
const examplesDir = "../manifests/examples"

// examples returns the templates of docs/applications.md by their names, as users apply
// them.
func examples(t *testing.T) map[string]*corev1.PodTemplate {
	t.Helper()
	found := map[string]*corev1.PodTemplate{}
	for _, dir := range []string{examplesDir, "../manifests/base/instances"} {
		objects, err := harness.Render(dir)
		require.NoError(t, err)
		for _, template := range of[*corev1.PodTemplate](t, decode(t, objects)) {
			found[template.Name] = template
		}
	}
	return found
}

// TestExamples checks that each template is valid, says all by itself, and is in
// docs/applications.md.
func TestExamples(t *testing.T) {
	page, err := os.ReadFile("../docs/applications.md")
	require.NoError(t, err)
	files, err := filepath.Glob(filepath.Join(examplesDir, "*.yaml"))
	require.NoError(t, err)
	all := examples(t)
	assert.Len(t, files, len(all), "a file for each template, but for Jupyter's, and the kustomization")
	check := restricted(t)
	for name, template := range all {
		assert.Empty(t, podtemplate.Problems(template), name)
		_, err := podtemplate.NewPod(template, strings.Repeat("1", 32), strings.Repeat("2", 32))
		assert.NoError(t, err, name)
		check(t, name, &template.Template)
		container := template.Template.Spec.Containers[0]
		assert.NotRegexp(t, `(^[^:]+|:latest)$`, container.Image, name)
		require.Len(t, container.Ports, 1, name)
		port, err := podtemplate.Port(template)
		require.NoError(t, err)
		assert.EqualValues(t, port, container.Ports[0].ContainerPort, name)
		if name == "jupyter" {
			continue
		}
		file := filepath.Join(examplesDir, name+".yaml")
		data, err := os.ReadFile(file)
		require.NoError(t, err)
		assert.Contains(t, string(data), "\n  namespace: binder-instances\n", "%s must be complete without the kustomization", file)
		assert.Contains(t, string(page), "(../manifests/examples/"+name+".yaml)", name)
	}
}

// TestExamplesNameWhatPagesSend compares requests that pages send with the templates: those
// that they send by themselves, and those that follow from what a visitor does.
func TestExamplesNameWhatPagesSend(t *testing.T) {
	rows := map[string]struct{ alone, byVisitors []string }{
		"jupyter": {
			[]string{"GET api/kernels", "GET api/sessions", "GET api/terminals", "GET api/events/subscribe", "GET api/contents/work"},
			[]string{"GET api/kernels/5/channels", "POST api/kernels", "PUT api/contents/a.ipynb", "GET terminals/websocket/1"},
		},
		"code-server": {nil, []string{"GET stable-409c64e0df4d53530e59c16acc2b5d5766f717b0"}},
		"marimo": {
			[]string{"GET health", "GET api/usage", "GET api/lsp/health", "POST api/home/running_notebooks", "POST api/export/auto_export/html"},
			[]string{"GET ws", "GET terminal/ws", "POST api/kernel/run", "POST api/kernel/save", "POST api/export/html"},
		},
		"rstudio": {
			[]string{"POST events/get_events", "GET auth-update-credentials"},
			[]string{"POST rpc/console_input", "POST rpc/save_document_diff", "GET p/0f2a/terminal/8C1D/"},
		},
		"shiny":  {nil, []string{"GET websocket/"}},
		"static": {nil, []string{"GET index.html"}},
		"streamlit": {
			[]string{"GET _stcore/health", "GET _stcore/host-config"},
			[]string{"GET _stcore/stream", "PUT _stcore/upload_file/1/2", "GET media/5.png"},
		},
	}
	all := examples(t)
	assert.Len(t, rows, len(all))
	for name, row := range rows {
		require.Contains(t, all, name)
		paths, err := instance.CompileIdlePaths(all[name].Annotations[instance.IdlePathsAnnotation])
		require.NoError(t, err)
		requests, err := instance.CompileIdlePaths(all[name].Annotations[instance.IdleRequestsAnnotation])
		require.NoError(t, err)
		idle := func(request string) bool {
			path, get := strings.CutPrefix(request, "GET ")
			return get && paths.MatchString(path) || requests.MatchString(request)
		}
		for _, request := range row.alone {
			assert.True(t, idle(request), "%s: %s must not count as use", name, request)
		}
		for _, request := range row.byVisitors {
			assert.False(t, idle(request), "%s: %s must count as use", name, request)
		}
	}
}

// TestExamplesKnowHeartbeats checks which WebSockets have heartbeats.
func TestExamplesKnowHeartbeats(t *testing.T) {
	sockets := map[string]string{
		"code-server": "stable-409c64e0df4d53530e59c16acc2b5d5766f717b0",
		"rstudio":     "p/0f2a3b4c/terminal/8C1D22AF/",
	}
	for name, template := range examples(t) {
		value, found := template.Annotations[instance.HeartbeatFramesAnnotation]
		require.Equal(t, sockets[name] != "", found, name)
		if found {
			_, paths, err := instance.ParseHeartbeatFrames(value)
			require.NoError(t, err)
			assert.True(t, paths.MatchString(sockets[name]), name)
		}
	}
}
