//go:build e2e

package e2e

import (
	"context"
	"crypto/rand"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/binder-project/binder-deploy-kubernetes/e2e/commands"
	"github.com/binder-project/binder-deploy-kubernetes/e2e/earlier"
	"github.com/binder-project/binder-deploy-kubernetes/e2e/harness"
)

// The namespaces and ports of TestUpgrade.
const (
	upgradeNamespace = "binder-upgrade"
	upgradeInstances = upgradeNamespace + "-instances"
	upgradeAPIPort   = "28084"
	upgradePort      = "28000"
	upgradeHost      = "127.0.0.1:" + upgradePort
)

// upgradeOverlay names the image, and sets what e2e/manifests have too short or too large:
// the time to leave the Services, which is that of the shipped manifests here, and the room
// on the node.
const upgradeOverlay = `apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources: [e2e/manifests]
images:
  - name: localhost/binder-deploy-kubernetes
    newTag: %s
patches:
  - target: {kind: Deployment, name: binder-deploy-kubernetes}
    patch: |
      - {op: add, path: /spec/template/spec/containers/0/args/-, value: --shutdown-delay=5s}
      - {op: add, path: /spec/template/spec/containers/0/resources/requests, value: {cpu: 10m, memory: 64Mi}}
`

// loadEarlier builds the image of an earlier version, and loads it with a tag.
func loadEarlier(t *testing.T, version earlier.Version, tag string) {
	t.Helper()
	archive := filepath.Join(t.TempDir(), "image.tar")
	began := time.Now()
	require.NoError(t, version.WriteImage(t.Context(), "localhost/binder-deploy-kubernetes:"+tag, archive))
	t.Logf("building %s took %s", version.Name(), time.Since(began).Round(time.Second))
	require.NoError(t, suite.Kube.LoadImage(t.Context(), "..", archive))
}

// placeManifests copies the tests' manifests of a version, with all that they are made of, to
// a directory that it returns. The copy has the namespaces and ports of TestUpgrade, and an
// image's tag.
func placeManifests(t *testing.T, source, tag string) string {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, os.CopyFS(filepath.Join(dir, "manifests"), os.DirFS(filepath.Join(source, "manifests"))))
	names := strings.NewReplacer(harness.Namespace, upgradeNamespace, "18084", upgradeAPIPort, "18000", upgradePort)
	require.NoError(t, fs.WalkDir(os.DirFS(source), "e2e/manifests", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		data, err := os.ReadFile(filepath.Join(source, path))
		if err != nil {
			return err
		}
		return writeInto(filepath.Join(dir, path), names.Replace(string(data)))
	}))
	require.NoError(t, writeInto(filepath.Join(dir, "kustomization.yaml"), fmt.Sprintf(upgradeOverlay, tag)))
	return dir
}

// writeInto writes a file, and makes its directory.
func writeInto(path, content string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(content), 0o600)
}

// upgradable is a copy of the service in namespaces of its own. Its addresses are those of
// the Services in the cluster: a load balancer in front would try failed requests again.
type upgradable struct {
	script *commands.Script
	api    harness.API
	proxy  string             // base URL
	kept   []launchedInstance // instances whose status must not change
}

// installEarlier installs the service from manifests, and removes it at the end of the test.
func installEarlier(t *testing.T, script *commands.Script, dir string) *upgradable {
	t.Helper()
	removeInstallation(t, dir) // of an interrupted run
	t.Cleanup(func() { removeInstallation(t, dir) })
	key, shell := rand.Text(), upgradeShell(t, dir)
	shell.Run(t, "the namespace", "kubectl create namespace "+upgradeNamespace)
	for name, value := range map[string]string{"api-key": key, "secret": rand.Text()} {
		shell.Run(t, "the Secrets", fmt.Sprintf("kubectl -n binder create secret generic binder-%s --from-literal=%s=%s", name, name, value))
	}
	shell.Run(t, "the manifests", "kubectl apply -k manifests")
	shell.Run(t, "the rollout", "kubectl -n binder rollout status deployment/binder-deploy-kubernetes")
	s := &upgradable{script: script, proxy: serviceURL(t, "binder-proxy", upgradePort)}
	s.api = suite.API.At(serviceURL(t, "binder-api", upgradeAPIPort)).WithKey(key).OfOtherVersion()
	for _, url := range []string{s.api.Base(), s.proxy} {
		harness.Until(t, 30*time.Second, "the new Services lead to the replicas", func(ctx context.Context) error {
			request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
			if err != nil {
				return err
			}
			response, err := http.DefaultClient.Do(request)
			if err != nil {
				return err
			}
			return response.Body.Close()
		})
	}
	return s
}

