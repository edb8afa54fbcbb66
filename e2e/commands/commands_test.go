package commands

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const root = "../.."

// TestEveryCommandIsRun checks that each block of commands in the documentation is run by a
// test, or says what it needs that no test has.
func TestEveryCommandIsRun(t *testing.T) {
	t.Parallel()
	blocks, err := Read(root)
	require.NoError(t, err)
	require.Greater(t, len(blocks), 50)
	tests := runners(t)
	for _, block := range blocks {
		switch {
		case block.Test != "" && block.Needs != "":
			t.Errorf("%s: it has two marks", block)
		case block.Test != "":
			assert.Contains(t, tests, block.Test, "%s: no such test asks for its commands", block)
			tests[block.Test] = true
		case block.Needs != "":
			assert.Contains(t, needs(), block.Needs, "%s", block)
		default:
			for _, command := range block.Commands() {
				assert.Regexp(t, `^make [a-z]`, command, "%s: mark the block with test= or needs=", block)
			}
		}
	}
	for test, named := range tests {
		assert.True(t, named, "no block has the mark test=%s", test)
	}
}

// runners returns the names of the tests that call For.
func runners(t *testing.T) map[string]bool {
	t.Helper()
	found := map[string]bool{}
	require.NoError(t, filepath.WalkDir(filepath.Join(root, "e2e"), func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		for _, declaration := range file.Decls {
			if function, ok := declaration.(*ast.FuncDecl); ok && strings.HasPrefix(function.Name.Name, "Test") && calls(function, "commands", "For") {
				found[function.Name.Name] = false
			}
		}
		return nil
	}))
	require.NotEmpty(t, found)
	return found
}

// calls reports whether a function calls a function of a package.
func calls(function *ast.FuncDecl, pkg, name string) (found bool) {
	ast.Inspect(function, func(node ast.Node) bool {
		if call, ok := node.(*ast.CallExpr); ok {
			selector, ok := call.Fun.(*ast.SelectorExpr)
			if ok && selector.Sel.Name == name {
				ident, ok := selector.X.(*ast.Ident)
				found = found || ok && ident.Name == pkg
			}
		}
		return true
	})
	return found
}

// TestDocumentedTargetsExist checks the targets of make that the pages name, in blocks and in
// sentences.
func TestDocumentedTargetsExist(t *testing.T) {
	t.Parallel()
	makefile, err := os.ReadFile(filepath.Join(root, "Makefile"))
	require.NoError(t, err)
	var targets []string
	for _, match := range regexp.MustCompile(`(?m)^([a-z0-9-]+):`).FindAllStringSubmatch(string(makefile), -1) {
		targets = append(targets, match[1])
	}
	named := regexp.MustCompile("(?m)(?:`|^ *)make((?: [a-z][a-z0-9-]*\\b)+)")
	count := 0
	require.NoError(t, walkPages(root, func(page, text string) error {
		for _, match := range named.FindAllStringSubmatch(text, -1) {
			for _, target := range strings.Fields(match[1]) {
				count++
				assert.True(t, slices.Contains(targets, target), "%s names make %s", page, target)
			}
		}
		return nil
	}))
	assert.Greater(t, count, 40)
}

// TestDocumentedTestsExist checks what the commands for developers name, which no test runs:
// tests, packages and scripts.
func TestDocumentedTestsExist(t *testing.T) {
	t.Parallel()
	blocks, err := Read(root)
	require.NoError(t, err)
	run := regexp.MustCompile(`-(?:run|fuzz) '?\^?((?:Test|Fuzz)\w+)`)
	in := regexp.MustCompile(`go -C (\w+)`)
	paths := regexp.MustCompile(`(?m)(?:^| )(\./[\w/]+|hack/[\w.]+)(?: |$)`)
	checked := 0
	for _, block := range blocks {
		for _, command := range block.Commands() {
			dir := root
			if match := in.FindStringSubmatch(command); match != nil {
				dir = filepath.Join(root, match[1])
				assert.FileExists(t, filepath.Join(dir, "go.mod"), "%s", block)
			}
			for _, match := range paths.FindAllStringSubmatch(command, -1) {
				checked++
				_, err := os.Stat(filepath.Join(dir, match[1]))
				assert.NoError(t, err, "%s", block)
			}
			if match := run.FindStringSubmatch(command); match != nil && match[1] != "TestName" {
				checked++
				assert.True(t, hasTest(t, dir, match[1]), "%s: there is no test %s", block, match[1])
			}
		}
	}
	assert.Greater(t, checked, 10)
}

// hasTest reports whether a file below a directory has tests whose names begin like this.
func hasTest(t *testing.T, dir, name string) (found bool) {
	t.Helper()
	declared := regexp.MustCompile(`(?m)^func ` + name)
	require.NoError(t, filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.IsDir() && strings.HasPrefix(entry.Name(), ".") && path != dir {
			return fs.SkipDir
		}
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		data, err := os.ReadFile(path)
		found = found || declared.Match(data)
		return err
	}))
	return found
}
