// Package chromium starts the browser of the tests.
package chromium

import (
	"context"
	"fmt"
	"os/exec"
	"strings"

	"github.com/chromedp/chromedp"
)

// Open opens a tab in a Chromium process of its own, until ctx is done or end is called. It resolves
// only the names of hosts, all as 127.0.0.1, and asks nobody for updates. hosts can have a * each.
// Each of flags is of the command line, without its dashes.
func Open(ctx context.Context, hosts, flags []string) (tab context.Context, end func(), err error) {
	path, err := exec.LookPath("chromium")
	if err != nil {
		return nil, nil, fmt.Errorf("these tests need Chromium (apt-get install chromium): %w", err)
	}
	var rules strings.Builder
	for _, host := range hosts {
		fmt.Fprintf(&rules, "MAP %s 127.0.0.1, ", host)
	}
	options := []chromedp.ExecAllocatorOption{
		chromedp.ExecPath(path), chromedp.Headless, chromedp.NoSandbox, chromedp.DisableGPU, chromedp.NoFirstRun, chromedp.NoDefaultBrowserCheck,
		chromedp.WindowSize(1280, 800), chromedp.Flag("host-resolver-rules", rules.String()+"MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"),
	}
	flags = append([]string{"disable-background-networking", "disable-component-update", "disable-sync", "disable-dev-shm-usage"}, flags...)
	for _, flag := range flags {
		options = append(options, chromedp.Flag(flag, true))
	}
	ctx, endProcess := chromedp.NewExecAllocator(ctx, options...)
	tab, endTab := chromedp.NewContext(ctx)
	end = func() { endTab(); endProcess() }
	if err := chromedp.Do(tab, chromedp.Navigate("about:blank")); err != nil {
		end()
		return nil, nil, fmt.Errorf("start Chromium: %w", err)
	}
	return tab, end, nil
}
