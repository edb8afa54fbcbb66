package instance

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// MaxPorts is how many ports PortsAnnotation can name.
const MaxPorts = 8

// ParsePorts parses the value of PortsAnnotation: ports from 1 to 65535, separated by commas, each
// once. They are returned as they are written in a host: without zeros before them.
func ParsePorts(value string) ([]string, error) {
	var ports []string
	for text := range strings.SplitSeq(value, ",") {
		text = strings.TrimSpace(text)
		port, err := strconv.ParseUint(text, 10, 16)
		switch {
		case err != nil || port == 0 || strconv.FormatUint(port, 10) != text:
			return nil, fmt.Errorf("%q is no port", text)
		case slices.Contains(ports, text):
			return nil, fmt.Errorf("%s is given twice", text)
		}
		ports = append(ports, text)
	}
	if len(ports) > MaxPorts {
		return nil, fmt.Errorf("it has %d ports; at most %d are allowed", len(ports), MaxPorts)
	}
	return ports, nil
}
