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

// Where the Node server looked for a registry, for what the file leaves out.
const (
	nodeRegistryHost = "localhost"
	nodeRegistryPort = 8082
)

// fromSettingsFile sets the flags that neither the command line nor the
// environment did.
func (c *Config) fromSettingsFile(flags *flag.FlagSet, readFile func(string) ([]byte, error)) error {
	if c.ConfigFile == "" {
		return nil
	}
	data, err := readFile(c.ConfigFile)
	if err != nil {
		return fmt.Errorf("--config: %w", err)
	}
	values, warning, err := parseSettings(c.ConfigFile, data)
	if err != nil {
		return err
	}
	flags.Visit(func(f *flag.Flag) { delete(values, f.Name) })
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(values)) {
		if err := flags.Set(name, values[name]); err != nil {
			errs = append(errs, fmt.Errorf("--config: %s: --%s: %w", c.ConfigFile, name, err))
		}
	}
	c.Warning = warning
	return errors.Join(errs...)
}

// parseSettings reads the Node server's settings file: what its keys come to as
// flags, and a warning that names those that come to nothing. Errors name the
// file, the key and what it may be.
func parseSettings(file string, data []byte) (values map[string]string, warning string, err error) {
	p := settingsParser{file: file, values: map[string]string{}}
	top, ok := p.object("", data)
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
			if host, ok := p.text(key, value, "host or host:port", publicHostPattern.MatchString); ok {
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
		warning = fmt.Sprintf("settings file %s: these keys mean nothing here: %s", file, strings.Join(p.ignored, ", "))
	}
	return p.values, warning, errors.Join(p.errs...)
}

// settingsParser collects what is found in a settings file.
type settingsParser struct {
	file    string
	values  map[string]string // by flag
	ignored []string
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
		key += " (give --api-key, or better its environment variable, instead)"
	}
	p.ignored = append(p.ignored, key)
}

// registry makes a URL of host and port. A host may begin with http://, as it
// might for the Node server.
func (p *settingsParser) registry(value []byte) {
	fields, ok := p.object("registry", value)
	if !ok {
		return
	}
	scheme, host, port := "http", "", 0
	for _, key := range slices.Sorted(maps.Keys(fields)) {
		switch value := fields[key]; key {
		case "host":
			host, _ = p.text("registry.host", value, "a host name or address, with no port and no path", func(s string) bool {
				_, bare := splitScheme(s)
				return publicHostPattern.MatchString(bare) && (!strings.Contains(bare, ":") || net.ParseIP(strings.Trim(bare, "[]")) != nil)
			})
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
	scheme, host = splitScheme(host)
	p.values["registry-url"] = scheme + "://" + net.JoinHostPort(strings.Trim(host, "[]"), strconv.Itoa(port))
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

// object reads a JSON object; null is an empty one, but not as the whole file.
func (p *settingsParser) object(key string, value []byte) (map[string]json.RawMessage, bool) {
	var fields map[string]json.RawMessage
	err := json.Unmarshal(value, &fields)
	switch {
	case key == "" && (err != nil || fields == nil):
		if err == nil {
			err = errors.New("it is null")
		}
		p.errs = append(p.errs, fmt.Errorf("--config: %s must be a JSON object: %w", p.file, err))
		return nil, false
	case err != nil:
		p.bad(key, value, "a JSON object")
		return nil, false
	}
	return fields, true
}

// port reads a number, or a string that is one. null is as good as absent.
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

// text reads a string. null and "" are as good as absent.
func (p *settingsParser) text(key string, value []byte, allowed string, good func(string) bool) (string, bool) {
	var text string
	if err := json.Unmarshal(value, &text); err != nil || text != "" && !good(text) {
		p.bad(key, value, "a string: "+allowed)
		return "", false
	}
	return text, text != ""
}
