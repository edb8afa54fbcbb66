//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/binder-project/binder-deploy-kubernetes/e2e/commands"
	"github.com/binder-project/binder-deploy-kubernetes/e2e/harness"
)

// TestKubectl runs the commands of docs/operate.md, "With kubectl", with the names of this
// test. Those that change nodes or the service are tried and not carried out.
func TestKubectl(t *testing.T) {
	t.Parallel()
	script := commands.For(t, "..")
	const template = "echo-kubectl"
	newPool(t, template, 1)
	awaitWarm(t, template, 1, anyPod)
	first, second := suite.Launch(t, template, harness.LongTimeout).AwaitDeployed(t), suite.Launch(t, template, harness.LongTimeout).AwaitDeployed(t)
	shell := reader(t, "..", append(suiteNames(template), "<name>", first.PodName(), "<node>", first.Pod(t).Spec.NodeName,
		" drain ", " drain --dry-run=server ", " set env ", " set env --dry-run=server ")...)
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
	for _, block := range script.All() {
		for _, line := range block.Commands() {
			run := func() string { return script.RunCommand(t, shell, block, line) }
			switch {
			case strings.Contains(line, "custom-columns"):
				row := ` +` + template + ` +Running +True +\S+Z +\S+Z +launch\n`
				awaitOutput(t, run, first.PodName()+row, second.PodName()+row)
			case strings.Contains(line, " describe "): // the Event is written after the launch
				awaitOutput(t, run, `Normal +Deployed .* Launched from the warm pool, and deployed after [\d.]+m?s\.`)
			case strings.Contains(line, " get pods "):
				awaitOutput(t, run, first.PodName(), second.PodName())
			default:
				run()
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
}

// awaitOutput runs a command until its output has all that the expressions match.
func awaitOutput(t *testing.T, run func() string, expressions ...string) {
	t.Helper()
	harness.Until(t, removalMargin, "the command prints what it should", func(context.Context) error {
		output := run()
		for _, expression := range expressions {
			if !regexp.MustCompile(expression).MatchString(output) {
				return fmt.Errorf("there is no %s in\n%s", expression, output)
			}
		}
		return nil
	})
}

// TestKubectlLooks runs the commands that look for causes, and a few that change one pod or
// one template, on an instance that runs and one that has ended.
func TestKubectlLooks(t *testing.T) {
	t.Parallel()
	script := commands.For(t, "..")
	const template = "echo-looks"
	suite.CopyTemplate(t, "echo", template, func(template *corev1.PodTemplate) {
		template.Annotations = map[string]string{"binder-project.org/port": "8888", poolSizeAnnotation: "many"}
	})
	running, ended := suite.Launch(t, template, harness.LongTimeout).AwaitDeployed(t), suite.Launch(t, template, harness.LongTimeout).AwaitDeployed(t)
	suite.API.Do(t, http.MethodDelete, "/applications/"+template+"/"+ended.ID, "", "Authorization", suite.API.Key())
	ended.AwaitEnd(t, removalMargin, "Stopped")
	suite.API.Do(t, http.MethodPost, "/preload/"+template, "", "Authorization", suite.API.Key())
	names := append(suiteNames(template), "<name>", running.PodName())
	ofRunning, ofEnded := reader(t, "..", append(names, "<id>", running.ID)...), reader(t, "..", append(names, "<id>", ended.ID)...)
	tombstone := "Stopped +pod/" + ended.PodName()
	for _, block := range script.All() {
		for _, line := range block.Commands() {
			shell, want := ofRunning, ""
			switch {
			case strings.Contains(line, "=InvalidAnnotation"):
				want = "InvalidAnnotation +podtemplate/" + template
			case strings.Contains(line, " logs ") && strings.Contains(line, "| grep"):
				shell, want = ofEnded, ended.PodName()
			case strings.Contains(line, " logs "):
				want = `"level":"INFO"`
			case strings.Contains(line, "-o yaml"):
				shell, want = ofEnded, "reason: Stopped"
			case strings.Contains(line, " get event "):
				shell, want = ofEnded, tombstone
			case strings.Contains(line, " get events"):
				want = tombstone
			case strings.Contains(line, "-n binder get pods"):
				want = "binder-deploy-kubernetes-.* Running"
			case strings.Contains(line, " get lease "):
				want = "binder-deploy-kubernetes +binder-deploy-kubernetes-"
			case strings.Contains(line, " get podtemplates"):
				want = template
			case strings.Contains(line, " describe podtemplate "):
				want = poolSizeAnnotation + ": many"
			case strings.Contains(line, " delete daemonset "):
				want = "daemonset.apps .* deleted"
			default:
				want = running.PodName()
			}
			awaitOutput(t, func() string { return script.RunCommand(t, shell, block, line) }, want)
		}
	}
	assert.Equal(t, "4h", running.Pod(t).Annotations["binder-project.org/cull-timeout"])
}

// TestKubectlInSentences runs the commands that look, and stand in a sentence.
func TestKubectlInSentences(t *testing.T) {
	t.Parallel()
	found, err := commands.Sentences("..", `kubectl -n binder(?:-instances)? (?:get|describe|rollout history) `)
	require.NoError(t, err)
	require.Greater(t, len(found), 5)
	shell := reader(t, "..", append(suiteNames("echo"), "<name>", "echo")...)
	for _, command := range found {
		shell.Run(t, "a sentence", command)
	}
}
