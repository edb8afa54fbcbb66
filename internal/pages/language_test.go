package pages

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
)

// phrases returns every English text of our pages: those that the code says, and those of the
// HTML files.
func phrases(t *testing.T) []string {
	t.Helper()
	all := map[string]bool{}
	for _, text := range messages() {
		all[text] = true
	}
	paths, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, text := range said(t, file) {
			all[text] = true
		}
	}
	pages, err := filepath.Glob("assets/*.html")
	if err != nil {
		t.Fatal(err)
	}
	literal := regexp.MustCompile(`"((?:[^"\\]|\\.)*)"`)
	for _, path := range pages {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, call := range regexp.MustCompile(`\{\{(?:t|th|texts) ("[^}]*)\}\}`).FindAllStringSubmatch(string(data), -1) {
			found := literal.FindAllStringSubmatch(call[1], -1)
			if !strings.HasPrefix(call[0], "{{texts") {
				found = found[:1]
			}
			for _, text := range found {
				all[text[1]] = true
			}
		}
	}
	delete(all, quoted)
	return slices.Sorted(maps.Keys(all))
}

// said returns the English texts that a file gives to say.
func said(t *testing.T, file *ast.File) (texts []string) {
	t.Helper()
	constants := map[string]string{}
	ast.Inspect(file, func(n ast.Node) bool {
		if spec, ok := n.(*ast.ValueSpec); ok && len(spec.Values) == 1 {
			if value, ok := spec.Values[0].(*ast.BasicLit); ok && value.Kind == token.STRING {
				constants[spec.Names[0].Name] = value.Value // functions name it alike, and say it before the next one
			}
		}
		call, ok := n.(*ast.CallExpr)
		if !ok || len(call.Args) == 0 {
			return true
		}
		if function, ok := call.Fun.(*ast.Ident); !ok || function.Name != "say" {
			return true
		}
		quotedText := ""
		switch arg := call.Args[0].(type) {
		case *ast.BasicLit:
			quotedText = arg.Value
		case *ast.Ident:
			quotedText = constants[arg.Name]
		}
		if text, err := strconv.Unquote(quotedText); err == nil {
			texts = append(texts, text)
		} else if file.Name.Name != "" && quotedText != "" {
			t.Errorf("%s: cannot tell what is said", quotedText)
		}
		return true
	})
	return texts
}

// Every language has every text, and no other, with the same arguments in the same order, and the
// same parts. So a new cause of a failure has to be translated.
func TestLanguagesAreComplete(t *testing.T) {
	want := phrases(t)
	if len(want) < 100 || len(ownSite().languages) != 7 {
		t.Errorf("%d texts and %d languages were found", len(want), len(ownSite().languages))
	}
	for _, l := range ownSite().languages[1:] {
		for _, text := range want {
			switch translated, known := l.texts[text]; {
			case !known || translated == "":
				t.Errorf("assets/language.%s.json lacks %q", l.tag, text)
			case !slices.Equal(verbs.FindAllString(translated, -1), verbs.FindAllString(text, -1)):
				t.Errorf("assets/language.%s.json: %q has not the arguments of %q", l.tag, translated, text)
			case !slices.Equal(partsOf(translated), partsOf(text)):
				t.Errorf("assets/language.%s.json: %q has not the parts of %q", l.tag, translated, text)
			case strings.HasSuffix(translated, " ") || strings.HasPrefix(translated, " "):
				t.Errorf("assets/language.%s.json: %q is not trimmed", l.tag, translated)
			}
		}
		for text := range l.texts {
			if !slices.Contains(want, text) {
				t.Errorf("assets/language.%s.json has %q, which nothing says", l.tag, text)
			}
		}
	}
}

func TestLanguageOf(t *testing.T) {
	for header, want := range map[string]string{
		"": "en", "de": "de", "de-AT,de;q=0.9,en;q=0.8": "de", "en-US,en;q=0.9,de;q=0.8": "en", "nl,fr-CA;q=0.5": "fr",
		"zh-TW": "zh", "PT-br": "pt", "nl, *": "en", "de;q=0, es;q=0.1": "es", "de;q=x": "en", "ja ; q=0.7": "ja",
		strings.Repeat("x,", 30) + "de": "en", "<script>": "en",
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header.Set("Accept-Language", header)
		if got := ownSite().language(r).tag; got != want {
			t.Errorf("%q: %s, want %s", header, got, want)
		}
	}
}

func languageNamed(t *testing.T, tag string) *language {
	t.Helper()
	for _, l := range ownSite().languages {
		if l.tag == tag {
			return l
		}
	}
	t.Fatalf("there is no language %s", tag)
	return nil
}

// Texts of package instance are translated that are known, with what is in them. All others are
// marked as English. What a template or a container is called is never a format, nor markup.
func TestTranslate(t *testing.T) {
	german := languageNamed(t, "de")
	for _, row := range []struct{ said, want any }{
		{quote(instance.QueuedMessage(3)), "Wartet auf einen freien Platz: 3 vor dir."},
		{quote("Fetching the image x:%d<b>, unless the node has it."), "Das Image x:%d&lt;b&gt; wird geholt, falls der Knoten es nicht hat."},
		{quote("Something <new>."), `<span lang="en">Something &lt;new&gt;.</span>`},
		{say("%s failed", "100%s<i>"), "100%s&lt;i&gt; ist fehlgeschlagen"},
		{say("After %s without use the instance is deleted, with everything in it: download what you want to keep.", inWords(7200e9)), nil},
	} {
		got := string(german.html(row.said))
		if row.want == nil {
			if !strings.Contains(got, "2 Stunden") {
				t.Errorf("%v: %s", row.said, got)
			}
		} else if got != row.want {
			t.Errorf("%v: %s, want %s", row.said, got, row.want)
		}
	}
	if got := fmt.Sprint(say("%s failed", "x")); got != "x failed" {
		t.Errorf("in English it is %q", got)
	}
}
