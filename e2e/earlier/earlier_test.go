package earlier

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// newRepository makes a repository by steps: "main.go=2" writes a file and commits it,
// "main.go~2" writes it only, and "v1" is a tag. It returns the repository's root and the
// commits.
func newRepository(t *testing.T, steps ...string) (root string, commits []string) {
	t.Helper()
	root = t.TempDir()
	for name, value := range map[string]string{
		"GIT_CEILING_DIRECTORIES": filepath.Dir(root), "GIT_CONFIG_GLOBAL": os.DevNull, "GIT_CONFIG_SYSTEM": os.DevNull,
		"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@example.com", "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@example.com",
	} {
		t.Setenv(name, value)
	}
	command := func(args ...string) string {
		out, err := git(t.Context(), root, args...)
		require.NoError(t, err)
		return out
	}
	command("init", "--quiet")
	for _, step := range steps {
		path, content, isFile := strings.Cut(strings.Replace(step, "~", "=", 1), "=")
		if !isFile {
			command("tag", "--annotate", "--message=x", step)
			continue
		}
		require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(root, path)), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(root, path), []byte(content), 0o600))
		if strings.Contains(step, "=") {
			command("add", ".")
			command("commit", "--quiet", "--message="+step)
			commits = append(commits, command("rev-parse", "HEAD"))
		}
	}
	return root, commits
}

func TestPrevious(t *testing.T) {
	for name, tc := range map[string]struct {
		steps []string
		want  int // index of the commit; -1 for an error
	}{
		"the commit before":            {[]string{"main.go=1", "main.go=2", "main.go=3"}, 1},
		"only tests and docs since":    {[]string{"main.go=1", "main.go=2", "main_test.go=1", "docs/x.md=1", "e2e/main.go=1"}, 0},
		"a package":                    {[]string{"main.go=1", "internal/x/page.html=1", "e2e/x_test.go=1"}, 0},
		"a manifest":                   {[]string{"main.go=1", "manifests/x.yaml=1"}, 0},
		"what is not committed":        {[]string{"main.go=1", "main.go=2", "main.go~3"}, 1},
		"tests that are not committed": {[]string{"main.go=1", "main.go=2", "main_test.go=1", "main_test.go~2"}, 0},
		"a release":                    {[]string{"main.go=1", "v1", "main.go=2", "main.go=3"}, 0},
		"the newest release":           {[]string{"main.go=1", "v1", "main.go=2", "v2", "main.go=3"}, 1},
		"this is a release":            {[]string{"main.go=1", "v1", "main.go=2", "main.go=3", "v2"}, 0},
		"this is the first release":    {[]string{"main.go=1", "main.go=2", "v1", "docs/x.md=1"}, 0},
		"a tag that is no release":     {[]string{"main.go=1", "try", "main.go=2", "main.go=3"}, 1},
		"there was none before":        {[]string{"main.go=1", "docs/x.md=1"}, -1},
	} {
		t.Run(name, func(t *testing.T) {
			root, commits := newRepository(t, tc.steps...)
			commit, err := Previous(t.Context(), root)
			if tc.want < 0 {
				assert.ErrorContains(t, err, "there is no version before this one")
				return
			}
			require.NoError(t, err)
			got, err := git(t.Context(), root, "rev-parse", commit+"^{commit}")
			require.NoError(t, err)
			assert.Equal(t, commits[tc.want], got)
		})
	}
}

// TestHistoryIsMissing checks that the errors say what to do.
func TestHistoryIsMissing(t *testing.T) {
	root, _ := newRepository(t, "main.go=1", "main.go=2")
	shallow := filepath.Join(t.TempDir(), "shallow")
	_, err := git(t.Context(), root, "clone", "--quiet", "--depth=1", "file://"+root, shallow)
	require.NoError(t, err)
	_, err = Previous(t.Context(), shallow)
	assert.ErrorContains(t, err, "git fetch --unshallow")
	_, err = Ago(t.Context(), shallow, 1)
	assert.ErrorContains(t, err, "git fetch --unshallow")

	unpacked := t.TempDir()
	t.Setenv("GIT_CEILING_DIRECTORIES", filepath.Dir(unpacked))
	_, err = Previous(t.Context(), unpacked)
	assert.ErrorContains(t, err, "clone it with git")
}

// TestCheckout checks that the source is that of the commit, and that the repository stays
// as it is.
func TestCheckout(t *testing.T) {
	root, commits := newRepository(t, "main.go=1", "v1", "main.go=2", "main.go~3")
	ago, err := Ago(t.Context(), root, 1)
	require.NoError(t, err)
	assert.Equal(t, commits[0], ago)
	version, err := Checkout(t.Context(), root, ago, t.TempDir())
	require.NoError(t, err)
	assert.Equal(t, "v1", version.Name())
	for path, want := range map[string]string{filepath.Join(version.Dir, "main.go"): "1", filepath.Join(root, "main.go"): "3"} {
		data, err := os.ReadFile(path)
		require.NoError(t, err)
		assert.Equal(t, want, string(data))
	}
}
