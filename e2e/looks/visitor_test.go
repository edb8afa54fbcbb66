//go:build e2e

package looks

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/binder-project/binder-deploy-kubernetes/e2e/chromium"
)

// patience bounds one step in the browser, on a busy machine.
const patience = 30 * time.Second

// visitor is a tab of Chromium, in the desk's window.
type visitor struct {
	t   *testing.T
	ctx context.Context
}

func newVisitor(t *testing.T) *visitor {
	t.Helper()
	ctx, end, err := chromium.Open(t.Context(), nil, nil)
	require.NoError(t, err)
	t.Cleanup(end)
	require.NoError(t, Show(ctx, Desk(), Light))
	return &visitor{t, ctx}
}

// withoutScript turns the scripts of pages off.
func (v *visitor) withoutScript() {
	v.t.Helper()
	_, err := chromedp.Call(v.ctx, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true})
	require.NoError(v.t, err)
}

func (v *visitor) do(steps ...chromedp.Action[chromedp.Void]) {
	v.t.Helper()
	ctx, cancel := context.WithTimeout(v.ctx, patience)
	defer cancel()
	require.NoError(v.t, chromedp.Do(ctx, steps...))
}

// open opens a page. One that goes somewhere by itself at once aborts that, and is there all the
// same.
func (v *visitor) open(address string) {
	v.t.Helper()
	ctx, cancel := context.WithTimeout(v.ctx, patience)
	defer cancel()
	if err := chromedp.Do(ctx, chromedp.Navigate(address)); err != nil {
		require.ErrorContains(v.t, err, "net::ERR_ABORTED", address)
	}
}

// await waits until an expression is true on the present page. It fails while the browser changes
// pages.
func (v *visitor) await(expression string) {
	v.t.Helper()
	err := wait.PollUntilContextTimeout(v.ctx, 50*time.Millisecond, patience, true, func(ctx context.Context) (bool, error) {
		met, err := chromedp.Run(ctx, chromedp.Evaluate[bool](expression))
		return err == nil && met, nil
	})
	if err != nil {
		text, _ := chromedp.Run(v.ctx, chromedp.Evaluate[string](`location.href + '\n' + document.body.innerText`))
		require.FailNow(v.t, "it does not come true", "%s: %v, at %s", expression, err, text)
	}
}

// awaitHeading waits for a page with a heading.
func (v *visitor) awaitHeading(want string) {
	v.t.Helper()
	v.await(`document.readyState === 'complete' && document.querySelector('h1').textContent === '` + want + `'`)
}

// focus is what has the focus.
type focus struct {
	Place   int // among all that can have it, in the order of the page; -1 for none
	Of      int // how many can have it
	Text    string
	Visible bool // it has an outline
	Above   bool // it is above what comes before it
}

func (v *visitor) focus() focus {
	v.t.Helper()
	found, err := chromedp.Run(v.ctx, chromedp.Evaluate[focus](`(() => {
		const all = [...document.querySelectorAll('a[href], button, select, summary, input, [tabindex]')]
			.filter((e) => e.checkVisibility() && !e.disabled && e.type !== 'hidden' && e.tabIndex >= 0);
		const place = all.indexOf(document.activeElement);
		if (place < 0) {
			return { Place: -1, Of: all.length };
		}
		const style = getComputedStyle(all[place]);
		return {
			Place: place, Of: all.length, Text: all[place].textContent,
			Visible: style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) > 0,
			Above: place > 0 && all[place].getBoundingClientRect().bottom <= all[place - 1].getBoundingClientRect().top,
		};
	})()`))
	require.NoError(v.t, err)
	return found
}

// tab presses Tab, which must lead to what comes next on the page, and show it.
func (v *visitor) tab() focus {
	v.t.Helper()
	before := v.focus()
	v.do(chromedp.KeyEvent(kb.Tab))
	after := v.focus()
	require.Equal(v.t, before.Place+1, after.Place, "Tab leads from %+v to %+v", before, after)
	require.True(v.t, after.Visible, "the focus is not shown: %+v", after)
	require.False(v.t, after.Above, "Tab leads upwards: %+v", after)
	return after
}

// press presses Tab until something with a text has the focus, and then Enter.
func (v *visitor) press(text string) {
	v.t.Helper()
	for at := v.focus(); at.Text != text; at = v.tab() {
		require.Less(v.t, at.Place, at.Of-1, "nothing has the text %q", text)
	}
	v.do(chromedp.KeyEvent(kb.Enter))
}

// axe returns the script of axe-core.
func axe(t *testing.T) string {
	t.Helper()
	output, err := exec.CommandContext(t.Context(), "bash", "../../hack/frontends.sh").CombinedOutput()
	require.NoError(t, err, "%s", output)
	script, err := os.ReadFile(filepath.Join("..", "frontends", "node_modules", "axe-core", "axe.min.js"))
	require.NoError(t, err)
	return string(script)
}
