//go:build e2e

package e2e

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/binder-project/binder-deploy-kubernetes/e2e/chromium"
	"github.com/binder-project/binder-deploy-kubernetes/e2e/harness"
	"github.com/binder-project/binder-deploy-kubernetes/e2e/looks"
)

const (
	// browserHost is the proxy's address with a host name and plain HTTP, as many
	// clusters have. Browsers treat 127.0.0.1 as a secure origin and send it more
	// headers.
	browserHost = "http://binder.test:18000"
	// browserTimeout bounds a test's use of a browser.
	browserTimeout = 4 * time.Minute
	screenshotDir  = "../.build/screenshots"
)

// browser is a tab in its own Chromium process.
type browser struct {
	t   *testing.T
	ctx context.Context

	mu         sync.Mutex
	loads      int      // number of documents loaded
	pageErrors []string // content security policy violations and uncaught exceptions
}

// openBrowser starts a Chromium that can only reach the proxy. It stops when the
// test ends.
func openBrowser(t *testing.T) *browser {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), browserTimeout)
	t.Cleanup(cancel)
	ctx, end, err := chromium.Open(ctx, []string{"binder.test", "frames.test", "course.test"}, []string{"disable-quic"})
	require.NoError(t, err)
	t.Cleanup(end)
	b := &browser{t: t, ctx: ctx}
	require.NoError(t, chromedp.Listen(ctx, b.record))
	call(b, log.Enable, cdp.Empty{})
	return b
}

func (b *browser) record(event any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch event := event.(type) {
	case *page.EventDomContentEventFired:
		b.loads++
	case *log.EventEntryAdded:
		if event.Entry.Source == log.EntrySourceSecurity || strings.Contains(event.Entry.Text, "Content Security Policy") {
			b.pageErrors = append(b.pageErrors, event.Entry.Text)
		}
	case *runtime.EventExceptionThrown:
		b.pageErrors = append(b.pageErrors, event.ExceptionDetails.Text)
	}
}

// wantNoPageErrors checks that no page had errors. Tests that open an
// application's pages do not call it.
func (b *browser) wantNoPageErrors() {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	require.Empty(b.t, b.pageErrors)
}

func (b *browser) loadCount() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.loads
}

func (b *browser) do(steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	require.NoError(b.t, chromedp.Do(b.ctx, steps...))
}

// open opens an address. A page that still goes somewhere by itself can abort that, so it is
// tried again.
func (b *browser) open(address string) {
	b.t.Helper()
	for tries := 1; ; tries++ {
		err := chromedp.Do(b.ctx, chromedp.Navigate(address))
		if err == nil || tries == 3 || !strings.Contains(err.Error(), "net::ERR_ABORTED") {
			require.NoError(b.t, err)
			return
		}
	}
}

func (b *browser) click(selector chromedp.CSS) {
	b.t.Helper()
	b.do(chromedp.Click(selector))
}

// text returns the visible text of an element.
func (b *browser) text(selector chromedp.CSS) string {
	b.t.Helper()
	return read(b, chromedp.Text(selector))
}

func (b *browser) address() string {
	b.t.Helper()
	return read(b, chromedp.Location())
}

// read reads a value from the page. It retries if the browser navigates
// meanwhile, because the service's pages redirect and reload themselves.
func read[T any](b *browser, action chromedp.Action[T]) (value T) {
	b.t.Helper()
	harness.Until(b.t, pageWait, "read from the page", func(context.Context) (err error) {
		value, err = chromedp.Run(b.ctx, action)
		return err
	})
	return value
}

// eval evaluates an expression. If the value is a promise, eval waits for it.
func eval[T any](b *browser, expression string) T {
	b.t.Helper()
	value, err := chromedp.Run(b.ctx, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
	require.NoError(b.t, err)
	return value
}

// call sends a command of the Chrome DevTools Protocol.
func call[P, R any](b *browser, command cdp.Command[P, R], params P) {
	b.t.Helper()
	_, err := chromedp.Call(b.ctx, command, params)
	require.NoError(b.t, err)
}

// await waits until an expression is true on the current page.
func (b *browser) await(within time.Duration, expression string) {
	b.t.Helper()
	limit := time.Now().Add(within)
	for {
		// The evaluation fails while the browser navigates.
		met, err := chromedp.Run(b.ctx, chromedp.Evaluate[bool](expression))
		if err == nil && met {
			return
		}
		if time.Now().After(limit) || b.ctx.Err() != nil {
			text := read(b, chromedp.Evaluate[string](`document.body.innerText`))
			b.screenshot("given-up")
			require.FailNow(b.t, "timed out", "%s is not true after %s (%v) at %s:\n%.2000s", expression, within, err, b.address(), text)
		}
		pause(b.ctx, 100*time.Millisecond)
	}
}

// wantAccessible checks the present page with axe-core, with all of it shown, in every look. It
// must be no wider than its window.
func (b *browser) wantAccessible() {
	b.t.Helper()
	require.NoError(b.t, installFrontends())
	axe, err := os.ReadFile(filepath.Join(frontends, "axe-core", "axe.min.js"))
	require.NoError(b.t, err)
	problems, err := looks.Problems(b.ctx, string(axe))
	require.NoError(b.t, err)
	assert.Empty(b.t, strings.Join(problems, "\n"), b.address())
}

// screenshot saves screenshots of the page in every look. Those in docs/pictures have the same
// names.
func (b *browser) screenshot(name string) {
	b.t.Helper()
	capture := func(suffix, theme string, window looks.Window) {
		b.t.Helper()
		require.NoError(b.t, looks.Show(b.ctx, window, theme))
		picture, err := chromedp.Run(b.ctx, chromedp.CaptureScreenshot())
		require.NoError(b.t, err)
		require.NoError(b.t, os.MkdirAll(screenshotDir, 0o755))
		require.NoError(b.t, os.WriteFile(filepath.Join(screenshotDir, name+suffix+".png"), picture, 0o644))
	}
	capture("-dark", looks.Dark, looks.Desk())
	capture("-phone-dark", looks.Dark, looks.Phone())
	capture("-phone", looks.Light, looks.Phone())
	capture("", looks.Light, looks.Desk())
}
