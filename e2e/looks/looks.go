//go:build e2e

// Package looks judges the service's own pages in Chromium: by axe-core, in dark and light, in
// the windows of a desktop and of a telephone. Its tests open every page without a cluster. It
// must never know what is on a page.
package looks

import (
	"context"
	"fmt"
	"strings"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
)

// Window is what pages are seen in.
type Window struct {
	Name          string
	Width, Height int64 // in CSS pixels
	options       []chromedp.EmulateViewportOption
}

// Phone is about the narrowest window that people still have.
func Phone() Window {
	return Window{"phone", 375, 667, []chromedp.EmulateViewportOption{chromedp.EmulateMobile}}
}

// Desk is the window of a small laptop.
func Desk() Window { return Window{Name: "desk", Width: 1280, Height: 800} }

// Dark and Light are the themes that visitors can prefer (CSS prefers-color-scheme).
const (
	Dark  = "dark"
	Light = "light"
)

// Show shows the present page in a window, in a theme.
func Show(ctx context.Context, window Window, theme string) error {
	_, err := chromedp.Call(ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: theme}},
	})
	if err != nil {
		return err
	}
	return chromedp.Do(ctx, chromedp.EmulateViewport(window.Width, window.Height, window.options...))
}

// Problems opens all that can be opened on the present page, and returns what is wrong with it in
// each window and theme, a line each: what axe-core finds, and a page that is wider than its
// window. axe is the script of axe-core. The page is left in the desk's window, in light.
//
// The width is compared with the window's own: on a telephone, a page that is too wide makes
// innerWidth larger.
func Problems(ctx context.Context, axe string) (problems []string, err error) {
	const prepare = `;document.querySelectorAll('details').forEach((details) => { details.open = true; })`
	const judge = `(async () => {
		const found = (await axe.run({ resultTypes: ['violations'] })).violations
			.map((v) => v.help + ': ' + v.nodes.map((n) => n.target.join(' ')).join(', '));
		const width = document.documentElement.scrollWidth;
		if (width > %d) {
			found.push('the page is ' + width + ' pixels wide');
		}
		return found.join('\n');
	})()`
	if _, err := chromedp.Run(ctx, chromedp.Evaluate[any](axe+prepare)); err != nil {
		return nil, err
	}
	for _, window := range []Window{Phone(), Desk()} {
		for _, theme := range []string{Dark, Light} {
			if err := Show(ctx, window, theme); err != nil {
				return nil, err
			}
			found, err := chromedp.Run(ctx, chromedp.Evaluate[string](fmt.Sprintf(judge, window.Width), chromedp.EvalAwaitPromise))
			if err != nil {
				return nil, err
			}
			for line := range strings.Lines(found) {
				problems = append(problems, window.Name+", "+theme+": "+strings.TrimSpace(line))
			}
		}
	}
	return problems, nil
}
