package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
)

// Every file can be read at a sitting, and every function on a screen.
const (
	maxFileLines     = 350
	maxFunctionLines = 60
	maxRootFiles     = 8
)

func TestSizes(t *testing.T) {
	rootFiles, functions := 0, 0
	err := filepath.WalkDir(".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && strings.HasPrefix(path, ".") && path != "." {
			return fs.SkipDir
		}
		if entry.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		if filepath.Dir(path) == "." {
			rootFiles++
		}
		positions := token.NewFileSet()
		file, err := parser.ParseFile(positions, path, nil, 0)
		if err != nil {
			return err
		}
		if lines := positions.File(file.Pos()).LineCount(); lines > maxFileLines {
			t.Errorf("%s has %d lines, and may have %d: is it still one subject?", path, lines, maxFileLines)
		}
		for _, declaration := range file.Decls {
			function, ok := declaration.(*ast.FuncDecl)
			if !ok {
				continue
			}
			functions++
			if lines := positions.Position(function.End()).Line - positions.Position(function.Pos()).Line + 1; lines > maxFunctionLines {
				t.Errorf("%s: %s has %d lines, and may have %d", path, function.Name.Name, lines, maxFunctionLines)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if functions < 100 {
		t.Errorf("only %d functions are found", functions)
	}
	if rootFiles > maxRootFiles {
		t.Errorf("the root has %d files beside tests, and may have %d: the rest belongs below internal", rootFiles, maxRootFiles)
	}
}
