//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/binder-project/binder-deploy-kubernetes/e2e/harness"
)

// TestRealtimePages opens pages that talk to their application all the time, by
// every transport that their libraries have.
func TestRealtimePages(t *testing.T) {
	t.Parallel()
	const (
		sockets = "websocket has hello; xhr-streaming has hello; eventsource has hello; xhr-polling has hello; jsonp-polling has hello; done"
		events  = "1 2 3 4 5 done "
	)
	type visit struct {
		query string
		want  string   // text of #out
		used  []string // kind and URL of what the page must have used
	}
	apps := []struct {
		name   string
		visits []visit
	}{
		{"socketio", []visit{
			{"", "websocket has hello and 300000 bytes", []string{"frame from", "/socket.io/"}},
			{"?transport=polling", "polling has hello and 300000 bytes", []string{"POST", "/socket.io/"}},
		}},
		{"sockjs", []visit{{"", sockets, []string{"frame from", "/echo/"}}}},
		{"stream", []visit{{"", events, []string{"GET", "/events"}}}},
	}
	// All start at once, and one browser visits them one after the other.
	instances := map[string]*harness.Instance{}
	for _, app := range apps {
		for _, strip := range []bool{false, true} {
			name := app.name + "-page"
			instances[app.name+modeName(strip)] = launchApp(t, name, []string{"node", app.name + ".js"}, strip)
		}
	}
	b := openBrowser(t)
	traffic := b.watchTraffic()
	for _, app := range apps {
		for _, strip := range []bool{false, true} {
			t.Run(app.name+" "+modeName(strip), func(t *testing.T) {
				b.t = t
				home := browserHost + "/user/" + instances[app.name+modeName(strip)].AwaitDeployed(t).ID + "/"
				for _, visit := range app.visits {
					b.open(home + visit.query)
					b.await(pageWait, `document.getElementById("out").textContent.length >= `+strconv.Itoa(len(visit.want)))
					assert.Equal(t, visit.want, eval[string](b, `document.getElementById("out").textContent`))
					host := strings.TrimPrefix(home, "http:")
					assert.NotZero(t, traffic.count(time.Time{}, append(visit.used, host)...), visit.used)
				}
			})
		}
	}
	b.t = t
}

// TestShiny types into a page of the example for Shiny, and then leaves it open.
func TestShiny(t *testing.T) {
	t.Parallel()
	const timeout = 20 * time.Second
	b := openBrowser(t)
	traffic := b.watchTraffic()
	app := suite.Launch(t, "shiny", timeout).AwaitDeployed(t)
	home := browserHost + "/user/" + app.ID + "/"
	b.open(home)
	b.await(pageWait, `document.getElementById("greeting").innerText.trim() === "Hello"`)
	b.click("#name")
	name := ""
	useThenLeaveOpen(t, app, timeout, func() {
		name += "a"
		b.typeText("a")
		b.await(pageWait, `document.getElementById("greeting").innerText === "Hello `+name+`"`)
	})
	assert.NotZero(t, traffic.count(time.Time{}, "frame from", strings.TrimPrefix(home, "http:")+"websocket/"))
	b.wantNoPageErrors()
}

// TestStatic follows links of the example for static pages, and then reads on.
func TestStatic(t *testing.T) {
	t.Parallel()
	const timeout = 15 * time.Second
	b := openBrowser(t)
	app := suite.Launch(t, "static", timeout).AwaitDeployed(t)
	b.open(browserHost + "/user/" + app.ID + "/")
	useThenLeaveOpen(t, app, timeout, func() {
		b.click(`a[href="a%20dir/"]`)
		b.await(pageWait, `document.querySelector('a[href="file.txt"]') !== null`)
		b.click(`a[href="../"]`)
		b.await(pageWait, `document.querySelector('a[href="numbers.txt"]') !== null`)
	})
	b.wantNoPageErrors()
}

// TestCodeServer opens a folder in the example for code-server and types into a terminal,
// which goes by its WebSockets. Then it leaves the page open, which goes on to send messages
// on them.
func TestCodeServer(t *testing.T) {
	t.Parallel()
	const (
		workbenchWait = 90 * time.Second // the page loads 20 MB of scripts
		timeout       = 30 * time.Second // messages are sent every 5 seconds
	)
	b := openBrowser(t)
	traffic := b.watchTraffic()
	app := suite.Launch(t, "code-server", timeout).AwaitDeployed(t)
	home := browserHost + "/user/" + app.ID + "/"
	b.open(home)
	b.await(workbenchWait, `[...document.querySelectorAll(".explorer-folders-view .monaco-list-row")].some(row => row.innerText.includes("hello.txt"))`)
	require.True(t, strings.HasPrefix(b.address(), home), b.address())

	// The page knows the command only once the application has told it about terminals.
	harness.Until(t, workbenchWait, "the page has the command", func(context.Context) error {
		b.do(chromedp.KeyEvent(kb.Escape), chromedp.KeyEvent(kb.F1))
		b.await(pageWait, `document.activeElement.closest(".quick-input-widget") !== null`)
		b.typeText("Terminal: Create New Terminal")
		first := `document.querySelector(".quick-input-list .monaco-list-row.focused")?.innerText ?? ""`
		b.await(pageWait, `(`+first+`).includes("Terminal")`)
		if found := eval[string](b, first); !strings.HasPrefix(found, "Terminal: Create New Terminal") {
			return fmt.Errorf("the page offers %q", found)
		}
		return nil
	})
	b.do(chromedp.KeyEvent(kb.Enter))
	b.await(workbenchWait, `document.activeElement.matches(".xterm-helper-textarea")`)
	b.typeText("echo $((6*7))-$BINDER_ID")
	b.do(chromedp.KeyEvent(kb.Enter))
	terminal := `document.querySelector(".xterm-rows").innerText`
	b.await(pageWait, terminal+`.includes("42-`+app.ID+`")`)
	letters := ""
	used := useThenLeaveOpen(t, app, timeout, func() {
		letters += "a"
		b.typeText("a")
		b.await(pageWait, terminal+`.includes("`+letters+`")`)
	})
	for _, direction := range []string{"frame to", "frame from"} {
		assert.NotZero(t, traffic.count(used.Add(timeout/2), direction, strings.TrimPrefix(home, "http:")), direction)
	}
}

// useThenLeaveOpen uses an instance through its page for longer than its cull timeout, which
// must keep it. Then it leaves the page open, and waits until the instance is culled. It
// returns when the page was last used.
func useThenLeaveOpen(t *testing.T, app *harness.Instance, timeout time.Duration, use func()) time.Time {
	t.Helper()
	used := repeat(t, timeout/4, timeout*3/2, use)
	require.Equal(t, "deployed", app.Status(t).Status, "culled in use")
	awaitCulled(t, app, used, timeout)
	app.AwaitEnd(t, removalMargin, "Culled")
	return used
}

// typeText types text into the focused element.
func (b *browser) typeText(text string) {
	b.t.Helper()
	call(b, input.InsertText, input.InsertTextParams{Text: text})
}
