//go:build e2e

package e2e

import (
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/binder-project/binder-deploy-kubernetes/e2e/commands"
	"github.com/binder-project/binder-deploy-kubernetes/e2e/harness"
)

// The namespaces into which TestInstall installs, and the port of its proxy's Service.
const (
	docsNamespace = harness.Namespace + "-docs"
	docsInstances = docsNamespace + "-instances"
	docsProxyPort = "18480"
)

// installation is a reader who follows docs/install.md, in a directory with a copy of
// manifests/.
type installation struct {
	script *commands.Script
	shell  *commands.Shell
	names  []string // alternately of the pages and of this test
}

// TestInstall installs the service by the commands of docs/install.md, uses it by those of other
// pages that need a service of their own, and uninstalls it.
func TestInstall(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	copyManifests(t, dir)
	removeInstallation(t, filepath.Join(dir, "manifests")) // of an interrupted run
	t.Cleanup(func() { removeInstallation(t, filepath.Join(dir, "manifests")) })
	api, metrics := freePort(t), freePort(t)
	names := []string{
		"binder-instances", docsInstances, "-n binder ", "-n " + docsNamespace + " ", "namespace binder\n", "namespace " + docsNamespace + "\n", "$HOME", dir,
		"8084:8084", api + ":8084", "127.0.0.1:8084", "127.0.0.1:" + api, "8000:80 ", ":" + docsProxyPort + " ", "127.0.0.1:9090", "127.0.0.1:" + metrics,
		// A reader types slower than ports are forwarded, and has more time.
		"curl ", "curl --silent --show-error --fail --retry 50 --retry-delay 1 --retry-all-errors ",
		" 9090 &", " " + metrics + ":9090 >forwarding & until grep --quiet Forwarding forwarding; do sleep 0.1; done",
		"go tool pprof ", "go tool pprof -proto -output=/dev/null ", "seconds=30", "seconds=1",
	}
	i := installation{script: commands.For(t, ".."), shell: reader(t, dir, names...), names: names}
	i.shell.Env = append(i.shell.Env, "PPROF_TMPDIR="+dir)

	for _, block := range i.script.Blocks(t, "docs/install.md", "On any cluster") {
		i.script.Run(t, i.shell, block)
	}
	assert.Contains(t, i.run(t, "docs/install.md", "Sizes and quotas"), "CPU")
	launched := i.run(t, "docs/install.md", "On kind")
	assert.Regexp(t, `"location": ?"binder\.example\.org/user/`, launched)
	assert.Regexp(t, `"status": ?"deployed"`, launched)
	id := regexp.MustCompile(`"id": ?"([0-9a-f]{32})"`).FindStringSubmatch(launched)
	require.NotNil(t, id, launched)
	i.shell.Names = strings.NewReplacer(append(names, "<name>", harness.PodName(id[1]), "<pod>", replicaOf(t, docsNamespace))...)
	assert.Regexp(t, `^127\.0\.0\.1/8888: reached\n\S+/443: not reached\n$`, i.run(t, "docs/install.md", "Who enforces the NetworkPolicies"))
	i.reach(t)
	i.secrets(t)
	assert.Contains(t, i.run(t, "docs/operate.md", "Profiles"), "goroutine profile: total")
	i.ownTemplate(t, dir)
	i.ownPages(t, dir)
	i.run(t, "docs/operate.md", "Uninstall")
}

// run runs all blocks below a heading, and returns what the last of them prints.
func (i *installation) run(t *testing.T, page, heading string) (output string) {
	t.Helper()
	for _, block := range i.script.Blocks(t, page, heading) {
		output = i.script.Run(t, i.shell, block)
	}
	return output
}

// reach runs the commands that forward ports until they are ended.
func (i *installation) reach(t *testing.T) {
	for _, heading := range []string{"Reach it", "The admin page"} {
		for _, block := range i.script.Blocks(t, "docs/operate.md", heading) {
			for _, command := range block.Commands() {
				if strings.Contains(command, "port-forward") {
					i.script.Watch(t, i.shell, block, command, `Forwarding from 127\.0\.0\.1:\d+ -> 8084`)
					continue
				}
				assert.Equal(t, secretIn(t, docsNamespace, "binder-api-key", "api-key"), i.script.RunCommand(t, i.shell, block, command))
			}
		}
	}
}

// secrets runs the commands that make and change Secrets.
func (i *installation) secrets(t *testing.T) {
	first := secretIn(t, docsNamespace, "binder-api-key", "api-key")
	blocks := i.script.Blocks(t, "docs/security.md", "The API key")
	require.Len(t, blocks, 2)
	i.script.Run(t, i.shell, blocks[0])
	added := i.shell.Variable(t, "new")
	assert.Equal(t, added+"\n"+first, secretIn(t, docsNamespace, "binder-api-key", "api-key"))
	i.script.Run(t, i.shell, blocks[1])
	assert.Equal(t, added, secretIn(t, docsNamespace, "binder-api-key", "api-key"))

	i.run(t, "docs/webhook.md", "Turn it on")
	assert.Regexp(t, `^whsec_.{44}$`, secretIn(t, docsNamespace, "binder-webhook", "secret"))
	i.run(t, "docs/install.md", "Private registries")
	for _, namespace := range []string{docsNamespace, docsInstances} {
		assert.Equal(t, "{\"auths\":{}}\n", secretIn(t, namespace, "registry", ".dockerconfigjson"))
	}
}

