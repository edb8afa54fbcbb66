//go:build e2e

package e2e

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/binder-project/binder-deploy-kubernetes/e2e/harness"
)

// adminPage is the admin page, at a host that the service does not know: operators come by
// port-forward, or by a name of their own.
const adminPage = "http://binder.test:18084/admin/"

// giveKey gives the page a key, as an operator does.
func (b *browser) giveKey(key string) {
	b.t.Helper()
	eval[bool](b, fmt.Sprintf(`(document.getElementById('key').value = %q, true)`, key))
	b.click("#login button")
}

// adminRow is a JavaScript expression for the row of an instance, undefined if there is none.
func adminRow(instance *harness.Instance) string {
	return fmt.Sprintf(`[...document.querySelectorAll('tbody tr')].find((row) => row.innerText.includes(%q))`, instance.PodName())
}

// adminSection is a JavaScript expression for the section of a template.
func adminSection(template string) string {
	return fmt.Sprintf(`[...document.querySelectorAll('#templates section')].find((section) => section.querySelector('h2').textContent === %q)`, template)
}

// TestAdmin follows an operator: a wrong key, the right one, one instance is stopped, and all
// of a template. The page shows each change by itself.
func TestAdmin(t *testing.T) {
	t.Parallel()
	const template, broken = "admin-echo", "admin-broken"
	const hostile = `<img/src=x/onerror=window.hostile=1><script>window.hostile=1</script>`
	suite.CopyTemplate(t, "echo", template, func(template *corev1.PodTemplate) {
		template.Annotations["binder-project.org/max-instances"] = "4"
	})
	suite.CopyTemplate(t, "echo", broken, func(template *corev1.PodTemplate) {
		template.Template.Spec.Containers[0].Image = hostile
	})
	first := suite.Launch(t, template, harness.LongTimeout).AwaitDeployed(t)
	failed := suite.Launch(t, broken, harness.LongTimeout)

	b := openBrowser(t)
	b.open(adminPage)
	assert.Equal(t, "What runs", b.text("h1"))
	b.screenshot("admin-login")
	b.giveKey("wrong")
	b.await(pageWait, `document.getElementById('message').textContent === 'The service does not accept this key.'`)
	assert.True(t, eval[bool](b, `document.getElementById('state').hidden && !document.getElementById('login').hidden`))

	b.giveKey(suite.API.Key())
	b.await(pageWait, `document.getElementById('live').textContent === 'Live' && document.getElementById('login').hidden`)
	b.await(pageWait, `/● deployed/.test(`+adminRow(first)+`?.innerText)`)
	facts := eval[string](b, adminSection(template)+`.querySelector('.facts').textContent`)
	assert.Equal(t, "1 deployed, 0 starting, 0 failed; 1 of 4 allowed.", facts)
	row := eval[string](b, adminRow(first)+`.innerText`)
	assert.Regexp(t, `\d (s|min)\b.*\d (s|min) \(\w+\)[\s\S]*, in \d+ (min|h)`, row, "age, idle for and cull at")
	b.await(pageWait, adminRow(failed)+`?.querySelector('.status').dataset.status === 'failed'`)
	assert.Contains(t, eval[string](b, adminRow(failed)+`.innerText`), hostile, "as text")
	limits := eval[string](b, `document.getElementById('limits').innerText`)
	assert.Contains(t, limits, "pods: ")
	assert.Contains(t, limits, "services: none allowed")
	b.screenshot("admin")
	eval[bool](b, `(`+adminSection(broken)+`.scrollIntoView(), true)`)
	b.screenshot("admin-rows")

	// The page's stream is what docs/openapi.json says.
	event := eval[string](b, fmt.Sprintf(`(async () => {
		const answer = await fetch('/admin/state', {headers: {Authorization: %q, Accept: 'text/event-stream'}});
		const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
		let text = '';
		while (!text.includes('\n\n')) {
			text += (await reader.read()).value;
		}
		await reader.cancel();
		return text;
	})()`, suite.API.Key()))
	state, ok := strings.CutPrefix(strings.TrimSuffix(event, "\n\n"), "event: state\ndata: ")
	require.True(t, ok, event)
	require.NoError(t, suite.API.Document().CheckSchema("AdminState", []byte(state)))

	// Launched while the page is open: no reload.
	second, third := suite.Launch(t, template, harness.LongTimeout), suite.Launch(t, template, harness.LongTimeout)
	b.await(pageWait, `[`+adminRow(second)+`, `+adminRow(third)+`].every((row) => row?.innerText.includes('● deployed'))`)

	eval[bool](b, `(`+adminRow(first)+`.querySelector('button').click(), true)`)
	b.await(pageWait, `document.getElementById('confirm').open`)
	b.screenshot("admin-confirm")
	b.click("#confirm button[value=cancel]")
	b.await(pageWait, `!document.getElementById('confirm').open`)
	assert.Equal(t, "deployed", first.Status(t).Status)
	eval[bool](b, `(`+adminRow(first)+`.querySelector('button').click(), true)`)
	b.click("#confirm button[value=stop]")
	b.await(pageWait, adminRow(first)+` === undefined`)
	first.AwaitEnd(t, removalMargin, "Stopped")
	assert.True(t, eval[bool](b, adminRow(second)+` !== undefined && `+adminRow(third)+` !== undefined`), "the others go on")

	eval[bool](b, `(`+adminSection(template)+`.querySelector('.title button').click(), true)`)
	b.await(pageWait, `document.getElementById('confirm-text').textContent === 'Stop all instances of `+template+`?'`)
	b.click("#confirm button[value=stop]")
	b.await(pageWait, `[`+adminRow(second)+`, `+adminRow(third)+`].every((row) => row === undefined)`)
	for _, instance := range []*harness.Instance{second, third} {
		instance.AwaitEnd(t, removalMargin, "Stopped")
	}
	assert.Equal(t, "", b.text("#message"))
	assert.True(t, eval[bool](b, adminRow(failed)+` !== undefined`), "of another template")
	assert.Equal(t, 1, b.loadCount(), "documents loaded")

	// Nothing of strangers runs, no id is in sight, and the key is nowhere but in memory.
	assert.True(t, eval[bool](b, `window.hostile === undefined`))
	html := eval[string](b, `document.documentElement.outerHTML`)
	for _, secret := range []string{suite.API.Key(), first.ID, second.ID, failed.ID} {
		assert.False(t, strings.Contains(html, secret), "%s is in the page", secret)
	}
	assert.True(t, eval[bool](b, `localStorage.length === 0 && sessionStorage.length === 0 && document.cookie === '' && document.getElementById('key').value === ''`))
	b.wantNoPageErrors()
	b.open(adminPage)
	require.True(t, eval[bool](b, `document.getElementById('state').hidden && !document.getElementById('login').hidden`), "a reload forgets the key")
}
