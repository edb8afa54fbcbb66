package instance_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	. "github.com/binder-project/binder-deploy-kubernetes/internal/instance"
)

// Everything that this package says to visitors is among Texts, and so can be translated: what its
// files write as a sentence, and what the functions return as words.
func TestTextsAreWhole(t *testing.T) {
	sentence := regexp.MustCompile(`^[A-Z{][^"]* [^"]*[.:] ?$`)
	paths, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	found, texts := 0, Texts()
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		check := func(n ast.Node, says func(text string) bool) {
			literal, ok := n.(*ast.BasicLit)
			if !ok || literal.Kind != token.STRING {
				return
			}
			text, err := strconv.Unquote(literal.Value)
			if err != nil || !says(text) {
				return
			}
			if found++; !slices.Contains(texts, text) {
				t.Errorf("%s: Texts does not have %q", path, text)
			}
		}
		hasWords := func(text string) bool { return strings.Contains(text, " ") }
		ast.Inspect(file, func(n ast.Node) bool {
			check(n, sentence.MatchString)
			if returned, ok := n.(*ast.ReturnStmt); ok {
				for _, result := range returned.Results {
					check(result, hasWords)
				}
			}
			if spec, ok := n.(*ast.ValueSpec); ok && path == "texts.go" {
				for _, value := range spec.Values {
					check(value, func(string) bool { return true })
				}
			}
			return true
		})
	}
	if found < len(texts) {
		t.Errorf("only %d texts are found", found)
	}
}

// A part that nobody fills would be shown in its braces.
func TestTextsHaveKnownParts(t *testing.T) {
	known := []string{"{container}", "{image}", "{port}", "{how}", "{code}", "{limit}", "{times}", "{ahead}", "{time}", "{age}", "{timeout}"}
	for _, text := range Texts() {
		for _, part := range regexp.MustCompile(`\{[^}]*\}?`).FindAllString(text, -1) {
			if !slices.Contains(known, part) {
				t.Errorf("%q has the part %s", text, part)
			}
		}
	}
}
