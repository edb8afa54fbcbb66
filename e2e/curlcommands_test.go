//go:build e2e

package e2e

import (
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/binder-project/binder-deploy-kubernetes/e2e/commands"
	"github.com/binder-project/binder-deploy-kubernetes/e2e/harness"
)

// TestCurlCommands runs the commands of README.md and docs/api.md that call the API, one after
// the other, as a reader does. Each <id> is that of the last launch.
func TestCurlCommands(t *testing.T) {
	t.Parallel()
	script := commands.For(t, "..")
	const template = "echo"
	names := append(suiteNames(template), "$PWD/.cluster", suite.Kube.ClusterDir(),
		"http://127.0.0.1:8084", suite.API.Base())
	shell := reader(t, "..", names...)
	var last *harness.Instance
	for _, block := range script.All() {
		for _, command := range block.Commands() {
			if strings.Contains(command, "/admin/state") {
				script.Watch(t, shell, block, command, `event: state\ndata: \{.*"`+template+`"`)
				continue
			}
			output := script.RunCommand(t, shell, block, command)
			switch {
			case strings.Contains(command, "/keep-alive"):
				assert.Regexp(t, `"last-activity-source": ?"keep-alive"`, output)
			case strings.Contains(command, " -X POST "):
				id := regexp.MustCompile(`"id": ?"([0-9a-f]{32})"`).FindStringSubmatch(output)
				require.NotNil(t, id, "%s\n%s", command, output)
				last = suite.Adopt(t, template, id[1])
				shell.Names = strings.NewReplacer(append(names, "<id>", last.ID)...)
				if strings.Contains(command, "Prefer: wait") {
					assert.Regexp(t, `"status": ?"deployed"`, output)
				}
			case strings.Contains(command, " -X DELETE "):
				last.AwaitEnd(t, removalMargin, "Stopped")
			case strings.Contains(command, "text/event-stream"):
				assert.Contains(t, output, `"phase":"deployed"`)
			case strings.HasPrefix(command, "curl "):
				assert.Contains(t, output, last.ID, "%s", command)
			case strings.Contains(command, " get pods "):
				assert.Contains(t, output, last.PodName())
			case strings.Contains(command, " get events"):
				assert.NotEmpty(t, output)
			}
		}
	}
	assert.Equal(t, suite.API.Key(), shell.Variable(t, "KEY"))
}

// TestClusterCommands runs the commands of cluster/README.md that look at the cluster.
func TestClusterCommands(t *testing.T) {
	t.Parallel()
	script := commands.For(t, "..")
	cluster := suite.Kube.ClusterDir()
	shell := reader(t, "..", ".cluster/bin", filepath.Join(cluster, "bin"))
	for _, block := range script.All() {
		for _, command := range block.Commands() {
			output := script.RunCommand(t, shell, block, command)
			switch {
			case strings.Contains(command, "export "):
				assert.Equal(t, suite.Kube.Kubeconfig(), shell.Variable(t, "KUBECONFIG"))
			case strings.Contains(command, " kubeconfig "):
				assert.Equal(t, suite.Kube.Kubeconfig(), strings.TrimSpace(output))
			case strings.Contains(command, " logs "):
				assert.Equal(t, 50, strings.Count(output, "\n"))
			case strings.Contains(command, " get nodes"):
				assert.Regexp(t, ` Ready `, output)
			default:
				assert.Contains(t, output, "kubelet")
			}
		}
	}
}
