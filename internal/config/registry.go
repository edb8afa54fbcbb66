package config

import (
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
)

// checkRegistryURL returns an error if a URL, which may be "", cannot be a registry's.
func checkRegistryURL(text string) error {
	if text == "" {
		return nil
	}
	u, err := url.Parse(text)
	if err == nil && u.User != nil || err != nil && strings.Contains(text, "@") { // not repeated: it may hold a password
		return errors.New("--registry-url must not hold a user: the key belongs in --registry-api-key")
	}
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || !validPort(u.Port()) || strings.ContainsAny(text, "?#") {
		return fmt.Errorf("--registry-url is %q: it must be like http://registry:8082, with http or https, a host, and no query or fragment", text)
	}
	return nil
}

// validPort reports whether a URL can have this port; "" means no port.
func validPort(text string) bool {
	port, err := strconv.Atoi(text)
	return text == "" || err == nil && port >= 1 && port <= 65535
}