// serviceURL returns the base URL of a Service in the cluster.
func serviceURL(t *testing.T, name, port string) string {
	t.Helper()
	service, err := suite.Kube.Client.CoreV1().Services(upgradeNamespace).Get(t.Context(), name, metav1.GetOptions{})
	require.NoError(t, err)
	return "http://" + net.JoinHostPort(service.Spec.ClusterIP, port)
}

// upgradeShell returns the shell of a reader with the manifests in dir.
func upgradeShell(t *testing.T, dir string) *commands.Shell {
	t.Helper()
	return reader(t, dir, "-n binder ", "-n "+upgradeNamespace+" ", "-k manifests", "-k "+dir, "binder-instances", upgradeInstances)
}

// follow carries out the commands of a section of docs/operate.md, with the manifests in dir.
func (s *upgradable) follow(t *testing.T, section, dir string) {
	t.Helper()
	shell := upgradeShell(t, dir)
	for _, block := range s.script.Blocks(t, "docs/operate.md", section) {
		for _, command := range block.Commands() {
			began := time.Now()
			if err := s.script.TryCommand(t, shell, block, command); err != nil {
				deleteUnchangeable(t, shell, err)
				s.script.RunCommand(t, shell, block, command)
			}
			t.Logf("%s took %s", command, time.Since(began).Round(100*time.Millisecond))
		}
	}
}

// deleteUnchangeable deletes what CHANGELOG.md says must be deleted, because the API server
// has refused to change it.
func deleteUnchangeable(t *testing.T, shell *commands.Shell, refused error) {
	t.Helper()
	require.ErrorContains(t, refused, "kubectl apply")
	changes, err := os.ReadFile("../CHANGELOG.md")
	require.NoError(t, err)
	deletes := regexp.MustCompile("`(kubectl delete [^`]+)`").FindAllStringSubmatch(string(changes), -1)
	deleted := false
	for _, command := range deletes {
		words := strings.Fields(shell.Names.Replace(command[1]))
		if strings.Contains(refused.Error(), words[len(words)-1]) { // the object's name
			shell.Run(t, "CHANGELOG.md", command[1])
			deleted = true
		}
	}
	require.True(t, deleted, "CHANGELOG.md has no command that lets this pass: %v", refused)
	t.Logf("objects were deleted first, as CHANGELOG.md says: %v", refused)
}

// awaitReplaced waits until all replicas have the image of a tag, and the others are gone.
func (s *upgradable) awaitReplaced(t *testing.T, tag string) {
	t.Helper()
	harness.Until(t, time.Minute, "the replicas are replaced", func(ctx context.Context) error {
		pods, err := suite.Kube.Client.CoreV1().Pods(upgradeNamespace).List(ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		if len(pods.Items) != 2 {
			return fmt.Errorf("there are %d replicas, want 2", len(pods.Items))
		}
		for _, pod := range pods.Items {
			if image := pod.Spec.Containers[0].Image; !strings.HasSuffix(image, ":"+tag) {
				return fmt.Errorf("%s has the image %s", pod.Name, image)
			}
		}
		return nil
	})
}

// printLogs prints the last lines of the replicas if the test has failed.
func (s *upgradable) printLogs(t *testing.T) {
	if !t.Failed() {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 20*time.Second)
	defer cancel()
	logs, err := upgradeShell(t, "..").Try(ctx, "kubectl -n binder logs --prefix --tail=60 -l app.kubernetes.io/name=binder-deploy-kubernetes")
	t.Log(logs, err)
}
