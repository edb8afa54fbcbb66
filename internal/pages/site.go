package pages

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"errors"
	"fmt"
	"html/template"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"
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
	site, err := Load("", nil)
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
// "". The error names a file that replaces nothing, or is invalid. titleOf returns the title of a
// template of a name, which may not exist; "" if it has none. With nil, pages name templates by
// their names.
func Load(dir string, titleOf func(template string) string) (*Site, error) {
	files, err := readFiles(dir)
	if err != nil {
		return nil, err
	}
	files.titleOf = titleOf
	site := &Site{pages: map[string]page{}, policy: files.policy()}
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

// files are the texts of the files of the pages, by name: our own, and others that replace some of
// them. They are read once: a page, its style and the policy belong together.
type files struct {
	own, other map[string]string
	titleOf    func(template string) string // see Load
}

// readFiles reads our own files, and those of a directory unless that is "".
func readFiles(dir string) (files, error) {
	f := files{own: map[string]string{}, other: map[string]string{}}
	entries, err := ownFiles.ReadDir("assets")
	if err != nil {
		return f, err
	}
	for _, entry := range entries {
		data, err := ownFiles.ReadFile(path.Join("assets", entry.Name()))
		if err != nil {
			return f, err
		}
		f.own[entry.Name()] = string(data)
	}
	if dir == "" {
		return f, nil
	}
	others, err := os.ReadDir(dir)
	if err != nil {
		return f, err
	}
	var problems error
	for _, entry := range others {
		if strings.HasPrefix(entry.Name(), "..") { // so the kubelet mounts a ConfigMap
			continue
		}
		if err := f.readOther(dir, entry.Name()); err != nil {
			problems = errors.Join(problems, fmt.Errorf("%s: %w", dir, err))
		}
	}
	return f, problems
}

// readOther reads a file of an operator's. Browsers see a line end as one character, and the policy
// is of what they see.
func (f files) readOther(dir, name string) error {
	if !f.replaces(name) {
		return fmt.Errorf("%q replaces no file of the pages: these are %s, and language.<tag>.json for other languages than English", name, strings.Join(f.replaceable(), ", "))
	}
	data, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return err
	}
	text := strings.ReplaceAll(strings.ReplaceAll(string(data), "\r\n", "\n"), "\r", "\n")
	switch lower, kind := strings.ToLower(text), path.Ext(name); {
	case len(data) > maxFile:
		return fmt.Errorf("%s has %d bytes: it must have at most %d", name, len(data), maxFile)
	case !utf8.ValidString(text) || strings.ContainsRune(text, 0):
		return fmt.Errorf("%s is no text in UTF-8", name)
	case kind == ".css" && strings.Contains(lower, "</style"), kind == ".js" && strings.Contains(lower, "</script"):
		return fmt.Errorf("%s must not have the end tag of the element that it is in", name)
	}
	f.other[name] = text
	return nil
}

// replaces reports whether a file of an operator's can have a name.
func (f files) replaces(name string) bool {
	if tag := languageFile.FindStringSubmatch(name); tag != nil {
		return tag[1] != english.tag // English is in the pages themselves
	}
	return slices.Contains(f.replaceable(), name)
}

// replaceable are the names of our own files, but those of the admin page.
func (f files) replaceable() []string {
	return slices.DeleteFunc(slices.Sorted(maps.Keys(f.own)), func(name string) bool { return strings.HasPrefix(name, "admin.") })
}

// text returns what is in a file, the operator's before our own. It is an error if there is no such file.
func (f files) text(name string) (string, error) {
	if text, replaced := f.other[name]; replaced {
		return text, nil
	}
	text, known := f.own[name]
	if !known {
		return "", fmt.Errorf("there is no file %q", name)
	}
	return text, nil
}

// languages reads the translations. English comes first, and has none.
func (f files) languages() ([]*language, error) {
	tags := map[string]bool{}
	for _, all := range []map[string]string{f.own, f.other} {
		for name := range all {
			if tag := languageFile.FindStringSubmatch(name); tag != nil {
				tags[tag[1]] = true
			}
		}
	}
	all := []*language{{tag: english.tag, titleOf: f.titleOf}}
	for _, tag := range slices.Sorted(maps.Keys(tags)) {
		l, err := f.language(tag)
		if err != nil {
			return nil, err
		}
		all = append(all, l)
	}
	return all, nil
}

// page combines a page with the layout, in each language.
func (f files) page(name string, languages []*language) (page, error) {
	layout, err := f.text(layoutFile)
	if err != nil {
		return nil, err
	}
	content, err := f.text(name)
	if err != nil {
		return nil, err
	}
	all := page{}
	for _, l := range languages {
		parsed := template.New(layoutFile).Funcs(template.FuncMap{
			"pathEscape": url.PathEscape,
			"style":      func(name string) (template.CSS, error) { text, err := f.text(name); return template.CSS(text), err },
			"script":     func(name string) (template.JS, error) { text, err := f.text(name); return template.JS(text), err },
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
		text, _ := f.text(name) // these exist
		sum := sha256.Sum256([]byte(text))
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

// write writes a page in the language that the browser prefers. ancestors is neverFramed, or what framedBy
// returns. sources are the hosts besides the page's own that its script asks. The page is rendered
// before anything is sent. After that, writing fails only when the client has gone, so that error
// is ignored.
func (s *Site) write(w http.ResponseWriter, r *http.Request, code int, name string, view any, ancestors string, sources ...string) {
	s.writeIn(w, s.language(r), code, name, view, ancestors, sources...)
}

// writeIn is write in a language.
func (s *Site) writeIn(w http.ResponseWriter, language *language, code int, name string, view any, ancestors string, sources ...string) {
	var body bytes.Buffer
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
// script asks for the key, keeps it in memory, and reads the state with it. It is in English. The
// error is nil.
func (s *Site) ServeAdmin(w http.ResponseWriter, _ *http.Request) error {
	s.writeIn(w, english, http.StatusOK, adminPage, adminView{Title: quote("Binder: what runs")}, neverFramed)
	return nil
}
