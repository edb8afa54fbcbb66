package main

import (
	"cmp"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/binder-project/binder-deploy-kubernetes/internal/config"
	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
	"github.com/binder-project/binder-deploy-kubernetes/internal/lifetime"
)

func readDoc(t testing.TB, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// wantRow checks that a page has a table row that begins with some text.
func wantRow(t testing.TB, page, row string) {
	t.Helper()
	if !strings.Contains(readDoc(t, page), "\n"+row) {
		t.Errorf("%s has no row %q", page, row)
	}
}

func TestDocsHaveEveryFlag(t *testing.T) {
	new(config.Config).Flags().VisitAll(func(f *flag.Flag) {
		row := "| `--" + f.Name + "` | `" + config.EnvName(f.Name) + "` |"
		if f.Name == "version" {
			row = "| `--version` | |"
		}
		wantRow(t, "docs/operate.md", row)
	})
}

// Every key of the state contract has a row, labels and annotations of pods in one
// table, and annotations of templates in others. An annotation of templates is on pods
// too if the template's hash covers it.
func TestDocsHaveEveryKey(t *testing.T) {
	keys := stringConstants(t, "internal/instance/contract.go")
	if len(keys) < 15 {
		t.Fatalf("only %d constants are found", len(keys))
	}
	templates := matches(t, "internal/podtemplate/annotations.go", `\{key: instance\.(\w+),`)
	hashed := matches(t, "internal/podtemplate/hash.go", `template\.Annotations\[instance\.(\w+)\]`)
	for name, key := range keys {
		switch {
		case !strings.Contains(key, "/"): // a value
		case strings.HasSuffix(name, "Label"):
			wantRow(t, "docs/state.md", "| `"+key+"` | label |")
		case slices.Contains(templates, name) && !slices.Contains(hashed, name): // of templates only
		default:
			wantRow(t, "docs/state.md", "| `"+key+"` | annotation |")
		}
	}
	_, ofTemplates, _ := strings.Cut(readDoc(t, "docs/state.md"), "\n## On a PodTemplate\n")
	for _, name := range templates {
		row := "| `" + keys[name] + "` |"
		wantRow(t, "docs/templates.md", row)
		if !strings.Contains(ofTemplates, "\n"+row) {
			t.Errorf("docs/state.md has no row %q for templates", row)
		}
	}
}

// matches returns what the group of an expression matches in a file. It fails the test
// if that is nothing.
func matches(t testing.TB, path, expression string) (found []string) {
	t.Helper()
	for _, match := range regexp.MustCompile(expression).FindAllStringSubmatch(readDoc(t, path), -1) {
		found = append(found, match[1])
	}
	if len(found) == 0 {
		t.Fatalf("%s has nothing that matches %s", path, expression)
	}
	return found
}

// stringConstants are the constants of a file that are string literals.
func stringConstants(t testing.TB, path string) map[string]string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	constants := map[string]string{}
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		for i, value := range spec.Values {
			if literal, ok := value.(*ast.BasicLit); ok && literal.Kind == token.STRING {
				constants[spec.Names[i].Name], _ = strconv.Unquote(literal.Value)
			}
		}
		return true
	})
	return constants
}

// docs/status.md has every reason that the service knows, and nothing else in its tables.
func TestDocsHaveEveryReason(t *testing.T) {
	var rows []string
	for _, cause := range instance.Causes() {
		reason := "`" + cause.Reason + "`"
		if len(cause.Texts) > 0 {
			reason += " with “" + strings.Join(cause.Texts, "”, “") + "”"
		}
		rows = append(rows, fmt.Sprintf("| %s | %s | %s | %s | %s |", cause.Where, reason, cause.Outlook, cmp.Or(string(cause.Fault), "–"), cause.Message))
	}
	var found []string
	for line := range strings.Lines(readDoc(t, "docs/status.md")) {
		if strings.Count(line, " | ") == 4 && strings.Contains(line, "`") {
			found = append(found, strings.TrimSpace(line))
		}
	}
	if !slices.Equal(found, rows) {
		t.Errorf("the rows of docs/status.md should be\n%s", strings.Join(rows, "\n"))
	}
}

