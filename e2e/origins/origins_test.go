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

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
)

const securityDoc = "../../docs/security.md"

// wantWayToAnInstance goes from the launch page to an instance that takes a while to start,
// and from its end back to the launch page. No page may violate its own policy.
func wantWayToAnInstance(a *arena) {
	a.cluster.hold(true)
	a.open(a.main("/launch/" + template + "?path=far"))
	starting := func() bool { return a.heading() == "Starting "+template }
	require.True(a.t, a.within(patience, starting), "%s: the progress is not shown: %q", a.mode.name, a.heading())
	a.cluster.hold(false)
	require.True(a.t, a.within(patience, func() bool { return a.heading() == "page" }), "%s: the instance is not opened: %q", a.mode.name, a.heading())
	require.True(a.t, a.arrives("/far"))
	id := strings.Split(a.js(`location.pathname`), "/")[2]
	require.Equal(a.t, a.url(id, "far"), a.js(`location.href`))

	// The host's own / leads to the instance, and a stopped one's page to the launch page.
	if a.mode.domain != "" {
		a.open(strings.TrimSuffix(a.url(id, ""), instance.BaseURL(id)))
		require.Equal(a.t, a.url(id, ""), a.js(`location.href`))
		a.open(a.main(instance.BaseURL(id) + "x?y"))
		require.Equal(a.t, a.url(id, "x?y"), a.js(`location.href`))
	}
	a.cluster.end(id)
	require.True(a.t, a.within(patience, func() bool {
		a.open(a.url(id, "x"))
		return a.heading() == template+" is being deleted"
	}), "%s: the end is not shown: %q", a.mode.name, a.heading())
	before := a.cluster.launches()
	a.js(`document.querySelector('main a.button, main button').click()`)
	require.True(a.t, a.within(patience, func() bool { return a.cluster.launches() > before }), "%s: no new instance: %q", a.mode.name, a.heading())
	require.True(a.t, a.within(patience, func() bool { return a.heading() == "page" }))
}

// wantOtherPort goes from the session page of an instance to its other port, which is an origin of
// its own. Without hosts for instances it is not offered.
func wantOtherPort(a *arena) {
	const links = `document.querySelectorAll('main a[href*="//` + "%s-%s." + `"]')`
	found := fmt.Sprintf(links, a.otherPort, a.victim)
	a.plant()
	a.open(a.main("/session/" + a.victim))
	if a.mode.domain == "" {
		require.Equal(a.t, "0", a.js(found+`.length`))
		return
	}
	require.Equal(a.t, "Open port "+a.otherPort, a.js(found+`[0].textContent`))
	a.js(found + `[0].click()`)
	require.True(a.t, a.within(patience, func() bool { return a.heading() == "other" }), "%s: the other port is not opened: %q", a.mode.name, a.heading())
	require.Equal(a.t, "http://"+a.otherPort+"-"+a.victim+"."+a.mode.domain+":"+a.port+"/", a.js(`location.href`))
	require.Equal(a.t, "null", a.js(`localStorage.getItem('place')`))
	require.Empty(a.t, a.js(`document.cookie`))
	require.Contains(a.t, a.js(`fetch('`+a.url(a.victim, "page")+`').then((r) => r.text())`), "Failed to fetch")
}

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
		wantWayToAnInstance(a)
		wantOtherPort(a)
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
