package pages

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"errors"
	"fmt"
	"html/template"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// ownFiles are the pages and what they need. Style and scripts are inlined, so that a page loads
// nothing else.
//
//go:embed assets
var ownFiles embed.FS

// The files of the pages, and what they have in common.
const (
	launchPage   = "launch.html"
	openPage     = "open.html"
	noticePage   = "notice.html"
	progressPage = "progress.html"
	sessionPage  = "session.html"
	startPage    = "start.html"
	adminPage    = "admin.html"
	layoutFile   = "layout.html"
)

// maxFile is the most bytes of a file of an operator's.
const maxFile = 1 << 20

// languageFile matches the names of the files of translations.
var languageFile = regexp.MustCompile(`^language\.([a-z]{2,3})\.json$`)

// Site is how the pages look, in each language. It never changes.
type Site struct {
	languages []*language
	pages     map[string]page // by their files
	policy    string          // the part of the Content Security Policy that all pages have
}

// page is a page in each language, by its tag.
type page map[string]*template.Template

// ownSite is the Site of our own files. They are embedded, so an error in one is found by any test.
var ownSite = sync.OnceValue(func() *Site {
	site, err := Load("")
	if err != nil {
		panic(err)
	}
	return site
})

// OrOwn returns a Site, or that of our own files for nil.
func OrOwn(site *Site) *Site {
	if site == nil {
		return ownSite()
	}
	return site
}

// Load returns the Site of our own files, some of which those of a directory replace, unless that is
// "". The error names a file that is none of the pages', or is not right.
func Load(dir string) (*Site, error) {
	files := files{own: ownFiles}
	if dir != "" {
		files.other = os.DirFS(dir)
		if err := files.check(); err != nil {
			return nil, fmt.Errorf("%s: %w", dir, err)
		}
	}
	site := &Site{pages: map[string]page{}, policy: files.policy()}
	var err error
	if site.languages, err = files.languages(); err != nil {
		return nil, err
	}
	for _, name := range []string{launchPage, openPage, noticePage, progressPage, sessionPage, startPage, adminPage} {
		if site.pages[name], err = files.page(name, site.languages); err != nil {
			return nil, err
		}
	}
	return site, site.try()
}

// try renders each page once, so that an operator learns at once of a mistake in a file.
func (s *Site) try() error {
	var problems error
	for name, view := range samples() {
		for tag, page := range s.pages[name] {
			if err := page.Execute(&bytes.Buffer{}, view); err != nil {
				problems = errors.Join(problems, fmt.Errorf("%s, in %s: %w", name, tag, err))
			}
		}
	}
	return problems
}

// files are those of the pages: our own, and others that replace some of them.
type files struct {
	own   embed.FS
	other fs.FS // nil for none
}

// check reports files that replace nothing. Those that begin with two dots are how the kubelet
// mounts a ConfigMap.
func (f files) check() error {
	entries, err := fs.ReadDir(f.other, ".")
	if err != nil {
		return err
	}
	var known []string
	ours, _ := fs.ReadDir(f.own, "assets")
	for _, entry := range ours {
		if !strings.HasPrefix(entry.Name(), "admin.") {
			known = append(known, entry.Name())
		}
	}
	var problems error
	for _, entry := range entries {
		name := entry.Name()
		switch {
		case strings.HasPrefix(name, ".."):
			continue
		case languageFile.MatchString(name) || slices.Contains(known, name):
			_, err := f.read(name)
			problems = errors.Join(problems, err)
			continue
		}
		problems = errors.Join(problems, fmt.Errorf("%q replaces no file of the pages: these are %s, and language.<tag>.json for other languages", name, strings.Join(known, ", ")))
	}
	return problems
}

// read returns what is in a file: the other one, if there is one.
func (f files) read(name string) (string, error) {
	if f.other != nil {
		data, err := fs.ReadFile(f.other, name)
		switch {
		case err == nil && len(data) > maxFile:
			return "", fmt.Errorf("%s has %d bytes: it must have at most %d", name, len(data), maxFile)
		case err == nil:
			return string(data), nil
		case !errors.Is(err, fs.ErrNotExist):
			return "", err
		}
	}
	data, err := fs.ReadFile(f.own, path.Join("assets", name))
	return string(data), err
}