// docs/metrics.md has every metric, and no other.
func TestDocsHaveEveryMetric(t *testing.T) {
	paths, err := filepath.Glob("internal/metrics/*.go")
	noError(t, err)
	var metrics []string
	for _, path := range append(paths, "collectors.go") {
		for _, match := range regexp.MustCompile(`"((?:binder|rest_client|workqueue)_[a-z_]+)"`).FindAllStringSubmatch(readDoc(t, path), -1) {
			if !strings.HasSuffix(path, "_test.go") {
				metrics = append(metrics, match[1])
			}
		}
	}
	slices.Sort(metrics)
	rows := matches(t, "docs/metrics.md", "(?m)^\\| `([a-z_]+)` \\|")
	slices.Sort(rows)
	if !slices.Equal(rows, metrics) {
		t.Errorf("docs/metrics.md has %q, want %q", rows, metrics)
	}
}

// Every threat in docs/security.md names tests that exist.
func TestThreatsAreTested(t *testing.T) {
	tests := allTests(t)
	_, section, found := strings.Cut(readDoc(t, "docs/security.md"), "\n## Threats\n")
	section, _, _ = strings.Cut(section, "\n## ")
	rows := 0
	for line := range strings.Lines(section) {
		cells := strings.Split(line, " | ")
		if len(cells) != 4 || strings.HasPrefix(cells[2], "shown by") {
			continue
		}
		rows++
		names := regexp.MustCompile("`(\\w+)`").FindAllStringSubmatch(cells[2], -1)
		if len(names) == 0 {
			t.Errorf("no test is named for: %s", cells[0])
		}
		for _, name := range names {
			if !tests[name[1]] {
				t.Errorf("there is no test %s", name[1])
			}
		}
	}
	if !found || rows < 30 {
		t.Errorf("found %d threats", rows)
	}
}

