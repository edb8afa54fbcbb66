//go:build e2e

package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/binder-project/binder-deploy-kubernetes/e2e/harness"
)

// notProvoked returns the answers in docs/openapi.json that TestEveryAnswerIsSeen cannot
// provoke, with the reasons.
func notProvoked(operations map[string][]string) map[string]string {
	reasons := map[string]string{
		"stopInstance 503": "the API server would have to be away; TestLauncherFails has this answer",
		"getInstance 503":  "the API server would have to be away; TestUnknownWhileBehind has this answer",

		"keepInstanceAlive 503": "the API server would have to be away; TestKeepAliveMeetsOthers has the error",
	}
	for operation := range operations {
		reasons[operation+" 421"] = "the service under test has no --instance-domain; TestAppAtEveryHost has this answer"
	}
	return reasons
}

// TestEveryAnswerIsSeen provokes every answer that docs/openapi.json has. The client
// compares each with the document, as it does for all tests of the API.
func TestEveryAnswerIsSeen(t *testing.T) {
	t.Parallel()
	const paused, preloaded = "openapi-paused", "openapi-preloaded"
	suite.CopyTemplate(t, "echo", paused, func(template *corev1.PodTemplate) {
		template.Annotations["binder-project.org/max-instances"] = "0"
	})
	suite.CopyTemplate(t, "echo", preloaded)
	replica := suite.Replicas(t)[0].API
	one := "/applications/echo/" + suite.LaunchAt(t, replica, "echo", harness.LongTimeout).ID
	key := []string{"Authorization", suite.API.Key()}
	elsewhere := append([]string{"Origin", "https://elsewhere.example", "Sec-Fetch-Site", "cross-site"}, key...)
	etag := replica.Do(t, http.MethodGet, "/openapi.json", "").Header.Get("ETag")
	require.NotEmpty(t, etag)
	named := func(template string) string { return fmt.Sprintf(`{"template-name": %q}`, template) }
	large := named(strings.Repeat("x", 64<<10))

	seen := map[string]bool{}
	for _, request := range []struct {
		method, path, body string
		header             []string
		code               int
	}{
		{"POST", "/applications", named("echo"), []string{"Idempotency-Key", "openapi-" + suite.API.Key()}, 200},
		{"POST", "/applications", named("echo"), []string{"Prefer", "wait=60", "X-Forwarded-For", "192.0.2.1"}, 200},
		{"POST", "/applications", named("echo"), elsewhere, 403},
		{"POST", "/applications", named("nowhere"), nil, 404},
		{"POST", "/applications", large, nil, 413},
		{"POST", "/applications", "", nil, 422},
		{"POST", "/applications", named(paused), nil, 429},
		{"POST", "/applications", named(harness.RegistryBadLimit), nil, 500},
		{"POST", "/applications", named(harness.RegistryBroken), nil, 503},
		{"GET", "/applications", "", key, 200},
		{"GET", "/applications", "", append([]string{"Accept-Encoding", "gzip"}, key...), 200},
		{"GET", "/applications", "", nil, 403},
		{"POST", "/applications/echo", "", key, 200},
		{"POST", "/applications/echo", "", elsewhere, 403},
		{"POST", "/applications/nowhere", "", nil, 404},
		{"POST", "/applications/echo", large, nil, 413},
		{"POST", "/applications/echo", `{"cull-timeout": 0}`, nil, 422},
		{"POST", "/applications/" + paused, "", nil, 429},
		{"POST", "/applications/" + harness.RegistryBadLimit, "", nil, 500},
		{"POST", "/applications/" + harness.RegistryBroken, "", nil, 503},
		{"GET", "/applications/echo", "", key, 200},
		{"GET", "/applications/echo", "", nil, 403},
		{"GET", one, "", nil, 200},
		{"GET", one, "", []string{"Prefer", "wait=60", "Origin", "https://pages.example"}, 200},
		{"GET", one, "", []string{"Accept", "text/event-stream"}, 200},
		{"HEAD", one, "", nil, 200},
		{"GET", "/applications/echo/" + unknownID, "", nil, 404},
		{"GET", one + "?watch=maybe", "", []string{"Accept", "text/event-stream"}, 422},
		{"POST", one + "/keep-alive", `{"cull-timeout": 3600000}`, nil, 200},
		{"POST", one + "/keep-alive", `{"cull-timeout": 3660000}`, nil, 429},
		{"POST", one + "/keep-alive", `{"cull-timeout": 0}`, nil, 422},
		{"POST", one + "/keep-alive", `{"cull-timeout": "` + strings.Repeat(" ", 64<<10) + `"}`, nil, 413},
		{"POST", one + "/keep-alive", "", elsewhere, 403},
		{"POST", "/applications/echo/" + unknownID + "/keep-alive", "", nil, 404},
		{"DELETE", one, "", nil, 403},
		{"DELETE", one, "", key, 200},
		{"POST", one + "/keep-alive", "", nil, 410},
		{"DELETE", "/applications/echo/" + unknownID, "", key, 404},
		{"GET", "/preload/" + preloaded, "", key, 200},
		{"POST", "/preload/" + preloaded, "", nil, 403},
		{"POST", "/preload/" + preloaded, "", key, 200},
		{"POST", "/preload/nowhere", "", key, 404},
		{"POST", "/preload/" + harness.RegistryBadLimit, "", key, 500},
		{"POST", "/preload/" + harness.RegistryBroken, "", key, 503},
		{"GET", "/preload/" + preloaded, "", key, 200},
		{"GET", "/preload/" + preloaded, "", nil, 403},
		{"GET", "/preload/nowhere", "", key, 404},
		{"GET", "/preload/" + harness.RegistryBadLimit, "", key, 500},
		{"GET", "/preload/" + harness.RegistryBroken, "", key, 503},
		{"GET", "/admin/", "", nil, 200},
		{"GET", "/admin/state", "", key, 200},
		{"GET", "/admin/state", "", nil, 403},
		{"GET", "/openapi.json", "", nil, 200},
		{"HEAD", "/openapi.json/", "", nil, 200},
		{"GET", "/openapi.json", "", []string{"If-None-Match", etag}, 304},
	} {
		what := request.method + " " + request.path
		answer := replica.WithExtraTimeout(heldAtMost).Do(t, request.method, request.path, request.body, request.header...)
		if !assert.Equal(t, request.code, answer.Code, "%s: %.200s", what, answer.Body) {
			continue
		}
		operation := suite.API.Document().Operation(request.method, request.path)
		seen[fmt.Sprintf("%s %d", operation, answer.Code)] = true
		if operation == "launch" || operation == "launchTemplate" {
			adoptLaunched(t, answer)
		}
	}

	operations := suite.API.Document().Operations()
	reasons := notProvoked(operations)
	for operation, codes := range operations {
		for _, code := range codes {
			answer := operation + " " + code
			_, excused := reasons[answer]
			assert.True(t, seen[answer] != excused, "%s: seen is %t, and in the list of those that cannot be is %t", answer, seen[answer], excused)
			delete(reasons, answer)
		}
	}
	assert.Empty(t, reasons, "the document does not have these")
}

// adoptLaunched stops an instance of the template echo, if there is one, when the test ends.
func adoptLaunched(t *testing.T, answer harness.Answer) {
	t.Helper()
	if answer.Code == http.StatusOK {
		var launched struct{ ID string }
		answer.Decode(t, &launched)
		suite.Adopt(t, "echo", launched.ID)
	}
}
