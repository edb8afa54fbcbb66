//go:build e2e

package e2e

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"

	"github.com/binder-project/binder-deploy-kubernetes/e2e/harness"
)

const (
	// browserHost is the proxy by a name and over plain HTTP, as many a cluster
	// is reached: browsers trust 127.0.0.1 more, and send more headers there.
	browserHost = "http://binder.test:18000"
	// browserTimeout bounds all that a test does in a browser.
	browserTimeout = 4 * time.Minute
	screenshots    = "../.build/screenshots"
)

// browser is one tab of a Chromium of its own.
type browser struct {
	t   *testing.T
	ctx context.Context

	mu         sync.Mutex
	loads      int      // documents loaded
	complaints []string // violations of a page's policy, and exceptions nobody caught
}

// openBrowser starts a Chromium that reaches the proxy and nothing else. It
// ends with the test.
func openBrowser(t *testing.T) *browser {
	t.Helper()
	path, err := exec.LookPath("chromium")
	require.NoError(t, err, "the tests of the pages need Chromium: apt-get install chromium")
	options := []chromedp.ExecAllocatorOption{
		chromedp.ExecPath(path), chromedp.Headless, chromedp.NoSandbox, chromedp.DisableGPU, chromedp.NoFirstRun,
		chromedp.NoDefaultBrowserCheck, chromedp.WindowSize(1100, 800),
		chromedp.Flag("host-resolver-rules", "MAP binder.test 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"),
	}
	for _, flag := range []string{
		"disable-quic", "disable-background-networking", "disable-component-update", "disable-sync", "disable-dev-shm-usage",
	} {
		options = append(options, chromedp.Flag(flag, true))
	}
	ctx, cancel := context.WithTimeout(t.Context(), browserTimeout)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewExecAllocator(ctx, options...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	b := &browser{t: t, ctx: ctx}
	require.NoError(t, chromedp.Listen(ctx, b.note))
	call(b, log.Enable, cdp.Empty{})
	return b
}

func (b *browser) note(event any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch event := event.(type) {
	case *page.EventDomContentEventFired:
		b.loads++
	case *log.EventEntryAdded:
		if event.Entry.Source == log.EntrySourceSecurity || strings.Contains(event.Entry.Text, "Content Security Policy") {
			b.complaints = append(b.complaints, event.Entry.Text)
		}
	case *runtime.EventExceptionThrown:
		b.complaints = append(b.complaints, event.ExceptionDetails.Text)
	}
}

// wantNoComplaints is for our own pages; an application's are its own business.
func (b *browser) wantNoComplaints() {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	require.Empty(b.t, b.complaints)
}

func (b *browser) loaded() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.loads
}

func (b *browser) do(steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	require.NoError(b.t, chromedp.Do(b.ctx, steps...))
}

func (b *browser) open(address string) {
	b.t.Helper()
	b.do(chromedp.Navigate(address))
}

func (b *browser) press(selector chromedp.CSS) {
	b.t.Helper()
	b.do(chromedp.Click(selector))
}

// text is what a person reads of an element.
func (b *browser) text(selector chromedp.CSS) string {
	b.t.Helper()
	return read(b, chromedp.Text(selector))
}

func (b *browser) address() string {
	b.t.Helper()
	return read(b, chromedp.Location())
}

// read reads from a page, again where it was left for another meanwhile: our
// pages go on by themselves.
func read[T any](b *browser, action chromedp.Action[T]) (value T) {
	b.t.Helper()
	harness.Until(b.t, pageWait, "read from the page", func(context.Context) (err error) {
		value, err = chromedp.Run(b.ctx, action)
		return err
	})
	return value
}

// eval evaluates an expression, and waits for it where it is a promise.
func eval[T any](b *browser, expression string) T {
	b.t.Helper()
	value, err := chromedp.Run(b.ctx, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
	require.NoError(b.t, err)
	return value
}

// call makes a call of the browser's own protocol.
func call[P, R any](b *browser, command cdp.Command[P, R], params P) {
	b.t.Helper()
	_, err := chromedp.Call(b.ctx, command, params)
	require.NoError(b.t, err)
}

// await waits until an expression is true, on whatever page is there by then.
func (b *browser) await(within time.Duration, expression string) {
	b.t.Helper()
	limit := time.Now().Add(within)
	for {
		// Between two pages there is nothing that could evaluate it.
		met, err := chromedp.Run(b.ctx, chromedp.Evaluate[bool](expression))
		if err == nil && met {
			return
		}
		if time.Now().After(limit) || b.ctx.Err() != nil {
			text := read(b, chromedp.Evaluate[string](`document.body.innerText`))
			b.shoot("given-up")
			require.FailNow(b.t, "it does not come", "%s is not so after %s (%v) at %s:\n%.2000s", expression, within, err, b.address(), text)
		}
		pause(b.ctx, 100*time.Millisecond)
	}
}

// shoot keeps a picture of what is shown: as it is, dark, and on a phone.
func (b *browser) shoot(name string) {
	b.t.Helper()
	look := func(suffix, scheme string, size chromedp.Action[chromedp.Void]) {
		b.t.Helper()
		call(b, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
		})
		b.do(size)
		picture, err := chromedp.Run(b.ctx, chromedp.CaptureScreenshot())
		require.NoError(b.t, err)
		require.NoError(b.t, os.MkdirAll(screenshots, 0o755))
		require.NoError(b.t, os.WriteFile(filepath.Join(screenshots, name+suffix+".png"), picture, 0o644))
	}
	desk, phone := chromedp.EmulateViewport(1100, 700), chromedp.EmulateViewport(360, 640, chromedp.EmulateMobile)
	look("-dark", "dark", desk)
	look("-phone-dark", "dark", phone)
	look("-phone", "light", phone)
	look("", "light", desk)
}