// allTests returns the names of the tests of all modules.
func allTests(t testing.TB) map[string]bool {
	t.Helper()
	tests := map[string]bool{}
	noError(t, filepath.WalkDir(".", func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.IsDir() && strings.HasPrefix(entry.Name(), ".") && path != "." {
			return fs.SkipDir // build output
		}
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		for _, match := range regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(`).FindAllStringSubmatch(readDoc(t, path), -1) {
			tests[match[1]] = true
		}
		return nil
	}))
	return tests
}

// Every test that a page names is there.
func TestDocsNameTests(t *testing.T) {
	tests := allTests(t)
	pages, err := filepath.Glob("docs/*.md")
	noError(t, err)
	for _, page := range pages {
		for _, name := range regexp.MustCompile("`(Test\\w+)`").FindAllStringSubmatch(readDoc(t, page), -1) {
			if !tests[name[1]] {
				t.Errorf("%s: there is no test %s", page, name[1])
			}
		}
	}
}

// Every link from one page to another, or to a heading, leads somewhere.
func TestDocsLinks(t *testing.T) {
	pages, err := filepath.Glob("docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	pages = append(pages, "README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "cluster/README.md", "charts/binder-deploy-kubernetes/README.md")
	link := regexp.MustCompile(`\]\(([^)\s]+)\)`)
	for _, page := range pages {
		for _, match := range link.FindAllStringSubmatch(readDoc(t, page), -1) {
			target, heading, _ := strings.Cut(match[1], "#")
			if strings.Contains(target, "://") {
				continue
			}
			path := page
			if target != "" {
				path = filepath.Join(filepath.Dir(page), target)
			}
			if _, err := os.Stat(path); err != nil {
				t.Errorf("%s: link to %s: %v", page, match[1], err)
				continue
			}
			if heading != "" && !hasHeading(readDoc(t, path), heading) {
				t.Errorf("%s: link to %s: there is no such heading", page, match[1])
			}
		}
	}
}

// hasHeading reports whether a page has a heading whose anchor is this.
func hasHeading(page, anchor string) bool {
	drop := regexp.MustCompile(`[^\p{L}\p{N}_ -]`)
	for line := range strings.Lines(page) {
		text, ok := strings.CutPrefix(strings.TrimLeft(line, "#"), " ")
		if ok && strings.HasPrefix(line, "#") &&
			strings.ReplaceAll(drop.ReplaceAllString(strings.ToLower(strings.TrimSpace(text)), ""), " ", "-") == anchor {
			return true
		}
	}
	return false
}

// The pictures in docs/pages.md are screenshots that end-to-end tests take by these names, and
// docs/pictures has no others.
func TestPicturesAreTaken(t *testing.T) {
	tests, err := filepath.Glob("e2e/*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	taken := map[string]bool{}
	for _, path := range tests {
		for _, match := range regexp.MustCompile(`b\.screenshot\("([a-z-]+)"\)`).FindAllStringSubmatch(readDoc(t, path), -1) {
			for _, look := range []string{"", "-dark", "-phone", "-phone-dark"} {
				taken[match[1]+look] = true
			}
		}
	}
	shown := matches(t, "docs/pages.md", `\(pictures/([a-z-]+)\.png\)`)
	for _, name := range shown {
		if !taken[name] {
			t.Errorf("no test takes the screenshot %s, which docs/pages.md shows", name)
		}
	}
	files, err := filepath.Glob("docs/pictures/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if !slices.Contains(shown, strings.TrimSuffix(filepath.Base(file), ".png")) {
			t.Errorf("docs/pages.md does not show %s", file)
		}
	}
}

func TestREADMEIsShort(t *testing.T) {
	if lines := strings.Count(readDoc(t, "README.md"), "\n"); lines > 150 {
		t.Errorf("README.md has %d lines: it may have 150, the rest belongs in docs", lines)
	}
}

// The worked timeline of docs/activity.md is what the rules say.
func TestDocsTimeline(t *testing.T) {
	at := func(clock string) time.Time {
		parsed, err := time.Parse("15:04:05", clock)
		if err != nil {
			t.Fatal(err)
		}
		return kubetest.Noon.Truncate(24 * time.Hour).Add(parsed.Sub(parsed.Truncate(24 * time.Hour)))
	}
	ready := func(pod *corev1.Pod) { kubetest.ReadySince(at("12:00:09"))(pod) }
	for _, row := range []struct {
		when, last string
		change     func(*corev1.Pod)
		cullAt     string
	}{
		{"12:00:00", "12:00:00", kubetest.Starting, "13:10:02"},
		{"12:00:09", "12:00:00", ready, "13:05:11"},
		{"12:05:30", "12:05:30", ready, "13:10:32"},
	} {
		pod := kubetest.Pod(kubetest.ID(1), at("12:00:00"), row.change, kubetest.LastUsed(at(row.last)))
		got, _ := testRules().DueEnd(pod, at(row.last), at(row.when))
		if got.Format("15:04:05") != row.cullAt {
			t.Errorf("at %s cull-at is %s, want %s", row.when, got.Format("15:04:05"), row.cullAt)
		}
		if !regexp.MustCompile(`(?m)^\| ` + row.when + ` \|.*\| ` + row.cullAt).MatchString(readDoc(t, "docs/activity.md")) {
			t.Errorf("docs/activity.md has no row of %s with cull-at %s", row.when, row.cullAt)
		}
	}
	pod := kubetest.Pod(kubetest.ID(1), at("12:00:00"), ready, kubetest.LastUsed(at("12:05:30")))
	for clock, want := range map[string]lifetime.Action{"13:10:15": lifetime.Keep, "13:10:45": lifetime.End} {
		verdict := testRules().Judge(pod, nil, at(clock), false)
		if verdict.Action != want || want == lifetime.End && !strings.Contains(readDoc(t, "docs/activity.md"), verdict.Message) {
			t.Errorf("at %s the verdict is %+v", clock, verdict)
		}
	}
}
