package main

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const modulePath = "github.com/binder-project/binder-deploy-kubernetes"

// rooms is the architecture: every package below internal, and the others that it imports.
// docs/design.md draws it. To add an arrow, add it here and give the reason in the commit.
func rooms() map[string][]string {
	return map[string][]string{
		"instance":   {},
		"ownwrites":  {},
		"waiters":    {},
		"controller": {},
		"contact":    {},
		"config":     {},
		"metrics":    {},
		"leader":     {},
		"logging":    {},
		"keys":       {},
		"upstream":   {},
		"gate":       {},
		"profiling":  {},
		"repospec":   {},
		"replicas":   {"instance"},

		"origin":      {"instance"},
		"admission":   {"instance"},
		"lifetime":    {"instance"},
		"informers":   {"instance"},
		"kube":        {"instance"},
		"earlyready":  {"instance"},
		"podtemplate": {"instance", "kube", "repospec"},
		"tombstone":   {"instance", "kube"},
		"activity":    {"instance", "kube", "lifetime"},
		"podstore":    {"earlyready", "instance", "lifetime"},
		"registry":    {"instance", "podtemplate"},
		"launch":      {"admission", "instance", "kube", "podtemplate"},
		"webhook":     {"instance"},
		"pool":        {"controller", "instance", "kube", "podtemplate"},
		"startlog":    {"instance"},
		"queue":       {"instance", "kube", "podstore", "podtemplate"},
		"preload":     {"controller", "instance", "kube", "podtemplate"},

		"protocol":  {"admission", "instance", "launch", "origin", "podtemplate", "preload"},
		"admin":     {"instance", "protocol", "waiters"},
		"pages":     {"admission", "instance", "launch", "origin", "podtemplate", "protocol"},
		"binderhub": {"instance", "launch", "origin", "podtemplate", "protocol", "repospec"},
		"proxy":     {"instance", "origin", "pages", "upstream"},

		// Only tests import it.
		"kubetest": {"instance", "ownwrites"},
	}
}

// TestRooms checks that the imports are those of the table. The root may import every room
// but kubetest.
func TestRooms(t *testing.T) {
	found := map[string]bool{}
	output, err := exec.CommandContext(t.Context(), "go", "list", "-f", `{{.ImportPath}} {{join .Imports " "}}`, "./...").Output()
	noError(t, err)
	for line := range strings.Lines(string(output)) {
		paths := strings.Fields(line) // of a package and its imports, without those of tests
		room, ok := strings.CutPrefix(paths[0], modulePath+"/internal/")
		var imports []string
		for _, path := range paths[1:] {
			if name, ours := strings.CutPrefix(path, modulePath+"/internal/"); ours {
				imports = append(imports, name)
			}
		}
		slices.Sort(imports)
		if !ok {
			if paths[0] != modulePath {
				t.Errorf("package %s is neither the root nor below internal", paths[0])
			}
			if slices.Contains(imports, "kubetest") {
				t.Error("the root imports kubetest, which is for tests only")
			}
			continue
		}
		found[room] = true
		want, known := rooms()[room]
		if !known {
			t.Errorf("room %s is not in the table", room)
			continue
		}
		if !slices.Equal(imports, want) {
			t.Errorf("room %s imports %q, the table has %q", room, imports, want)
		}
	}
	for room := range rooms() {
		if !found[room] {
			t.Errorf("room %s of the table does not exist", room)
		}
		wantRow(t, "docs/design.md", "| `internal/"+room+"` |")
	}
}
