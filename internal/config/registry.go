package config

import (
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
)

// completeRegistryAPIKey comes after the service's own key. One that was made up
// a moment ago is of no use to a registry.
func (c *Config) completeRegistryAPIKey(from Environment) error {
	var err error
	c.RegistryAPIKey, err = readKey("registry-api-key", c.RegistryAPIKey, c.RegistryAPIKeyFile, from.ReadFile)
	if err == nil && c.RegistryAPIKey == "" && !c.APIKeyGenerated {
		c.RegistryAPIKey = c.APIKey
	}
	return err
}

func (c *Config) checkRegistryURL() error {
	if c.RegistryURL == "" {
		return nil
	}
	u, err := url.Parse(c.RegistryURL)
	if err == nil && u.User != nil { // not repeated here: it may be a password
		return errors.New("--registry-url must not hold a user: the key is for --registry-api-key")
	}
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || !validPort(u.Port()) ||
		strings.ContainsAny(c.RegistryURL, "?#") {
		return fmt.Errorf("--registry-url is %q: it must be like http://registry:8082, with http or https, a host, and no query or fragment", c.RegistryURL)
	}
	return nil
}

// validPort reports whether a URL can have this port; it may have none.
func validPort(text string) bool {
	port, err := strconv.Atoi(text)
	return text == "" || err == nil && port >= 1 && port <= 65535
}
