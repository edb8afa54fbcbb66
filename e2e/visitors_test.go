//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/binder-project/binder-deploy-kubernetes/e2e/harness"
)

// frameAncestor is an origin that the Deployment's flag --frame-ancestors allows.
const frameAncestor = "http://frames.test:18000"

// otherOrigin is the proxy's address without its host name: another origin for a
// browser.
const otherOrigin = "http://127.0.0.1:18000"

// TestLaunchThroughALogin launches an application whose first answer redirects to
// another origin. The pods are warm, so nothing comes between the form and that answer.
func TestLaunchThroughALogin(t *testing.T) {
	t.Parallel()
	const template = "echo-login"
	newPool(t, template, 2)
	awaitWarm(t, template, 2, anyPod)
	for name, scripts := range map[string]bool{"with scripts": true, "without scripts": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := openBrowser(t)
			if !scripts {
				call(b, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true})
			}
			b.open("about:blank")
			login := otherOrigin + "${BINDER_BASE_URL}login"
			b.open(browserHost + "/launch/" + template + "?path=" + url.QueryEscape("redirect?to="+url.QueryEscape(login)))
			entries := 2.0 // in the history: the blank page and the login
			if !scripts {
				b.click("button")
				entries = 3 // and the launch page, which launches nothing by itself
			}
			b.await(harness.StartTimeout+pageWait, `location.origin === '`+otherOrigin+`' && location.pathname.endsWith('/login')`)
			match := regexp.MustCompile(`/user/([0-9a-f]{32})/login$`).FindStringSubmatch(b.address())
			require.NotNil(t, match, b.address())
			suite.Adopt(t, template, match[1])
			assert.Equal(t, entries, eval[float64](b, `history.length`), "the way to the instance must not be in the history")
			b.wantNoPageErrors()

			// The page on the way leads to the same instance each time.
			for range 2 {
				b.open(browserHost + "/launch/" + template + "/" + match[1] + "?path=a%2Fb%3Fx%3D1")
				b.await(pageWait, `location.pathname === '/user/`+match[1]+`/a/b' && location.search === '?x=1'`)
			}
		})
	}
}

// TestLaunchPageReload checks that a reload of the launch page launches nothing.
func TestLaunchPageReload(t *testing.T) {
	t.Parallel()
	b := openBrowser(t)
	call(b, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true})
	b.open(browserHost + "/launch/echo")
	call(b, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: false})
	b.do(chromedp.Reload())
	// A launch disables the button while the page loads.
	assert.True(t, eval[bool](b, `document.readyState === 'complete' && !document.querySelector('button').disabled`))
	b.awaitHeading("Launch echo")
	b.click("button")
	b.awaitInstance("echo", "/")
	b.wantNoPageErrors()
}

// TestBadgeParameters checks a badge of mybinder.org in a browser.
func TestBadgeParameters(t *testing.T) {
	t.Parallel()
	b := openBrowser(t)
	b.open(browserHost + "/launch/echo?labpath=a%20b%2F100%25%3F.ipynb")
	b.awaitInstance("echo", "/doc/tree/a%20b/100%25%3F.ipynb")
	// Not before: the page of the progress loads itself again, in place of what is opened meanwhile.
	b.await(harness.StartTimeout+pageWait, `document.readyState === 'complete' && document.querySelector('#progress') === null`)
	b.open(browserHost + "/launch/echo?labpath=a&filepath=b")
	b.awaitHeading("This link is not right")
	b.wantNoPageErrors()
}

// awaitHeading waits until the page has a heading.
func (b *browser) awaitHeading(want string) {
	b.t.Helper()
	b.await(pageWait, `document.querySelector('h1')?.textContent === '`+want+`'`)
}

// framed shows an address in a frame of the present page, and returns the heading that
// the page can read in it: "" if the browser refuses the frame.
func (b *browser) framed(address string) string {
	b.t.Helper()
	return eval[string](b, `new Promise((resolve) => {
		const frame = document.createElement('iframe');
		frame.onload = () => resolve(frame.contentDocument?.querySelector('h1')?.textContent ?? '');
		frame.src = '`+address+`';
		document.body.append(frame);
	})`)
}

// TestPagesInFrames checks who can frame what.
func TestPagesInFrames(t *testing.T) {
	t.Parallel()
	instance := suite.Launch(t, "echo", harness.LongTimeout).AwaitDeployed(t)
	starting := suite.Launch(t, "echo-late", harness.LongTimeout)
	b := openBrowser(t)
	b.open(browserHost + "/user/" + instance.ID + "/")
	assert.Equal(t, "No such instance", b.framed("/user/"+unknownID+"/"))
	assert.Equal(t, "Starting echo-late", b.framed("/user/"+starting.ID+"/"))
	assert.Empty(t, b.framed("/launch/echo"), "no frame may show the launch page")
	assert.Empty(t, b.framed("/launch/nowhere"))
	refused := b.refusedFrames(2) // those of the launch page
	b.open(frameAncestor + "/user/" + instance.ID + "/")
	b.framed(browserHost + "/user/" + unknownID + "/")
	b.open(otherOrigin + "/user/" + instance.ID + "/")
	b.framed(browserHost + "/user/" + unknownID + "/")
	b.refusedFrames(refused + 1) // only the other origin's
}

