//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/binder-project/binder-deploy-kubernetes/e2e/harness"
)

// TestProtocolErrors checks that every error is a JSON object of the protocol, which
// is all that binder-client understands, and that no replica crashes.
func TestProtocolErrors(t *testing.T) {
	t.Parallel()
	before := restarts(t)
	key := suite.API.Key()
	instance := suite.Launch(t, "echo", harness.LongTimeout)
	for _, test := range []struct {
		name, method, path, body string
		header                   []string
		code                     int
		kind, contains           string
		undescribed              []string
	}{
		{name: "empty object", method: "POST", path: "/applications/", body: `{}`, code: 422, kind: "malformedRequest", contains: "template-name"},
		{name: "no body", method: "POST", path: "/applications/", code: 422, kind: "malformedRequest", contains: "template-name"},
		{name: "not JSON", method: "POST", path: "/applications/", body: `template-name=echo`, code: 422, kind: "malformedRequest"},
		{name: "list", method: "POST", path: "/applications/", body: `["echo"]`, code: 422, kind: "malformedRequest"},
		{name: "null", method: "POST", path: "/applications/", body: `null`, code: 422, kind: "malformedRequest"},
		{name: "name is not a string", method: "POST", path: "/applications/", body: `{"template-name": 7}`, code: 422, kind: "malformedRequest", contains: "template-name"},
		{name: "two names", method: "POST", path: "/applications/echo", body: `{"template-name": "jupyter"}`, code: 422, kind: "malformedRequest", contains: "template-name"},
		{name: "name in the query", method: "POST", path: "/applications/?template-name=echo", body: `{}`, undescribed: []string{"template-name"}, code: 422, kind: "malformedRequest", contains: "template-name"},
		{name: "unknown template in the body", method: "POST", path: "/applications/", body: `{"template-name": "nowhere"}`, code: 404, kind: "registryError", contains: "nowhere"},
		{name: "unknown template in the path", method: "POST", path: "/applications/nowhere", code: 404, kind: "registryError", contains: "nowhere"},
		{name: "invalid template name", method: "POST", path: "/applications/", body: `{"template-name": "../echo"}`, code: 404, kind: "registryError"},
		{name: "unknown id", method: "GET", path: "/applications/echo/" + unknownID, code: 404, kind: "noRecord"},
		{name: "malformed id", method: "GET", path: "/applications/echo/1", code: 404, kind: "noRecord"},
		{name: "id in capitals", method: "GET", path: "/applications/echo/" + strings.Repeat("A", 32), code: 404, kind: "noRecord"},
		{name: "another template's id", method: "GET", path: "/applications/jupyter/" + instance.ID, code: 404, kind: "noRecord"},
		{name: "stop without the key", method: "DELETE", path: "/applications/echo/" + instance.ID, code: 403, kind: "unauthorized"},
		{name: "stop an unknown id", method: "DELETE", path: "/applications/echo/" + unknownID, header: []string{"Authorization", key}, code: 404, kind: "noRecord"},
		{name: "stop another template's id", method: "DELETE", path: "/applications/jupyter/" + instance.ID, header: []string{"Authorization", key}, code: 404, kind: "noRecord"},
		{name: "list without the key", method: "GET", path: "/applications/echo", code: 403, kind: "unauthorized"},
		{name: "list all without the key", method: "GET", path: "/applications/", code: 403, kind: "unauthorized"},
		{name: "list with a wrong key", method: "GET", path: "/applications/", header: []string{"Authorization", key + "0"}, code: 403, kind: "unauthorized"},
		{name: "list with an empty key", method: "GET", path: "/applications/", header: []string{"Authorization", "token "}, code: 403, kind: "unauthorized"},
		{name: "key in the query", method: "GET", path: "/applications/?api-key=" + key, undescribed: []string{"api-key"}, code: 403, kind: "unauthorized"},
		{name: "wrong method on all", method: "PUT", path: "/applications/", body: `{}`, code: 405, kind: "malformedRequest"},
		{name: "wrong method on one", method: "PATCH", path: "/applications/echo/" + instance.ID, body: `{}`, code: 405, kind: "malformedRequest"},
		{name: "unknown endpoint", method: "GET", path: "/nowhere", code: 404, kind: "malformedRequest"},
		{name: "too deep", method: "GET", path: "/applications/echo/" + instance.ID + "/more", code: 404, kind: "malformedRequest"},
		{name: "root", method: "GET", path: "/", code: 404, kind: "malformedRequest"},
	} {
		t.Run(test.name, func(t *testing.T) {
			answer := suite.API.Sending(test.undescribed...).Do(t, test.method, test.path, test.body, test.header...)
			body := answer.WantError(t, test.code, test.kind)
			assert.Contains(t, body.Error, test.contains)
			assert.Contains(t, answer.Header.Get("Content-Type"), "application/json")
			if test.code == http.StatusMethodNotAllowed {
				assert.Contains(t, answer.Header.Get("Allow"), http.MethodGet)
			}
		})
	}
	assert.Equal(t, before, restarts(t), "a replica has crashed")
}

// TestCullTimeoutRefused checks that an invalid cull timeout is refused, and that the
// error names the field.
func TestCullTimeoutRefused(t *testing.T) {
	t.Parallel()
	for _, value := range []string{
		`0`, `-1`, `-0.5`, `"0"`, `"-60000"`, `1`, `999`, `"999.9"`, `7200001`, `"7200001"`, `1e300`, `1e999`, `"1e999"`, `"NaN"`, `"Infinity"`,
		`""`, `"soon"`, `"1h"`, `"0x10"`, `true`, `[]`, `{}`,
	} {
		t.Run(value, func(t *testing.T) {
			answer := suite.API.Do(t, "POST", "/applications/", `{"template-name": "echo-once", "cull-timeout": `+value+`}`)
			body := answer.WantError(t, http.StatusUnprocessableEntity, "malformedRequest")
			assert.Contains(t, body.Error, "cull-timeout")
		})
	}
}

