//go:build e2e

package looks

import (
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
	"github.com/binder-project/binder-deploy-kubernetes/internal/pages"
)

// gallery shows samples by their names. Whatever else a page asks for leaves it as it is: with 204
// a browser stays at the page that it has (HTML standard, navigate), and streams stay open. So
// pages that launch, lead on or load again by themselves can be judged.
type gallery struct {
	all  map[string]sample
	held atomic.Bool // the page that is shown does not load again
}

func (g *gallery) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	sample := g.all[strings.TrimPrefix(r.URL.Path, "/")]
	switch {
	case sample != nil && !g.held.Load():
		sample(w, r)
	case strings.HasPrefix(r.URL.Path, pages.ProgressPrefix):
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = w.Write([]byte("event: log\ndata: " + longImage + "\n\n"))
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	default:
		w.WriteHeader(http.StatusNoContent)
	}
}

// TestPagesInEveryLook judges every page and every notice. Its keyboard order is that of the page,
// with all of it open.
func TestPagesInEveryLook(t *testing.T) {
	g := &gallery{all: samples()}
	address, v, script := serve(t, g), newVisitor(t), axe(t)
	var titles []string
	for _, name := range slices.Sorted(maps.Keys(g.all)) {
		t.Run(name, func(t *testing.T) {
			v.t = t
			g.held.Store(false)
			v.open(address + "/" + name)
			v.await(`location.pathname === '/` + name + `' && document.readyState === 'complete' && !document.querySelector('#log[hidden]')`)
			g.held.Store(true)
			title, err := chromedp.Run(v.ctx, chromedp.Evaluate[string](`document.title`))
			require.NoError(t, err)
			titles = append(titles, title)
			problems, err := Problems(v.ctx, script)
			require.NoError(t, err)
			assert.Empty(t, strings.Join(problems, "\n"), title)
			for at := v.focus(); at.Place < at.Of-1; {
				at = v.tab()
			}
		})
	}
	for _, title := range titlesOfPages(t) {
		matches := regexp.MustCompile("^" + strings.ReplaceAll(regexp.QuoteMeta(title), "%s", ".+") + "$").MatchString
		assert.True(t, slices.ContainsFunc(titles, matches), "no sample has the title %q", title)
	}
}

// titlesOfPages returns the titles in the source of the pages.
func titlesOfPages(t *testing.T) (titles []string) {
	t.Helper()
	files, err := filepath.Glob("../../internal/pages/*.go")
	require.NoError(t, err)
	for _, file := range files {
		source, err := os.ReadFile(file)
		require.NoError(t, err)
		for _, match := range regexp.MustCompile(`(?:Title[^"\n]*say|Notice\(say)\("([^"]+)"`).FindAllStringSubmatch(string(source), -1) {
			titles = append(titles, match[1])
		}
	}
	require.Greater(t, len(titles), 30)
	return titles
}

// TestTelephoneInEveryLanguage checks that no page is wider than a telephone in another language.
func TestTelephoneInEveryLanguage(t *testing.T) {
	files, err := filepath.Glob("../../internal/pages/assets/language.*.json")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	g, v := &gallery{all: samples()}, newVisitor(t)
	require.NoError(t, Show(v.ctx, Phone(), Light))
	for _, file := range files {
		tag := strings.Split(filepath.Base(file), ".")[1]
		address := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			r.Header.Set("Accept-Language", tag)
			g.ServeHTTP(w, r)
		}))
		for name := range g.all {
			v.open(address + "/" + name)
			v.await(`location.pathname === '/` + name + `' && document.readyState === 'complete'`)
			width, err := chromedp.Run(v.ctx, chromedp.Evaluate[int64](`document.documentElement.scrollWidth`))
			require.NoError(t, err)
			assert.LessOrEqual(t, width, Phone().Width, "%s, in %s", name, tag)
		}
	}
}

// TestKeyboard goes from the launch page back to an instance and to its session page, keeps it,
// stops it and launches another, by Tab and Enter alone.
func TestKeyboard(t *testing.T) {
	s := newService(deployed())
	address, v := s.start(t), newVisitor(t)
	v.open(address + launchPath) // which launches by itself
	v.awaitHeading(application)

	v.open(address + launchPath)
	v.press("Go back to it")
	v.awaitHeading(application)
	v.open(address + launchPath)
	v.press("See when it ends")
	v.awaitHeading("Your " + template)
	for v.focus().Text != "1 hour2 hours4 hours8 hours" {
		v.tab()
	}
	v.do(chromedp.KeyEvent(kb.ArrowDown))
	v.press("Keep it")
	require.Eventually(t, func() bool { return slices.Equal(s.kepts(), []time.Duration{2 * time.Hour}) }, patience, 50*time.Millisecond)
	v.awaitHeading("Your " + template)
	v.press("Stop it")
	v.press("Stop and delete it")
	v.awaitHeading(template + " was stopped")
	v.press("Launch a new one")
	v.awaitHeading(application)
	assert.Equal(t, 2, s.launched())
}

// TestWithoutScript launches, waits for a place, and uses the forms of the session page in a
// browser that runs no scripts.
func TestWithoutScript(t *testing.T) {
	s := newService(deployed())
	address, v := s.start(t), newVisitor(t)
	v.withoutScript()
	v.open(address + launchPath)
	v.do(chromedp.Click(chromedp.CSS("button")))
	v.awaitHeading(application)

	s.change(func() { s.inst = waiting(2) })
	v.open(address + instance.BaseURL(kubetest.ID(1)))
	shows := func(text string) { t.Helper(); v.await(`document.body.innerText.includes('` + text + `')`) }
	shows("Wait for a place")
	shows("2 before you")
	s.change(func() { s.inst = waiting(0) })
	shows("the next one is yours") // by itself
	s.change(func() { s.inst = deployed() })
	v.awaitHeading(application)

	v.open(address + sessionPath)
	shows("until ")
	v.do(chromedp.Focus(chromedp.CSS("#timeout")), chromedp.KeyEvent(kb.ArrowDown), chromedp.Click(chromedp.CSS("#extend button")))
	require.Eventually(t, func() bool { return slices.Equal(s.kepts(), []time.Duration{2 * time.Hour}) }, patience, 50*time.Millisecond)
	v.awaitHeading("Your " + template)
	v.do(chromedp.Click(chromedp.CSS("details:last-of-type summary")), chromedp.Click(chromedp.CSS("button.danger")))
	v.awaitHeading(template + " was stopped")
}
