package config

import (
	"fmt"
	"regexp"
	"strings"
)

// list is a flag that can be repeated, or hold several values at once.
type list []string

func (l *list) String() string { return strings.Join(*l, ",") }

// Set adds values. They are checked later, with all other settings, so that one error
// names every mistake.
func (l *list) Set(value string) error {
	for each := range strings.SplitSeq(value, ",") {
		*l = append(*l, strings.TrimSpace(each))
	}
	return nil
}

// completeList replaces each value of a flag by what parse makes of it. Each wrong value
// is a mistake of its own.
func completeList(m *mistakes, flagName string, values []string, parse func(string) (string, error)) {
	for i, value := range values {
		parsed, err := parse(value)
		if err != nil {
			m.add(fmt.Errorf("--%s: %w", flagName, err))
		}
		values[i] = parsed
	}
}

// cookiePattern matches the name of a cookie (RFC 6265, section 4.1.1), or the beginning
// of one and a star.
var cookiePattern = regexp.MustCompile("^[!#$%&'+.^_`|~0-9A-Za-z-]+\\*?$")

func parseCookieName(name string) (string, error) {
	if !cookiePattern.MatchString(name) {
		return "", fmt.Errorf("%q is not the name of a cookie, such as _oauth2_proxy, or the beginning of one and a star, such as _oauth2_proxy*", name)
	}
	return name, nil
}
