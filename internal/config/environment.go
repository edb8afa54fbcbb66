package config

import (
	"crypto/rand"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
)

// Environment is what the settings depend on besides the command line.
type Environment struct {
	// Env looks up an environment variable, as os.LookupEnv does.
	Env func(string) (string, bool)
	// ReadFile reads a file, as os.ReadFile does.
	ReadFile func(string) ([]byte, error)
	// Hostname returns the host's name, as os.Hostname does.
	Hostname func() (string, error)
	// Random is a source of random bytes that nobody can guess: API keys are made of them.
	Random io.Reader
}

// OSEnvironment is the environment of this process.
func OSEnvironment() Environment {
	return Environment{Env: os.LookupEnv, ReadFile: os.ReadFile, Hostname: os.Hostname, Random: rand.Reader}
}

// EnvName returns the name of a flag's environment variable: BINDER_API_KEY for
// api-key. The flag version has none.
func EnvName(flagName string) string {
	return "BINDER_" + strings.ToUpper(strings.ReplaceAll(flagName, "-", "_"))
}

// readEnvironment sets the flags that the command line did not set. An empty variable
// counts as absent, because manifests often set variables to nothing.
func readEnvironment(flags *flag.FlagSet, env func(string) (string, bool), m *mistakes) {
	given := map[string]bool{versionFlag: true}
	flags.Visit(func(f *flag.Flag) { given[f.Name] = true })
	flags.VisitAll(func(f *flag.Flag) {
		value, _ := env(EnvName(f.Name))
		if value == "" || given[f.Name] {
			return
		}
		if err := flags.Set(f.Name, value); err != nil {
			m.add(fmt.Errorf("%s=%q: %w", EnvName(f.Name), value, err), f.Name)
		}
	})
}
