package main

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const modulePath = "github.com/binder-project/binder-deploy-kubernetes"

// rooms is the architecture: every package of this module, and which others it
// imports. docs/design.md draws it. Whoever needs a new arrow adds it here, and says
// why in the commit.
func rooms() map[string][]string {
	return map[string][]string{
		"instance":   {},
		"ownwrites":  {},
		"waiters":    {},
		"controller": {},
		"config":     {},
		"metrics":    {},
		"leader":     {},
		"logging":    {},

		"lifetime":    {"instance"},
		"kube":        {"instance"},
		"earlyready":  {"instance"},
		"podtemplate": {"instance", "kube"},
		"tombstone":   {"instance", "kube"},
		"activity":    {"instance", "kube", "lifetime"},
		"registry":    {"instance", "podtemplate"},
		"launch":      {"instance", "kube", "podtemplate"},
		"pool":        {"controller", "instance", "kube", "podtemplate"},
		"preload":     {"controller", "instance", "kube", "podtemplate"},

		"protocol": {"instance", "launch", "podtemplate"},
		"pages":    {"instance", "launch", "protocol"},
		"proxy":    {"instance", "pages"},

		// Only tests import it, so no other room names it.
		"kubetest": {"instance", "ownwrites"},
	}
}

// TestRooms fails on an import that the table does not have, and on an arrow of the
// table that nothing uses any more. The root may import every room but kubetest.
func TestRooms(t *testing.T) {
	found := map[string]bool{}
	for _, pkg := range listPackages(t) {
		room, ok := strings.CutPrefix(pkg.ImportPath, modulePath+"/internal/")
		var imports []string
		for _, path := range pkg.Imports {
			if name, ours := strings.CutPrefix(path, modulePath+"/internal/"); ours {
				imports = append(imports, name)
			}
		}
		slices.Sort(imports)
		if !ok {
			if pkg.ImportPath != modulePath {
				t.Errorf("package %s is neither the root nor below internal", pkg.ImportPath)
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
			t.Errorf("room %s imports %q, and the table says %q", room, imports, want)
		}
	}
	for room := range rooms() {
		if !found[room] {
			t.Errorf("room %s is in the table and does not exist", room)
		}
		wantRow(t, "docs/design.md", "| `internal/"+room+"` |")
	}
}

type goPackage struct {
	ImportPath string
	Imports    []string // of the code, without those of tests
}

// listPackages asks the go command for the packages of this module.
func listPackages(t testing.TB) (packages []goPackage) {
	t.Helper()
	output, err := exec.CommandContext(t.Context(), "go", "list", "-json=ImportPath,Imports", "./...").Output()
	if err != nil {
		t.Fatal(err)
	}
	for decoder := json.NewDecoder(strings.NewReader(string(output))); ; {
		var pkg goPackage
		err := decoder.Decode(&pkg)
		if errors.Is(err, io.EOF) {
			return packages
		}
		if err != nil {
			t.Fatal(err)
		}
		packages = append(packages, pkg)
	}
}
