package faults

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// section returns the part of a page below a heading, up to the next one of its level.
func section(t *testing.T, page, heading string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("../../docs", page))
	require.NoError(t, err)
	_, after, found := strings.Cut(string(text), "\n## "+heading+"\n")
	require.True(t, found, "%s has no section %q", page, heading)
	before, _, _ := strings.Cut(after, "\n## ")
	return before
}

// rows returns the cells of all rows of tables, without their heads.
func rows(text string) (rows [][]string) {
	inTable := false // whether the rows' head is over
	for line := range strings.Lines(text) {
		line, isRow := strings.CutPrefix(strings.TrimSpace(line), "|")
		switch {
		case !isRow:
			inTable = false
		case strings.HasPrefix(line, "--"):
			inTable = true
		case inTable:
			var cells []string
			for cell := range strings.SplitSeq(strings.TrimSuffix(line, "|"), " | ") {
				cells = append(cells, strings.TrimSpace(cell))
			}
			rows = append(rows, cells)
		}
	}
	return rows
}

// TestDocsHaveTheFigures checks that the table in docs/faults.md has every fault, in order, and
// that nothing was lost, there twice, ended early or never, or wrong otherwise. A new fault may
// have a line without figures until it is measured.
func TestDocsHaveTheFigures(t *testing.T) {
	var names []string
	for _, fault := range All() {
		names = append(names, fault.Name)
	}
	var measured []string
	for _, row := range rows(section(t, "faults.md", "The figures of one run")) {
		measured = append(measured, row[0])
		if !strings.HasPrefix(row[1], "not measured") {
			require.Len(t, row, strings.Count(strings.SplitN(reportHeader, "\n", 2)[0], "|")-1, row[0])
			assert.Equal(t, "0 0 0 0 0", strings.Join(row[6:11], " "), row[0])
		}
	}
	assert.Equal(t, names, measured)
}

// TestSymptomsAreShown checks that docs/faults.md says for each row of the failure tables of
// docs/operate.md what shows it, and that each fault shows something. That the tests exist is
// checked for all pages.
func TestSymptomsAreShown(t *testing.T) {
	var symptoms []string
	for _, heading := range []string{"When the API server does not answer", "When things fail"} {
		for _, row := range rows(section(t, "operate.md", heading)) {
			if row[0] != "" { // another cause of the symptom above
				symptoms = append(symptoms, row[0])
			}
		}
	}
	var documented []string
	shown := map[string]bool{}
	quoted, named := regexp.MustCompile(`"([^"]+)"`), regexp.MustCompile("`Test\\w+`")
	for _, row := range rows(section(t, "faults.md", "What operators see")) {
		documented = append(documented, row[0])
		faults := quoted.FindAllStringSubmatch(row[1], -1)
		for _, fault := range faults {
			shown[fault[1]] = true
		}
		assert.True(t, len(faults) > 0 || named.MatchString(row[1]) || strings.HasPrefix(row[1], "not tested: "), "nothing shows: %s", row[0])
	}
	assert.ElementsMatch(t, symptoms, documented)
	for _, fault := range All() {
		assert.True(t, shown[fault.Name], "what does an operator see of this? %s", fault.Name)
		delete(shown, fault.Name)
	}
	assert.Empty(t, shown, "there are no such faults")
}
