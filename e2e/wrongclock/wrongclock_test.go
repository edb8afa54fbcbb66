package wrongclock

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestOverlay checks that the files fit this version of Go, without the minutes that it takes
// to build something with them.
func TestOverlay(t *testing.T) {
	dir := t.TempDir()
	path, err := writeOverlay(t.Context(), dir, dir)
	require.NoError(t, err)
	list := exec.CommandContext(t.Context(), "go", "list", "-overlay="+path, `-f={{join .GoFiles " "}}`, "runtime")
	list.Env = append(os.Environ(), "GOFLAGS=")
	files, err := list.Output()
	require.NoError(t, err)
	assert.Contains(t, strings.Fields(string(files)), "wrongclock.go")

	_, err = callWrongNow([]byte("package runtime\n"))
	assert.ErrorContains(t, err, "0 times")
	goroot, err := exec.CommandContext(t.Context(), "go", "env", "GOROOT").Output()
	require.NoError(t, err)
	source, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(goroot)), "src", "runtime", "time.go"))
	require.NoError(t, err)
	changed, err := callWrongNow(source)
	require.NoError(t, err)
	assert.Len(t, changed, len(source))
}
