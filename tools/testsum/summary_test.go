package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const results = `
{"Action":"start","Package":"p"}
{"Action":"run","Package":"p","Test":"TestA"}
{"Action":"output","Package":"p","Test":"TestA","Output":"FAIL 3 passed\n"}
{"Action":"pass","Package":"p","Test":"TestA","Elapsed":0.1}
{"Action":"run","Package":"p","Test":"TestB"}
{"Action":"run","Package":"p","Test":"TestB/sub"}
{"Action":"skip","Package":"p","Test":"TestB/sub"}
{"Action":"pass","Package":"p","Test":"TestB"}
`

func TestSummarize(t *testing.T) {
	for _, test := range []struct {
		name, events    string
		passed          int
		failed, skipped []string
	}{
		{"passed and skipped", results, 2, nil, []string{"p TestB/sub"}},
		{"failed", results + `{"Action":"run","Package":"p","Test":"TestC"}
			{"Action":"fail","Package":"p","Test":"TestC"}
			{"Action":"fail","Package":"p"}`, 2, []string{"p TestC"}, []string{"p TestB/sub"}},
		{"killed", results + `{"Action":"run","Package":"p","Test":"TestC"}
			{"Action":"fail","Package":"p"}`, 2, []string{"p TestC: did not finish"}, []string{"p TestB/sub"}},
		{"does not compile", `{"ImportPath":"q","Action":"build-fail"}
			{"Action":"start","Package":"q"}
			{"Action":"fail","Package":"q","FailedBuild":"q"}`, 0,
			[]string{"q: the package failed outside its tests (see its output above)"}, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := summarize(strings.NewReader(test.events))
			if err != nil {
				t.Fatal(err)
			}
			if got.passed != test.passed || !slices.Equal(got.failed, test.failed) || !slices.Equal(got.skipped, test.skipped) {
				t.Errorf("got %+v, want %+v", got, test)
			}
		})
	}
}

func TestRun(t *testing.T) {
	write := func(name, content string) string {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good := write("good.json", `{"Action":"pass","Package":"p","Test":"TestA"}`)
	skips := write("skips.json", results)
	empty := write("empty.json", "")
	notRun := write("not-run", "TestX\nTestY\n")

	for _, test := range []struct {
		name     string
		strict   bool
		notRun   string
		files    []string
		ok       bool
		lastLine string
	}{
		{"good", true, "", []string{good}, true, "1 passed, 0 failed"},
		{"skipped", false, "", []string{good, skips}, true, "3 passed, 0 failed, 1 skipped"},
		{"skipped, strict", true, "", []string{good, skips}, false, "3 passed, 0 failed, 1 skipped"},
		{"not run", false, notRun, []string{good}, true, "1 passed, 0 failed, 2 skipped"},
		{"not run, strict", true, notRun, []string{good}, false, "1 passed, 0 failed, 2 skipped"},
		{"nothing was run", false, "", []string{good, empty}, false, "1 passed, 1 failed"},
		{"no results", false, "", []string{good, empty + ".missing"}, false, "1 passed, 1 failed"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var out strings.Builder
			ok, err := run(&out, test.strict, test.notRun, test.files)
			if err != nil || ok != test.ok {
				t.Errorf("ok is %v, %v; want %v", ok, err, test.ok)
			}
			lines := strings.Split(strings.TrimSpace(out.String()), "\n")
			if last := lines[len(lines)-1]; last != test.lastLine {
				t.Errorf("last line is %q, want %q", last, test.lastLine)
			}
		})
	}
}