func TestLargeBodyRefused(t *testing.T) {
	t.Parallel()
	body := `{"template-name": "` + strings.Repeat("x", 70<<10) + `"}`
	answer := suite.API.Do(t, "POST", "/applications/", body)
	if answer.Code != http.StatusUnprocessableEntity {
		answer.WantError(t, http.StatusRequestEntityTooLarge, "malformedRequest")
	}
}

// TestWaysToLaunch checks every form of launch request that some client uses.
func TestWaysToLaunch(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ name, path, body, timeout string }{
		{"in the body", "/applications/", `{"template-name": "echo"}`, ""},
		{"in the body, no slash", "/applications", `{"template-name": "echo"}`, ""},
		{"in the path", "/applications/echo", ``, ""},
		{"in the path, with a slash", "/applications/echo/", `{}`, ""},
		{"in both", "/applications/echo", `{"template-name": "echo"}`, ""},
		{"a number", "/applications/", `{"template-name": "echo", "cull-timeout": 600000}`, "10m0s"},
		{"a numeric string", "/applications/", `{"template-name": "echo", "cull-timeout": "600000"}`, "10m0s"},
		{"a fraction", "/applications/", `{"template-name": "echo", "cull-timeout": 600000.5}`, "10m0.0005s"},
		{"the longest allowed", "/applications/", `{"template-name": "echo", "cull-timeout": 7200000}`, "2h0m0s"},
		{"null", "/applications/", `{"template-name": "echo", "cull-timeout": null}`, ""},
		{"camel case", "/applications/", `{"templateName": "echo", "cullTimeout": 600000}`, "10m0s"},
		{"unknown fields", "/applications/", `{"template-name": "echo", "flavour": {"of": ["the", "day"]}}`, ""},
		{"query parameters", "/applications/echo?template-name=jupyter&cull-timeout=-1", `{}`, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			var launched struct{ ID string }
			api := suite.API.Sending("flavour", "template-name", "cull-timeout") // what the last two send is ignored
			api.Do(t, "POST", test.path, test.body).Decode(t, &launched)
			instance := suite.Adopt(t, "echo", launched.ID)
			pod := instance.Pod(t)
			assert.Equal(t, test.timeout, pod.Annotations["binder-project.org/cull-timeout"])
			assert.Equal(t, "echo", pod.Annotations["binder-project.org/template-name"])
			assert.Equal(t, launched.ID, suite.API.Status(t, "echo", launched.ID+"/").ID, "with a trailing slash")
		})
	}
}

// TestAuthorization checks the protocol's form, the bare key, and forms that other
// clients use.
func TestAuthorization(t *testing.T) {
	t.Parallel()
	instance := suite.Launch(t, "echo", harness.LongTimeout)
	for _, form := range []string{"%", "token %", "Bearer %", "bearer %"} {
		for _, path := range []string{"/applications/echo", "/applications/echo/", "/applications", "/applications/"} {
			what := fmt.Sprintf("GET %s with %q", path, form)
			harness.Until(t, 10*time.Second, what, func(context.Context) error { // a replica may learn of the instance a moment later
				var list []harness.Status
				suite.API.Do(t, "GET", path, "", "Authorization", strings.Replace(form, "%", suite.API.Key(), 1)).Decode(t, &list)
				if !slices.ContainsFunc(list, func(status harness.Status) bool { return status.ID == instance.ID }) {
					return fmt.Errorf("the list does not contain %s", instance.ID)
				}
				return nil
			})
		}
	}
}

func TestListOfUnknownTemplateIsEmpty(t *testing.T) {
	t.Parallel()
	answer := suite.API.Do(t, "GET", "/applications/nowhere", "", "Authorization", suite.API.Key())
	assert.Equal(t, http.StatusOK, answer.Code)
	assert.JSONEq(t, "[]", string(answer.Body))
}

// TestLocation checks that a status has a location only once the instance answers,
// because clients treat an instance with a location as ready.
func TestLocation(t *testing.T) {
	t.Parallel()
	instance := suite.Launch(t, "echo", harness.LongTimeout)
	for end := time.Now().Add(harness.StartTimeout); ; {
		status := instance.Status(t)
		if status.Status == "deployed" {
			assert.Equal(t, instance.Location(), status.Location, "must be host and path without a scheme")
			code, page := visit(t, "GET", instance.URL("/"), nil)
			assert.Equal(t, http.StatusOK, code, page)
			break
		}
		require.Contains(t, []string{"pending", "deploying"}, status.Status)
		require.Empty(t, status.Location, "a location while %s", status.Status)
		require.True(t, time.Now().Before(end), "the instance is not deployed in time")
	}
}

// TestStop checks that a request stops an instance.
func TestStop(t *testing.T) {
	t.Parallel()
	instance := suite.Launch(t, "echo", harness.LongTimeout).AwaitDeployed(t)
	for range 2 { // a repeated stop succeeds, too
		var status harness.Status
		suite.API.Do(t, "DELETE", "/applications/echo/"+instance.ID, "", "Authorization", suite.API.Key()).Decode(t, &status)
		assert.Equal(t, instance.ID, status.ID)
		assert.Equal(t, "deleted", status.Status)
		assert.Empty(t, status.Location)
		instance.AwaitEnd(t, removalMargin, "Stopped")
	}
}