// refusedFrames waits until the browser has refused a number of frames, and checks that
// there are no more. It returns their number.
func (b *browser) refusedFrames(want int) int {
	b.t.Helper()
	harness.Until(b.t, pageWait, fmt.Sprintf("%d frames are refused", want), func(context.Context) error {
		b.mu.Lock()
		defer b.mu.Unlock()
		got := 0
		for _, text := range b.pageErrors {
			got += strings.Count(text, "frame-ancestors")
		}
		if got != want {
			return fmt.Errorf("there are %d: %q", got, b.pageErrors)
		}
		return nil
	})
	return want
}

// TestRestartIsTold checks that a visitor who comes back after a restart of the
// container is told once.
func TestRestartIsTold(t *testing.T) {
	t.Parallel()
	instance := suite.Launch(t, "echo", harness.LongTimeout).AwaitDeployed(t)
	b := openBrowser(t)
	address := browserHost + "/user/" + instance.ID + "/a%2Fb?x=1"
	b.open(address)
	b.await(pageWait, `document.body.innerText.includes('"query":"x=1"')`)
	b.open(browserHost + "/user/" + instance.ID + "/exit?code=3")
	awaitRestart(t, instance, 1)
	b.open(address)
	b.awaitHeading("echo was restarted")
	assert.Contains(t, b.text("main"), "(exited with code 3). It was started again, once.")
	b.screenshot("restarted")
	b.wantAccessible()
	b.wantNoPageErrors()
	b.click("a.button")
	b.await(pageWait, `document.body.innerText.includes('"query":"x=1"')`)
	assert.Equal(t, address, b.address())
	assert.NotContains(t, b.text("body"), "binder-restarts", "the application must not see the cookie")
	b.do(chromedp.Reload())
	b.await(pageWait, `document.body.innerText.includes('"query":"x=1"')`)

	// A browser that keeps no cookies goes on as well.
	call(b, emulation.SetDocumentCookieDisabled, emulation.SetDocumentCookieDisabledParams{Disabled: true})
	call(b, network.ClearBrowserCookies, cdp.Empty{})
	b.open(address)
	b.awaitHeading("echo was restarted")
	call(b, network.ClearBrowserCookies, cdp.Empty{})
	b.click("a.button")
	b.await(pageWait, `document.body.innerText.includes('"query":"x=1"')`)
}

// awaitRestart waits until an instance's container was restarted and serves again.
func awaitRestart(t *testing.T, instance *harness.Instance, times int32) {
	t.Helper()
	harness.Until(t, harness.StartTimeout, "the container is restarted", func(ctx context.Context) error {
		pod := instance.Pod(t)
		if len(pod.Status.ContainerStatuses) == 0 || pod.Status.ContainerStatuses[0].RestartCount < times {
			return errors.New("not yet")
		}
		return nil
	})
	instance.AwaitDeployed(t)
}

// TestTooManyCookies checks that the page of one instance cannot shut a visitor out of
// others by cookies, nor out of the launch page.
func TestTooManyCookies(t *testing.T) {
	t.Parallel()
	hostile := suite.Launch(t, "echo", harness.LongTimeout).AwaitDeployed(t)
	other := suite.Launch(t, "echo", harness.LongTimeout).AwaitDeployed(t)
	b := openBrowser(t)
	own := browserHost + "/user/" + other.ID + "/"
	b.open(own)
	eval[bool](b, `Boolean(document.cookie = 'own=1')`)
	b.open(browserHost + "/user/" + hostile.ID + "/")
	require.Greater(t, eval[int](b, `(() => {
		for (let i = 0; i < 120; i++) document.cookie = 'filler' + i + '=' + 'x'.repeat(4000) + '; path=/';
		return document.cookie.length;
	})()`), 400_000, "bytes of cookies")
	for _, path := range []string{"", "a?x=1"} {
		b.open(own + path)
		text := eval[string](b, `document.body.innerText`)
		assert.True(t, strings.Contains(text, "own=1; filler"), "%.1000s", text)
		assert.Less(t, len(text), 20_000)
	}
	b.open(browserHost + "/launch/echo?path=a")
	b.awaitInstance("echo", "/a")
	b.wantNoPageErrors()
}

// TestQuitFromTheMenu quits a notebook as its menu does. The instance ends, and its page
// says so.
func TestQuitFromTheMenu(t *testing.T) {
	t.Parallel()
	notebook := suite.Launch(t, "jupyter", harness.LongTimeout).AwaitDeployed(t)
	jar, err := cookiejar.New(nil)
	require.NoError(t, err)
	browser := &http.Client{Jar: jar, Timeout: visitTimeout}
	open(t, browser, http.MethodGet, notebook.URL("/tree"), http.StatusOK)
	open(t, browser, http.MethodPost, notebook.URL("/api/shutdown"), http.StatusOK)
	notebook.AwaitEnd(t, removalMargin, "Completed")
	b := openBrowser(t)
	b.open(browserHost + "/user/" + notebook.ID + "/tree")
	b.awaitHeading("jupyter has ended")
	b.screenshot("completed")
	b.wantNoPageErrors()
}
