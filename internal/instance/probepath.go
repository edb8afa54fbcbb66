package instance

import (
	"fmt"
	"net/url"
	"path"
	"strings"
)

const MaxProbePath = 1 << 10

// ParseProbePath reads a path below the base URL, which may have a query.
func ParseProbePath(value string) (*url.URL, error) {
	if len(value) > MaxProbePath {
		return nil, fmt.Errorf("it has %d bytes: it may have at most %d", len(value), MaxProbePath)
	}
	u, err := url.Parse(value)
	if err != nil {
		return nil, err
	}
	clean := path.Clean("/" + u.Path)
	switch {
	case u.Scheme != "" || u.Host != "" || u.User != nil || u.Opaque != "" || u.Fragment != "":
		return nil, fmt.Errorf("%q must be a path below the base URL, such as api/kernels", value)
	case u.Path == "" || strings.HasPrefix(u.Path, "/") || "/"+u.Path != clean && "/"+u.Path != clean+"/":
		return nil, fmt.Errorf("%q must be a path below the base URL, such as api/kernels, with no slash before it, no // and no dots for parts", value)
	}
	return u, nil
}
