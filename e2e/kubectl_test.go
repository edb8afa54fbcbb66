//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/binder-project/binder-deploy-kubernetes/e2e/harness"
)

// TestKubectl runs the commands of docs/operate.md, "With kubectl", with the names of this
// test. Those that change nodes or the service are tried and not carried out.
func TestKubectl(t *testing.T) {
	t.Parallel()
	const template = "echo-kubectl"
	newPool(t, template, 1)
	awaitWarm(t, template, 1, anyPod)
	first, second := suite.Launch(t, template, harness.LongTimeout).AwaitDeployed(t), suite.Launch(t, template, harness.LongTimeout).AwaitDeployed(t)
	names := strings.NewReplacer("binder-instances", harness.InstancesNamespace, "-n binder ", "-n "+harness.Namespace+" ",
		"jupyter", template, "<name>", first.PodName(), "<node>", first.Pod(t).Spec.NodeName, "docs/columns.txt", "../docs/columns.txt")
	launch := func() harness.Answer {
		answer := suite.API.Do(t, http.MethodPost, "/applications/"+template, "")
		if answer.Code == http.StatusOK {
			var launched struct{ ID string }
			answer.Decode(t, &launched)
			suite.Adopt(t, template, launched.ID)
		}
		return answer
	}
	pausedLimit := regexp.MustCompile(`"limit": ?"paused"`)
	for _, line := range kubectlCommands(t) {
		command := names.Replace(line)
		if strings.Contains(command, " drain ") || strings.Contains(command, " set env ") {
			command += " --dry-run=server"
		}
		switch {
		case strings.Contains(line, "custom-columns"):
			row := ` +` + template + ` +Running +True +\S+Z +\S+Z +launch\n`
			awaitOutput(t, command, first.PodName()+row, second.PodName()+row)
		case strings.Contains(line, " describe "): // the Event is written after the launch
			awaitOutput(t, command, `Normal +Deployed .* Launched from the warm pool, and deployed after [\d.]+m?s\.`)
		case strings.Contains(line, " get pods "):
			awaitOutput(t, command, first.PodName(), second.PodName())
		default:
			suite.Kube.Kubectl(t, command)
		}
		switch {
		case strings.Contains(line, "delete pod <name>"):
			first.AwaitEnd(t, removalMargin, "Gone")
		case strings.Contains(line, "delete pods"):
			second.AwaitEnd(t, removalMargin, "Gone")
		case strings.Contains(line, "max-instances=0"):
			harness.Until(t, removalMargin, "launches are paused", func(context.Context) error {
				if answer := launch(); answer.Code != http.StatusTooManyRequests || !pausedLimit.Match(answer.Body) {
					return fmt.Errorf("it returned %d: %s", answer.Code, answer.Body)
				}
				return nil
			})
		case strings.Contains(line, "max-instances-"):
			harness.Until(t, removalMargin, "launches go on", func(context.Context) error {
				if answer := launch(); answer.Code != http.StatusOK {
					return fmt.Errorf("it returned %d: %s", answer.Code, answer.Body)
				}
				return nil
			})
		}
	}
}

// awaitOutput runs a command until its output has all that the expressions match.
func awaitOutput(t *testing.T, command string, expressions ...string) {
	t.Helper()
	harness.Until(t, removalMargin, command, func(context.Context) error {
		output := suite.Kube.Kubectl(t, command)
		for _, expression := range expressions {
			if !regexp.MustCompile(expression).MatchString(output) {
				return fmt.Errorf("there is no %s in\n%s", expression, output)
			}
		}
		return nil
	})
}

// kubectlCommands returns the commands of the section, in their order.
func kubectlCommands(t *testing.T) []string {
	t.Helper()
	commands := regexp.MustCompile(`(?m)^kubectl .*$`).FindAllString(operateSection(t, "## With kubectl"), -1)
	require.Len(t, commands, 11)
	return commands
}
