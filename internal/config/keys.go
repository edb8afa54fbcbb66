package config

import (
	"encoding/hex"
	"fmt"
	"io"
	"strings"
)

// completeKeys reads both keys. The default of the registry's key is the service's
// own, because the parts of a Binder share one key; but a random one means nothing to
// a registry.
func (c *Config) completeKeys(from Environment, m *mistakes) {
	var err error
	c.APIKey, err = readKey("api-key", c.APIKey, c.APIKeyFile, from.ReadFile)
	m.add(err, "api-key", "api-key-file")
	if err == nil && c.APIKey == "" {
		var raw [32]byte
		if _, err := io.ReadFull(from.Random, raw[:]); err != nil {
			m.add(fmt.Errorf("read random bytes for an API key: %w", err))
		}
		c.APIKey, c.APIKeyGenerated = hex.EncodeToString(raw[:]), true
	}
	c.RegistryAPIKey, err = readKey("registry-api-key", c.RegistryAPIKey, c.RegistryAPIKeyFile, from.ReadFile)
	m.add(err, "registry-api-key", "registry-api-key-file")
	if c.RegistryAPIKey == "" && !c.APIKeyGenerated {
		c.RegistryAPIKey = c.APIKey
	}
}

// readKey returns the key that a flag holds, or that the file named by --<flag>-file
// holds, without surrounding white space: a Secret made from a file often ends with a
// newline. It returns "" if neither is given. Its errors never show a key.
func readKey(flagName, key, file string, readFile func(string) ([]byte, error)) (string, error) {
	key = strings.TrimSpace(key)
	switch {
	case file == "":
		return key, nil
	case key != "":
		return "", fmt.Errorf("--%s and --%s-file are both set: give only one of them", flagName, flagName)
	}
	data, err := readFile(file)
	if err != nil {
		return "", fmt.Errorf("--%s-file: %w", flagName, err)
	}
	if key = strings.TrimSpace(string(data)); key == "" {
		return "", fmt.Errorf("--%s-file: %s is empty: it must hold the key", flagName, file)
	}
	return key, nil
}
