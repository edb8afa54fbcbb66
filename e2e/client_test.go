//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/binder-project/binder-deploy-kubernetes/e2e/harness"
)

const unknownID = "00000000000000000000000000000000"

func TestClientModule(t *testing.T) {
	t.Parallel()
	key := suite.API.Key()

	deployed := suite.CallClient(t, key, "deploy", map[string]any{"template-name": "echo", "cull-timeout": 600_000})
	require.Nil(t, deployed.Error)
	var launched struct{ ID string }
	require.NoError(t, json.Unmarshal(deployed.Result, &launched))
	require.Regexp(t, `^[0-9a-f]{32}$`, launched.ID)
	suite.Adopt(t, "echo", launched.ID)

	var status harness.Status
	harness.Until(t, time.Minute, "binder-client shows the instance as deployed", func(context.Context) error {
		answer := suite.CallClient(t, key, "status", map[string]any{"template-name": "echo", "id": launched.ID})
		require.Nil(t, answer.Error)
		status = harness.Status{}
		require.NoError(t, json.Unmarshal(answer.Result, &status))
		if status.Status != "deployed" {
			return fmt.Errorf("status is %s", status.Status)
		}
		return nil
	})
	assert.Equal(t, harness.PublicHost+"/user/"+launched.ID, status.Location)

	// The other replica may answer, which learns of the instance a moment later.
	harness.Until(t, 10*time.Second, "binder-client lists the instance", func(context.Context) error {
		all := suite.CallClient(t, key, "statusAll", map[string]any{"template-name": "echo"})
		require.Nil(t, all.Error)
		var list []harness.Status
		require.NoError(t, json.Unmarshal(all.Result, &list))
		if !slices.Contains(list, status) {
			return fmt.Errorf("%+v is not among %+v", status, list)
		}
		return nil
	})
}

func TestClientModuleErrors(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, key, method string
		options           map[string]any
		want              string
	}{
		{"wrong key", "wrong", "statusAll", map[string]any{"template-name": "echo"}, "Unauthorized request"},
		{"unknown template", "", "deploy", map[string]any{"template-name": "nowhere", "cull-timeout": 60_000}, "nowhere"},
		{"unknown id", "", "status", map[string]any{"template-name": "echo", "id": unknownID}, "no record"},
		{"bad timeout", "", "deploy", map[string]any{"template-name": "echo", "cull-timeout": -1}, "cull-timeout"},
	} {
		t.Run(test.name, func(t *testing.T) {
			answer := suite.CallClient(t, test.key, test.method, test.options)
			require.NotNil(t, answer.Error, "result: %s", answer.Result)
			assert.Contains(t, *answer.Error, test.want)
			assert.Empty(t, answer.Result)
		})
	}
}

func TestClientCommandLine(t *testing.T) {
	t.Parallel()
	key := suite.API.Key()

	stdout, stderr := suite.RunClient(t, key, "deploy", "echo", "600000")
	match := regexp.MustCompile(`"id": "([0-9a-f]{32})"`).FindStringSubmatch(stdout)
	require.NotNil(t, match, "%s%s", stdout, stderr)
	instance := suite.Adopt(t, "echo", match[1]).AwaitDeployed(t)
	assert.Equal(t, "10m0s", instance.Pod(t).Annotations["binder-project.org/cull-timeout"], "binder sends it as a string")

	stdout, _ = suite.RunClient(t, key, "status", "echo", instance.ID)
	assert.Contains(t, stdout, `"status": "deployed"`)
	assert.Contains(t, stdout, `"location": "`+instance.Location()+`"`)

	stdout, _ = suite.RunClient(t, key, "status-all", "echo")
	assert.Contains(t, stdout, instance.ID)

	_, stderr = suite.RunClient(t, "wrong", "status-all", "echo")
	assert.Contains(t, stderr, "Unauthorized request")
	// binder prints the service's errors to standard output.
	stdout, _ = suite.RunClient(t, key, "deploy", "nowhere", "600000")
	assert.Regexp(t, "Error: .*nowhere", stdout)
	stdout, _ = suite.RunClient(t, key, "status", "echo", unknownID)
	assert.Regexp(t, "Error: .*no record", stdout)
}
