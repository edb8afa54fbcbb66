//go:build e2e

package e2e

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/binder-project/binder-deploy-kubernetes/e2e/commands"
	"github.com/binder-project/binder-deploy-kubernetes/e2e/harness"
)

// The tests that run the commands of the documentation read them there, by their marks:
// package commands.

// reader returns the shell of somebody who reads the documentation, with kubectl set up for
// the cluster. names are alternately names of the pages and those of the test.
func reader(t *testing.T, dir string, names ...string) *commands.Shell {
	t.Helper()
	cluster := suite.Kube.ClusterDir()
	return commands.NewShell(t, dir, filepath.Join(cluster, "bin"), strings.NewReplacer(names...),
		"KUBECONFIG="+suite.Kube.Kubeconfig(), "BINDER_CLUSTER_DIR="+cluster)
}

// suiteNames returns the names of the suite's namespaces, and of one of its templates.
func suiteNames(template string) []string {
	return []string{
		"binder-instances", harness.InstancesNamespace, "-n binder ", "-n " + harness.Namespace + " ",
		"jupyter", template, "my-project", template, "<template>", template,
	}
}
