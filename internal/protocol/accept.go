package protocol

import (
	"net/http"
	"strings"
)

// Accepts reports whether a client names a media type among those that it accepts (RFC
// 9110, section 12.5.1). A type with the weight 0 is one that it does not accept. A range
// such as */* names none: what every client sends is no wish for a page or a stream.
func Accepts(r *http.Request, mediaType string) bool {
	for _, header := range r.Header.Values("Accept") {
		for accepted := range splitUnquoted(header, ',') {
			name, parameters, _ := strings.Cut(accepted, ";")
			if strings.EqualFold(strings.Trim(name, " \t"), mediaType) && !isWeightless(parameters) {
				return true
			}
		}
	}
	return false
}

// isWeightless reports whether the parameters of a media range have the weight 0.
func isWeightless(parameters string) bool {
	for parameter := range splitUnquoted(parameters, ';') {
		name, value, _ := strings.Cut(strings.Trim(parameter, " \t"), "=")
		if strings.EqualFold(name, "q") {
			return strings.HasPrefix(value, "0") && strings.Trim(value, "0.") == ""
		}
	}
	return false
}
