package config

import (
	"bytes"
	"flag"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write testdata/help.txt")

// To accept a change of the help: go test ./internal/config -update
func TestHelp(t *testing.T) {
	const golden = "testdata/help.txt"
	var help bytes.Buffer
	writeHelp(&help)
	if *update {
		if err := os.WriteFile(golden, help.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(help.Bytes(), want) {
		t.Errorf("the help is not that of %s; run this test with -update if it should be:\n%s", golden, &help)
	}
	for line := range strings.Lines(help.String()) {
		if len(strings.TrimSuffix(line, "\n")) > helpWidth {
			t.Errorf("a line has more than %d columns: %s", helpWidth, line)
		}
	}
	new(Config).Flags().VisitAll(func(f *flag.Flag) {
		if strings.Count(help.String(), "\n  --"+f.Name) == 0 {
			t.Errorf("the help lacks --%s", f.Name)
		}
	})
}
