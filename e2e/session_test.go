//go:build e2e

package e2e

import (
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/chromedp/cdproto/network"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/binder-project/binder-deploy-kubernetes/e2e/harness"
)

// trustedHost is the public host by an address that Chromium trusts as one of HTTPS: only to such
// it tells who has led to a page, and only then the launch page leads back.
const trustedHost = "http://" + harness.PublicHost

// TestSessionPage follows a visitor who extends an instance, comes back to it by the launch
// link, sees that somebody has stopped it, and stops another one.
func TestSessionPage(t *testing.T) {
	t.Parallel()
	b := openBrowser(t)
	b.open(trustedHost + "/launch/echo")
	instance := b.awaitInstance("echo", "/")
	instance.AwaitDeployed(t)
	session := trustedHost + "/session/" + instance.ID
	b.open(session)
	assert.Equal(t, "Your echo", b.text("h1"))
	b.await(pageWait, `/^\d+:\d\d:\d\d$/.test(document.getElementById('left').textContent)`)
	eval[bool](b, `(document.getElementById('timeout').value = '3600', true)`)
	b.click("form button")
	b.await(pageWait, `/^1:\d\d:\d\d$/.test(document.getElementById('left')?.textContent)`) // and the lag
	b.screenshot("session")
	b.wantAccessible()
	assert.Equal(t, "a request for more time", b.text("#source"))
	annotations := instance.Pod(t).Annotations
	assert.Equal(t, "1h0m0s", annotations["binder-project.org/cull-timeout"])
	assert.Equal(t, "keep-alive", annotations["binder-project.org/last-activity-source"])

	b.open(trustedHost + "/launch/echo?path=a")
	assert.Equal(t, "Go back to it", b.text("main a.button"))
	b.screenshot("back")
	b.wantAccessible()
	b.click("main a.button")
	b.await(pageWait, `location.pathname === '/user/`+instance.ID+`/a'`)
	scripted := eval[string](b, `fetch('/launch/echo').then((answer) => answer.text())`)
	assert.NotContains(t, scripted, instance.ID, "scripts of other instances could read it too")

	b.open(session)
	answer := suite.API.Do(t, http.MethodDelete, "/applications/echo/"+instance.ID, "", "Authorization", suite.API.Key())
	require.Equal(t, http.StatusOK, answer.Code)
	b.awaitHeading("echo was stopped") // by itself

	b.open(trustedHost + "/launch/echo") // which launches, because nothing lives
	another := b.awaitInstance("echo", "/")
	another.AwaitDeployed(t)
	b.open(trustedHost + "/session/" + another.ID)
	b.click("details:last-of-type summary")
	b.click("button.danger")
	b.awaitHeading("echo was stopped")
	another.AwaitEnd(t, removalMargin, "Stopped")
	b.wantNoPageErrors()
}

// TestWatchWarns checks that a client which follows an instance is warned of its end, and then
// told of it.
func TestWatchWarns(t *testing.T) {
	t.Parallel()
	instance := suite.Launch(t, "echo", 30*time.Second)
	events := string(suite.API.WithExtraTimeout(harness.StartTimeout+time.Minute+removalMargin).
		Do(t, http.MethodGet, "/applications/echo/"+instance.ID+"?watch=true", "", "Accept", "text/event-stream").Body)
	assert.Regexp(t, `(?s)event: progress\ndata: \{"phase":"deployed".*event: warning\ndata: \{"phase":"deployed",[^\n]*"cull-at":"[^\n]*\n.*event: progress\ndata: \{"phase":"deleted"`, events)
}

// TestStartPage follows a visitor from the start page, which offers templates with a title.
func TestStartPage(t *testing.T) {
	t.Parallel()
	suite.CopyTemplate(t, "echo", "echo-titled", func(template *corev1.PodTemplate) {
		template.Annotations = map[string]string{
			"binder-project.org/port": "8888", "binder-project.org/title": "Echo, for all", "binder-project.org/description": "It answers with what it is asked.",
		}
	})
	b := openBrowser(t)
	b.open(browserHost + "/")
	assert.Contains(t, b.text("main"), "Echo, for all\nIt answers with what it is asked.")
	assert.NotContains(t, b.text("main"), "echo-warm", "it has no title")
	b.screenshot("start")
	b.wantAccessible()
	b.click(`a[href="/launch/echo-titled"]`)
	instance := b.awaitInstance("echo-titled", "/")
	b.open(browserHost + "/session/" + instance.ID)
	b.await(pageWait, `document.querySelector('h1').textContent === 'Your Echo, for all'`)
	b.wantNoPageErrors()
}

// TestLanguages opens pages as a browser asks for them that is in another language.
func TestLanguages(t *testing.T) {
	t.Parallel()
	for tag, want := range map[string][2]string{
		"de-DE,de;q=0.9": {"de", "echo starten"}, "ja": {"ja", "echo"}, "nl, en;q=0.5": {"en", "Launch echo"},
	} {
		response := fetch(t, http.MethodGet, trustedHost+"/launch/echo", nil, "Accept", "text/html", "Accept-Language", tag)
		page, err := io.ReadAll(response.Body)
		require.NoError(t, err)
		assert.Equal(t, want[0], response.Header.Get("Content-Language"))
		assert.Contains(t, string(page), `<html lang="`+want[0]+`">`)
		assert.Contains(t, string(page), want[1])
	}
	b := openBrowser(t)
	call(b, network.SetExtraHTTPHeaders, network.SetExtraHTTPHeadersParams{Headers: network.Headers{"Accept-Language": "de"}})
	b.open(trustedHost + "/launch/echo")
	instance := b.awaitInstance("echo", "/")
	instance.AwaitDeployed(t)
	b.open(trustedHost + "/session/" + instance.ID)
	assert.Equal(t, "Verbleibende Zeit", b.text("dt"))
	b.await(pageWait, `/^\d+:\d\d:\d\d$/.test(document.getElementById('left').textContent)`)
	b.wantAccessible()
	b.screenshot("session-de")
	b.wantNoPageErrors()
}
