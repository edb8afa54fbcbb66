package pages

import (
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/protocol"
)

// writeFiles makes a directory with files.
func writeFiles(t *testing.T, files map[string]string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// An operator's files replace ours, the style may be used, and texts and languages are added. What
// is left out stays ours.
func TestLoad(t *testing.T) {
	const style = "body { background: peachpuff }"
	site, err := Load(writeFiles(t, map[string]string{
		"style.css": style, "start.html": `{{define "main"}}<h1>School</h1><p>{{t "Try again"}}, {{t "Back"}}</p>{{end}}`,
		"language.de.json": `{"Try again": "Und los"}`, "language.nl.json": `{"Try again": "Opnieuw", "%s failed": "%s is mislukt"}`,
		"..data/style.css": "", "..2026_01_02/style.css": "", // as in a ConfigMap that is mounted
	}), nil)
	if err != nil {
		t.Fatal(err)
	}
	want := func(page *httptest.ResponseRecorder, parts ...string) {
		t.Helper()
		for _, part := range parts {
			if !strings.Contains(page.Body.String(), part) {
				t.Errorf("the page lacks %q:\n%s", part, page.Body)
			}
		}
	}
	start := New(Deps{Site: site}).Start(nil)
	for language, said := range map[string]string{"": "<p>Try again, Back</p>", "de": "<p>Und los, Zurück</p>", "nl": "<p>Opnieuw, Back</p>"} {
		page := serve(start, "GET", "/", "", "Accept-Language", language)
		want(page, "<h1>School</h1>", said, "<style>"+style+"</style>")
		sum := sha256.Sum256([]byte(style))
		if policy := page.Header().Get("Content-Security-Policy"); !strings.Contains(policy, "style-src 'sha256-"+base64.StdEncoding.EncodeToString(sum[:])+"'") {
			t.Errorf("the policy is %s", policy)
		}
	}
	notice := serve(New(Deps{Site: site}).Session(), "GET", "/session/x", "", "Accept", browserAccept, "Accept-Language", "nl")
	want(notice, `<html lang="nl">`, "There is nothing at this address.")
}

// Pages call a template by its title, as it is in all languages, and by its name if it has none.
func TestPagesSayTitles(t *testing.T) {
	titles := map[string]string{"jupyter": "<Failed> & fine"} // a title is no text of ours, either
	site, err := Load("", func(template string) string { return titles[template] })
	if err != nil {
		t.Fatal(err)
	}
	const title = "&lt;Failed&gt; &amp; fine"
	want := func(n Notice, language string, parts ...string) {
		t.Helper()
		page := serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { site.Serve(w, r, n) }), "GET", "/", "", "Accept-Language", language)
		for _, part := range parts {
			if !strings.Contains(page.Body.String(), part) {
				t.Errorf("in %s: the page lacks %q:\n%s", language, part, page.Body)
			}
		}
	}
	titled, other := instance.Instance{ID: "abc", Template: "jupyter"}, instance.Instance{ID: "abc", Template: "other"}
	want(FailedNotice(titled), "en", "<title>"+title+" failed</title>", "<h1>"+title+" failed</h1>")
	want(UnsureNotice(titled), "de", "<h1>"+title+" ist im Moment nicht erreichbar</h1>")
	want(NoAnswerNotice(titled), "en", "<h1>"+title+" does not answer</h1>")
	want(starting(titled), "en", "<title>Starting "+title+"</title>", "<h1>Starting "+title+"</h1>")
	want(waitingNotice(titled, "/"), "en", "<h1>"+title+" waits for a place</h1>")
	want(notChangedNotice(titled, &protocol.Error{Code: http.StatusConflict}), "en", "<h1>"+title+" was not changed</h1>")
	want(notLaunchedNotice("jupyter", "", &protocol.Error{Code: http.StatusInternalServerError}), "en", "<h1>"+title+" was not launched</h1>")
	for _, reason := range instance.EndReasons() {
		titled.Status, titled.Reason = instance.StatusDeleted, string(reason)
		want(OverNotice(titled), "en", "<title>"+title+" ")
	}
	want(FailedNotice(other), "en", "<title>other failed</title>", "<h1>other failed</h1>")
	want(starting(other), "de", `<h1><span class="name">other</span> wird gestartet</h1>`)
}

func starting(inst instance.Instance) Notice {
	return StartingNotice(inst, inst.Launched, func() time.Duration { return 0 })
}

// What is read at the start stays, whatever becomes of the files: the policy is of that. Line ends
// are as browsers read them.
func TestFilesAreReadOnce(t *testing.T) {
	dir := writeFiles(t, map[string]string{"style.css": "a {\r\n}"})
	site, err := Load(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "style.css"), []byte("b {}"), 0o600); err != nil {
		t.Fatal(err)
	}
	page := serve(New(Deps{Site: site}).Start(nil), "GET", "/", "")
	sum := sha256.Sum256([]byte("a {\n}"))
	if !strings.Contains(page.Body.String(), "<style>a {\n}</style>") || !strings.Contains(page.Header().Get("Content-Security-Policy"), base64.StdEncoding.EncodeToString(sum[:])) {
		t.Errorf("got %v %s", page.Header(), page.Body)
	}
}

// A file that is not right is an error at the start, which names it.
func TestLoadErrors(t *testing.T) {
	for _, row := range []struct {
		name, file, text string
		want             []string
	}{
		{"of no page", "home.html", "", []string{`"home.html" replaces no file of the pages`, "start.html", "language.<tag>.json"}},
		{"of the admin page", "admin.html", "", []string{`"admin.html" replaces no file`}},
		{"no template", "start.html", "{{define", []string{"start.html"}},
		{"a field that is not there", "start.html", `{{define "main"}}{{.Nothing}}{{end}}`, []string{"start.html", "Nothing"}},
		{"a style that is not there", "layout.html", `{{style "other.css"}}`, []string{"other.css"}},
		{"no translations", "language.de.json", "[]", []string{"language.de.json"}},
		{"a translation without its argument", "language.de.json", `{"%s failed": "kaputt"}`, []string{"language.de.json", "kaputt", "%s failed"}},
		{"a translation without its part", "language.de.json", `{"The image {image} cannot be downloaded.": "Das {bild} fehlt."}`, []string{"language.de.json", "{bild}", "same parts", "{image}"}},
		{"English", "language.en.json", "{}", []string{"language.en.json", "other languages than English"}},
		{"no text", "start.html", "\xff", []string{"start.html is no text in UTF-8"}},
		{"the end of its element", "style.css", "a{} </STYLE><script>", []string{"style.css must not have the end tag"}},
		{"too large", "style.css", strings.Repeat(" ", maxFile+1), []string{"style.css", "at most 1048576"}},
	} {
		_, err := Load(writeFiles(t, map[string]string{row.file: row.text}), nil)
		for _, part := range row.want {
			if err == nil || !strings.Contains(err.Error(), part) {
				t.Errorf("%s: the error %v lacks %q", row.name, err, part)
			}
		}
	}
	if _, err := Load(filepath.Join(t.TempDir(), "none"), nil); err == nil {
		t.Error("a directory that is not there is no error")
	}
}