// text is read for a file that exists in any case.
func (f files) text(name string) string {
	text, err := f.read(name)
	if err != nil { // its own file is embedded, and the other one was read before
		panic(err)
	}
	return text
}

// languages reads the translations. English comes first, and has none.
func (f files) languages() ([]*language, error) {
	tags := map[string]bool{}
	for dir, all := range map[string]fs.FS{"assets": f.own, ".": f.other} {
		if all == nil {
			continue
		}
		names, err := fs.Glob(all, path.Join(dir, "language.*.json"))
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			if tag := languageFile.FindStringSubmatch(path.Base(name)); tag != nil {
				tags[tag[1]] = true
			}
		}
	}
	all := []*language{english}
	for tag := range tags {
		l, err := f.language(tag)
		if err != nil {
			return nil, err
		}
		all = append(all, l)
	}
	slices.SortFunc(all[1:], func(a, b *language) int { return cmp.Compare(a.tag, b.tag) })
	return all, nil
}

// page combines a page with the layout, in each language.
func (f files) page(name string, languages []*language) (page, error) {
	layout, err := f.read(layoutFile)
	if err != nil {
		return nil, err
	}
	content, err := f.read(name)
	if err != nil {
		return nil, err
	}
	all := page{}
	for _, l := range languages {
		parsed := template.New(layoutFile).Funcs(template.FuncMap{
			"pathEscape": url.PathEscape,
			"style":      func(name string) (template.CSS, error) { text, err := f.read(name); return template.CSS(text), err },
			"script":     func(name string) (template.JS, error) { text, err := f.read(name); return template.JS(text), err },
		}).Funcs(l.functions())
		if parsed, err = parsed.Parse(layout); err != nil {
			return nil, err
		}
		if all[l.tag], err = parsed.New(name).Parse(content); err != nil {
			return nil, err
		}
		all[l.tag] = parsed
	}
	return all, nil
}

// policy is a Content Security Policy that allows the pages exactly the style and the scripts that
// are in the files, by their hashes. Who may frame a page, and whom it asks, differs from page to
// page.
func (f files) policy() string {
	hash := func(name string) string {
		sum := sha256.Sum256([]byte(f.text(name)))
		return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
	}
	return strings.Join([]string{
		"default-src 'none'",
		fmt.Sprintf("style-src %s %s", hash("style.css"), hash("admin.css")),
		fmt.Sprintf("script-src %s %s %s %s %s",
			hash("launch.js"), hash("progress.js"), hash("notice.js"), hash("session.js"), hash("admin.js")),
		"img-src data:", // the pages' icon, which is empty, and those of templates
		"form-action 'self'",
		"base-uri 'none'",
	}, "; ")
}

// write writes a page in the language of who asks for it. ancestors is neverFramed, or what framedBy
// returns. sources are the hosts besides the page's own that its script asks. The page is rendered
// before anything is sent. After that, writing fails only when the client has gone, so that error
// is ignored.
func (s *Site) write(w http.ResponseWriter, r *http.Request, code int, name string, view any, ancestors string, sources ...string) {
	var body bytes.Buffer
	language := s.language(r)
	h := w.Header()
	setOwnHeaders(h)
	if err := s.pages[name][language.tag].Execute(&body, view); err != nil { // only of a file of an operator's
		http.Error(w, fmt.Sprintf("The page cannot be shown: %v", err), http.StatusInternalServerError)
		return
	}
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Language", language.tag)
	h.Set("Content-Length", strconv.Itoa(body.Len()))
	connect := strings.Join(append([]string{"connect-src 'self'"}, sources...), " ")
	h.Set("Content-Security-Policy", s.policy+"; "+connect+"; frame-ancestors "+ancestors)
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(code)
	_, _ = body.WriteTo(w)
}

// ServeAdmin answers with the admin page. There is nothing in it that needs the API key: its
// script asks for the key, keeps it in memory, and reads the state with it. The error is nil.
func (s *Site) ServeAdmin(w http.ResponseWriter, r *http.Request) error {
	s.write(w, r, http.StatusOK, adminPage, adminView{Title: quote("Binder: what runs")}, neverFramed)
	return nil
}
