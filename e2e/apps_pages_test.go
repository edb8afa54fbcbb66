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

// TestShiny types into a Shiny application's page. Shiny has relative addresses only.
func TestShiny(t *testing.T) {
	t.Parallel()
	app := launchApp(t, "shiny", []string{"Rscript", "shiny.R"}, true)
	b := openBrowser(t)
	traffic := b.watchTraffic()
	home := browserHost + "/user/" + app.AwaitDeployed(t).ID + "/"
	b.open(home)
	b.await(pageWait, `document.getElementById("greeting").innerText.trim() === "Hello"`)
	b.click("#name")
	b.typeText("Ada")
	b.await(pageWait, `document.getElementById("greeting").innerText === "Hello Ada"`)
	assert.NotZero(t, traffic.count(time.Time{}, "frame from", strings.TrimPrefix(home, "http:")+"websocket/"))
	b.wantNoPageErrors()
}

// TestCodeServer opens a folder in code-server and runs a command in a terminal, which
// goes by its WebSockets. code-server has relative addresses only.
func TestCodeServer(t *testing.T) {
	t.Parallel()
	const workbenchWait = 90 * time.Second // the page loads 20 MB of scripts
	app := launchApp(t, "code-server", []string{"sh", "code-server.sh"}, true)
	b := openBrowser(t)
	traffic := b.watchTraffic()
	home := browserHost + "/user/" + app.AwaitDeployed(t).ID + "/"
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
	b.await(pageWait, `document.querySelector(".xterm-rows").innerText.includes("42-`+app.ID+`")`)
	for _, direction := range []string{"frame to", "frame from"} {
		assert.Greater(t, traffic.count(time.Time{}, direction, strings.TrimPrefix(home, "http:")), 10, direction)
	}
}

// typeText types text into the focused element.
func (b *browser) typeText(text string) {
	b.t.Helper()
	call(b, input.InsertText, input.InsertTextParams{Text: text})
}