// ownTemplate writes the template of docs/templates.md, and launches it.
func (i *installation) ownTemplate(t *testing.T, dir string) {
	page, err := os.ReadFile("../docs/templates.md")
	require.NoError(t, err)
	_, text, found := strings.Cut(string(page), "\n```yaml\n")
	require.True(t, found)
	text, _, _ = strings.Cut(text, "```")
	text = strings.NewReplacer("binder-instances", docsInstances).Replace(text)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "my-project.yaml"), []byte(text), 0o600))
	forward := i.shell.Names.Replace(i.script.Blocks(t, "docs/operate.md", "Reach it")[0].Commands()[0]) + " >forwarding &\n"
	i.shell.Names = strings.NewReplacer(append(i.names, "kubectl apply", forward+"kubectl apply")...)
	assert.Regexp(t, `podtemplate/my-project created\n\{"id": ?"[0-9a-f]{32}"`, i.run(t, "docs/templates.md", "Templates"))
}

// ownPages gives the pages another style.
func (i *installation) ownPages(t *testing.T, dir string) {
	const style = "main { border-style: ridge }"
	require.NoError(t, os.WriteFile(filepath.Join(dir, "style.css"), []byte(style), 0o600))
	i.shell.Names = strings.NewReplacer(i.names...)
	i.run(t, "docs/pages.md", "Your own look")
	shows := func(address string) bool {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+net.JoinHostPort(address, "8000")+"/", nil)
		require.NoError(t, err)
		request.Host = "binder.example.org"
		request.Header.Set("Accept", "text/html")
		response, err := (&http.Client{Timeout: 5 * time.Second}).Do(request)
		if err != nil { // the replica starts, or ends
			return false
		}
		defer response.Body.Close()
		page, err := io.ReadAll(response.Body)
		return err == nil && strings.Contains(string(page), "<style>"+style+"</style>")
	}
	require.Eventually(t, func() bool {
		pods, err := suite.Kube.Client.CoreV1().Pods(docsNamespace).List(t.Context(), metav1.ListOptions{LabelSelector: "app.kubernetes.io/name=binder-deploy-kubernetes"})
		require.NoError(t, err)
		return slices.ContainsFunc(pods.Items, func(pod corev1.Pod) bool { return shows(pod.Status.PodIP) })
	}, time.Minute, time.Second)
}

// copyManifests copies manifests/ with other namespaces, so that the objects are not the
// demo's, and does what docs/install.md says to do by hand: it names the image, and sets flags.
func copyManifests(t *testing.T, dir string) {
	t.Helper()
	require.NoError(t, os.CopyFS(filepath.Join(dir, "manifests"), os.DirFS("../manifests")))
	names := strings.NewReplacer("binder-instances", docsInstances, "namespace: binder\n", "namespace: "+docsNamespace+"\n", "name: binder\n", "name: "+docsNamespace+"\n",
		"priorityClassName: binder\n", "priorityClassName: "+docsNamespace+"\n", "serviceaccount:binder:", "serviceaccount:"+docsNamespace+":",
		"      port: 80\n", "      port: "+docsProxyPort+"\n", "replicas: 2\n", "replicas: 1\n")
	require.NoError(t, filepath.WalkDir(filepath.Join(dir, "manifests"), func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		require.NoError(t, err)
		return os.WriteFile(path, []byte(names.Replace(string(data))), 0o600)
	}))
	page, err := os.ReadFile("../docs/install.md")
	require.NoError(t, err)
	_, patches, found := strings.Cut(string(page), "\n```yaml\npatches:\n") // that of a flag comes first
	require.True(t, found)
	patches, _, _ = strings.Cut(patches, "```")
	patches = strings.ReplaceAll(patches, "namespace: binder\n", "namespace: "+docsNamespace+"\n") +
		"                  - name: BINDER_PPROF\n                    value: \"true\"\n"
	path := filepath.Join(dir, "manifests", "kustomization.yaml")
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	text := strings.NewReplacer("registry.example.com/binder-deploy-kubernetes", "localhost/binder-deploy-kubernetes", "newTag: latest", "newTag: dev").Replace(string(data))
	require.NoError(t, os.WriteFile(path, []byte(text+"components:\n  - components/local-images\npatches:\n"+patches), 0o600))
	require.NoError(t, os.MkdirAll(filepath.Join(dir, ".docker"), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(dir, ".docker", "config.json"), []byte("{\"auths\":{}}\n"), 0o600))
}

// removeInstallation removes what was installed from manifests, and waits until it is gone.
func removeInstallation(t *testing.T, manifests string) {
	t.Helper()
	rendered, err := harness.Render(manifests)
	require.NoError(t, err)
	var objects []*unstructured.Unstructured
	for _, object := range rendered {
		if object.GetNamespace() == "" {
			objects = append(objects, object)
		}
	}
	suite.Kube.Remove(t, objects)
}

// replicaOf returns the name of a replica in a namespace.
func replicaOf(t *testing.T, namespace string) string {
	t.Helper()
	pods, err := suite.Kube.Client.CoreV1().Pods(namespace).List(t.Context(), metav1.ListOptions{LabelSelector: "app.kubernetes.io/name=binder-deploy-kubernetes"})
	require.NoError(t, err)
	require.NotEmpty(t, pods.Items)
	return pods.Items[0].Name
}

// secretIn returns a value of a Secret.
func secretIn(t *testing.T, namespace, name, key string) string {
	t.Helper()
	secret, err := suite.Kube.Client.CoreV1().Secrets(namespace).Get(t.Context(), name, metav1.GetOptions{})
	require.NoError(t, err)
	require.NotEmpty(t, secret.Data[key], "%s %s", name, key)
	return string(secret.Data[key])
}

// freePort returns a port of loopback that is free now.
func freePort(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer listener.Close()
	_, port, err := net.SplitHostPort(listener.Addr().String())
	require.NoError(t, err)
	return port
}
