package config

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
)

// The Node server's own defaults, for what its settings file leaves out.
const (
	nodeRegistryHost = "localhost"
	nodeRegistryPort = 8082
)

// readSettingsFile sets the flags that neither the command line nor the environment
// set.
func (c *Config) readSettingsFile(flags *flag.FlagSet, readFile func(string) ([]byte, error), m *mistakes) {
	if c.ConfigFile == "" {
		return
	}
	data, err := readFile(c.ConfigFile)
	if err != nil {
		m.add(fmt.Errorf("--config: %w", err))
		return
	}
	values, warning, err := parseSettings(c.ConfigFile, data)
	m.add(err)
	if warning != "" {
		c.Warnings = append(c.Warnings, warning)
	}
	flags.Visit(func(f *flag.Flag) { delete(values, f.Name) })
	for _, name := range slices.Sorted(maps.Keys(values)) {
		if err := flags.Set(name, values[name]); err != nil {
			m.add(fmt.Errorf("--config: %s: --%s: %w", c.ConfigFile, name, err), name)
		}
	}
}

// parseSettings reads the Node server's settings file. It returns the values of flags
// that follow from it, and a warning that names the keys without effect. Its error
// names the file, and of every mistake the key and what is allowed.
func parseSettings(file string, data []byte) (values map[string]string, warning string, err error) {
	p := settingsParser{file: file, values: map[string]string{}}
	top, ok := p.topLevel(data)
	if !ok {
		return nil, "", errors.Join(p.errs...)
	}
	for _, key := range slices.Sorted(maps.Keys(top)) {
		switch value := top[key]; key {
		case "port":
			if port, ok := p.port(key, value); ok {
				p.values["api-address"] = ":" + strconv.Itoa(port)
			}
		case "lookupHost":
			if host, ok := p.text(key, value, "host or host:port", isHostPort); ok {
				p.values["public-host"] = host
			}
		case "registry":
			p.registry(value)
		case "pool":
			p.pool(value)
		default:
			p.ignore(key)
		}
	}
	if len(p.ignored) > 0 {
		warning = fmt.Sprintf("these keys of the settings file %s have no effect: %s", file, strings.Join(p.ignored, ", "))
	}
	return p.values, warning, errors.Join(p.errs...)
}

// settingsParser collects what is in a settings file.
type settingsParser struct {
	file    string
	values  map[string]string // by the name of the flag
	ignored []string          // keys without effect
	errs    []error
}

func (p *settingsParser) bad(key string, value []byte, allowed string) {
	p.errs = append(p.errs, fmt.Errorf("--config: %s: %s is %.100s: it must be %s", p.file, key, value, allowed))
}

func (p *settingsParser) ignore(key string) {
	switch key {
	case "pool.enabled", "pool.size":
		key += " (annotate PodTemplates with binder-project.org/pool-size instead)"
	case "apiKey":
		key += " (set $BINDER_API_KEY or --api-key-file instead)"
	}
	p.ignored = append(p.ignored, key)
}

// registry makes a URL of host and port. The host can have a scheme, as it could for
// the Node server.
func (p *settingsParser) registry(value []byte) {
	fields, ok := p.object("registry", value)
	if !ok {
		return
	}
	host, port := "", 0
	for _, key := range slices.Sorted(maps.Keys(fields)) {
		switch value := fields[key]; key {
		case "host":
			host, _ = p.text("registry.host", value, "a host name or address, with no port and no path", isRegistryHost)
		case "port":
			port, _ = p.port("registry.port", value)
		default:
			p.ignore("registry." + key)
		}
	}
	if host == "" && port == 0 {
		return
	}
	if host == "" {
		host = nodeRegistryHost
	}
	if port == 0 {
		port = nodeRegistryPort
	}
	scheme, host := splitScheme(host)
	p.values["registry-url"] = scheme + "://" + net.JoinHostPort(strings.Trim(host, "[]"), strconv.Itoa(port))
}

// isRegistryHost reports whether text is a host without a port. Only an IPv6 address
// has colons of its own.
func isRegistryHost(text string) bool {
	_, host := splitScheme(text)
	bare := strings.Trim(host, "[]")
	return (!strings.Contains(bare, ":") || net.ParseIP(bare) != nil) && isHostPort(net.JoinHostPort(bare, "80"))
}

func splitScheme(host string) (scheme, bare string) {
	if bare, ok := strings.CutPrefix(host, "https://"); ok {
		return "https", bare
	}
	return "http", strings.TrimPrefix(host, "http://")
}

func (p *settingsParser) pool(value []byte) {
	fields, ok := p.object("pool", value)
	if !ok {
		return
	}
	for _, key := range slices.Sorted(maps.Keys(fields)) {
		p.ignore("pool." + key)
	}
}

// topLevel reads the whole file, which must be a JSON object.
func (p *settingsParser) topLevel(data []byte) (map[string]json.RawMessage, bool) {
	var fields map[string]json.RawMessage
	err := json.Unmarshal(data, &fields)
	if err == nil && fields == nil {
		err = errors.New("it is null")
	}
	if err != nil {
		p.errs = append(p.errs, fmt.Errorf("--config: %s must be a JSON object: %w", p.file, err))
		return nil, false
	}
	return fields, true
}

// object reads a JSON object; null counts as an empty one.
func (p *settingsParser) object(key string, value []byte) (map[string]json.RawMessage, bool) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(value, &fields); err != nil {
		p.bad(key, value, "a JSON object")
		return nil, false
	}
	return fields, true
}

// port reads a number, or a string that holds one; null counts as absent.
func (p *settingsParser) port(key string, value []byte) (int, bool) {
	text := string(value)
	if text == "null" {
		return 0, false
	}
	if quoted := ""; json.Unmarshal(value, &quoted) == nil {
		text = strings.TrimSpace(quoted)
	}
	port, err := strconv.Atoi(text)
	if err != nil || port < 1 || port > 65535 {
		p.bad(key, value, "a port number, 1 to 65535")
		return 0, false
	}
	return port, true
}

// text reads a string; null and "" count as absent.
func (p *settingsParser) text(key string, value []byte, allowed string, good func(string) bool) (string, bool) {
	var text string
	if err := json.Unmarshal(value, &text); err != nil || text != "" && !good(text) {
		p.bad(key, value, "a string: "+allowed)
		return "", false
	}
	return text, text != ""
}
