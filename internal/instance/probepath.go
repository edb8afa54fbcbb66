package instance

import (
	"fmt"
	"net/url"
	"path"
	"strings"
)

// MaxProbePath is the longest valid path, in bytes.
const MaxProbePath = 1 << 10

// ParseProbePath parses the value of ActivityProbeAnnotation: a path relative to the
// base URL, which may have a query. It cannot lead out of the base URL, or to another
// host.
func ParseProbePath(value string) (*url.URL, error) {
	if len(value) > MaxProbePath {
		return nil, fmt.Errorf("it has %d bytes; at most %d are allowed", len(value), MaxProbePath)
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
		return nil, fmt.Errorf("%q must be a path below the base URL, such as api/kernels: without a leading slash, an empty part, or . and .. as parts", value)
	}
	return u, nil
}
