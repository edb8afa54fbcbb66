package commands

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestParse(t *testing.T) {
	t.Parallel()
	blocks, err := parse("docs/page.md", "# Page\n\n## Do\n\n1. This:\n\n   ```sh test=TestIt\n   # Why\n   for x in a; do\n     echo $x \\\n       b\n   done\n   ```\n\n"+
		"```json\n# No heading\n```\n\n### Look\n\n```console needs=kind\n$ date\nToday\n```\n")
	require.NoError(t, err)
	require.Len(t, blocks, 2)
	assert.Equal(t, Block{Page: "docs/page.md", Line: 8, Heading: "Do", Text: "# Why\nfor x in a; do\n  echo $x \\\n    b\ndone\n", Test: "TestIt", language: "sh"}, *blocks[0])
	assert.Equal(t, []string{"for x in a; do", "echo $x     b", "done"}, blocks[0].Commands())
	assert.Equal(t, Block{Page: "docs/page.md", Line: 22, Heading: "Look", Text: "date\n", Needs: "kind", language: "console"}, *blocks[1])
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	for text, problem := range map[string]string{
		"```\nls\n```\n":             "page.md:1: unknown language",
		"\n```bash\nls\n```\n":       "page.md:2: unknown language",
		"```sh tests=TestA\nls\n```": "unknown mark",
		"```yaml test=TestA\n```":    "unknown mark",
		"```sh\nls\n":                "page.md:2: the block has no end",
	} {
		_, err := parse("page.md", text)
		assert.ErrorContains(t, err, problem, "%s", text)
	}
}

// What a command has left in the background ends with it, even if it takes no signal yet.
func TestShellEndsTheBackground(t *testing.T) {
	t.Parallel()
	shell := NewShell(t, t.TempDir(), ".", strings.NewReplacer())
	assert.Equal(t, "done\n", shell.Run(t, "page.md", "(trap '' TERM; sleep 300) & echo done"))
}

func TestShellKeepsVariables(t *testing.T) {
	t.Parallel()
	shell := NewShell(t, t.TempDir(), ".", strings.NewReplacer("page", "reader's"))
	assert.Empty(t, shell.Run(t, "page.md", "KEY='a \"b\"\n c'\nsleep 300 &"))
	assert.Equal(t, "reader's a \"b\"\n c\n", shell.Run(t, "page.md", `echo "page $KEY"`))
	assert.Equal(t, "a \"b\"\n c", shell.Variable(t, "KEY"))
	assert.Equal(t, "1\n2\n", shell.watch(t, "page.md", "for n in 1 2; do echo $n; done; sleep 300", "2\n"))
}
