package config

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"
)

// minKeyLength is the least length of a key or the secret in a cluster, in bytes. Anyone
// who reaches the service can try keys, and a hexadecimal one of this length has 64 bits.
const minKeyLength = 16

// completeKeys reads the keys and the secret. The default of the registry's key is the
// service's own first key, because the parts of a Binder share one key; but a random one
// means nothing to a registry, and without https anyone on the way could read it.
func (c *Config) completeKeys(from Environment, m *mistakes) {
	// The kubelet sets this variable in every container.
	host, _ := from.Env("KUBERNETES_SERVICE_HOST")
	c.InCluster = host != ""
	var err error
	c.APIKeys, err = c.ReadAPIKeys(from.ReadFile)
	m.add(err, "api-key", "api-key-file")
	if err == nil && len(c.APIKeys) == 0 {
		c.APIKeys, c.APIKeyGenerated = []string{randomKey(from, "an API key", m)}, true
	}
	m.add(c.readSecret(from, m), "secret-file")

	registryKeys, err := readKeys("registry-api-key", c.RegistryAPIKey, c.RegistryAPIKeyFile, from.ReadFile)
	m.add(err, "registry-api-key", "registry-api-key-file")
	switch {
	case len(registryKeys) > 0:
		c.RegistryAPIKey = registryKeys[0]
	case c.RegistryURL == "" || c.APIKeyGenerated || len(c.APIKeys) == 0:
	case isHTTPS(c.RegistryURL):
		c.RegistryAPIKey = c.APIKeys[0]
	default:
		c.Warnings = append(c.Warnings, "the registry gets no key, because --registry-url is not https: "+
			"set --registry-api-key or --registry-api-key-file to send one all the same")
	}
}

// ReadAPIKeys returns the keys that --api-key or --api-key-file holds, and checks them. It
// returns none if neither is given and the process is not in a cluster. Its errors never
// show a key.
func (c *Config) ReadAPIKeys(readFile func(string) ([]byte, error)) ([]string, error) {
	keys, err := readKeys("api-key", c.APIKey, c.APIKeyFile, readFile)
	switch {
	case err != nil || !c.InCluster:
		return keys, err
	case len(keys) == 0:
		return nil, errors.New("--api-key-file (or --api-key) is missing: in a cluster, all replicas must share a key")
	}
	for i, key := range keys {
		if len(key) >= minKeyLength {
			continue
		}
		if c.APIKeyFile == "" {
			return nil, fmt.Errorf("--api-key has less than %d characters", minKeyLength)
		}
		return nil, fmt.Errorf("--api-key-file: key %d of %s has less than %d characters", i+1, c.APIKeyFile, minKeyLength)
	}
	return keys, nil
}

// readSecret reads the secret, or makes a random one.
func (c *Config) readSecret(from Environment, m *mistakes) error {
	if c.SecretFile == "" {
		if c.InCluster {
			return errors.New("--secret-file is missing: in a cluster, all replicas must share a secret")
		}
		c.Secret = randomKey(from, "a secret", m)
		return nil
	}
	secret, err := readSecretText("--secret-file", c.SecretFile, from.ReadFile)
	if err != nil {
		return err
	}
	c.Secret = secret
	if c.InCluster && len(c.Secret) < minKeyLength {
		return fmt.Errorf("--secret-file: %s has less than %d characters", c.SecretFile, minKeyLength)
	}
	return nil
}

// readSecretText returns the text in the file of a flag. Its errors name the flag, and never
// show the text.
func readSecretText(flagName, file string, readFile func(string) ([]byte, error)) (string, error) {
	data, err := readFile(file)
	if err != nil {
		return "", fmt.Errorf("%s: %w", flagName, err)
	}
	text := strings.TrimSpace(string(data))
	if text == "" {
		return "", fmt.Errorf("%s: %s is empty: it must hold the secret", flagName, file)
	}
	return text, nil
}

// readKeys returns the key that a flag holds, or those that the file named by
// --<flag>-file holds, one in a line. Lines can be empty or end with white space: a
// Secret made from a file often ends with a newline. A key has visible ASCII characters
// only; others cannot be sent in a header, and a comment must not become a key.
func readKeys(flagName, key, file string, readFile func(string) ([]byte, error)) (keys []string, err error) {
	text := strings.TrimSpace(key)
	switch {
	case file == "":
	case text != "":
		return nil, fmt.Errorf("--%s and --%s-file are both set: give only one of them", flagName, flagName)
	default:
		flagName += "-file"
		data, err := readFile(file)
		if err != nil {
			return nil, fmt.Errorf("--%s: %w", flagName, err)
		}
		if text = strings.TrimSpace(string(data)); text == "" {
			return nil, fmt.Errorf("--%s: %s is empty: it must hold the key", flagName, file)
		}
	}
	invisible := func(c rune) bool { return c <= ' ' || c > '~' }
	for line := range strings.Lines(text) {
		switch line = strings.TrimSpace(line); {
		case strings.ContainsFunc(line, invisible):
			return nil, fmt.Errorf("--%s: a key must have visible ASCII characters only, without spaces", flagName)
		case line != "":
			keys = append(keys, line)
		}
	}
	return keys, nil
}

// randomKey returns a key that nobody can guess.
func randomKey(from Environment, what string, m *mistakes) string {
	var raw [32]byte
	if _, err := io.ReadFull(from.Random, raw[:]); err != nil {
		m.add(fmt.Errorf("read random bytes for %s: %w", what, err))
	}
	return hex.EncodeToString(raw[:])
}

func isHTTPS(address string) bool {
	u, err := url.Parse(address)
	return err == nil && u.Scheme == "https"
}
