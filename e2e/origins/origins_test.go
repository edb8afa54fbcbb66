//go:build e2e

// Package origins lets a hostile instance attack another instance of the same visitor, and
// the launch page, in a real browser. It runs the service, with as much of a cluster as it
// needs, so it needs no other.
package origins

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const securityDoc = "../../docs/security.md"

// TestAttacks tries every attack in every mode. The table in docs/security.md says which
// ones succeed, and an attack that should and does not is an error as well: it proves
// nothing about the modes that stop it.
func TestAttacks(t *testing.T) {
	service, err := filepath.Abs("../../.build/bin/origins-service") // go build leaves it alone if nothing has changed
	require.NoError(t, err)
	build := exec.Command("go", "build", "-o", service, ".")
	build.Dir = "../.."
	output, err := build.CombinedOutput()
	require.NoError(t, err, "%s", output)

	measured := make([]string, len(attacks()))
	for i, attack := range attacks() {
		measured[i] = "| " + attack.name + " |"
	}
	for _, m := range modes() {
		a := startArena(t, m, service)
		for i, attack := range attacks() {
			a.plant()
			verdict := "stopped"
			if attack.succeeded(a) {
				verdict = "not stopped"
			}
			measured[i] += " " + verdict + " |"
			t.Logf("%s: %s: %s", m.name, attack.name, verdict)
		}
	}
	table := strings.Join(measured, "\n") + "\n"
	doc, err := os.ReadFile(securityDoc)
	require.NoError(t, err)
	head := "| a hostile instance tries to |"
	for _, m := range modes() {
		head += " " + m.name + " |"
	}
	fmt.Printf("%s\n|---|---|---|---|\n%s", head, table)
	_, rest, found := strings.Cut(string(doc), "\n"+head+"\n|---|---|---|---|\n")
	require.True(t, found, "%s has no table with the head %s", securityDoc, head)
	documented, _, _ := strings.Cut(rest, "\n\n")
	assert.Equal(t, table, documented+"\n", "measured, and in %s", securityDoc)
}
