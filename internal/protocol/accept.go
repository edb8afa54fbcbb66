package protocol

import (
	"math"
	"net/http"
	"strconv"
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

// maxLanguages is how many languages of a request count.
const maxLanguages = 20

// PreferredLanguage returns the language that a client likes best of those that are known, by the
// values of Accept-Language (RFC 9110, section 12.5.4), or "" if it names none of them. Only the
// beginnings of tags count, in small letters: who likes de-AT gets de.
func PreferredLanguage(headers []string, known func(tag string) bool) (best string) {
	most, left := 0.0, maxLanguages
	for _, header := range headers {
		for accepted := range strings.SplitSeq(header, ",") {
			if left--; left < 0 {
				return best
			}
			tag, parameters, _ := strings.Cut(accepted, ";")
			primary, _, _ := strings.Cut(strings.ToLower(strings.Trim(tag, " \t")), "-")
			if weight := weight(parameters); weight > most && known(primary) {
				best, most = primary, weight
			}
		}
	}
	return best
}

// acceptsGzip reports whether a client wants an answer compressed by gzip, by the values of
// Accept-Encoding (RFC 9110, section 12.5.3). It does if gzip, or else *, has a weight, and
// not a smaller one than no compression ("identity") has been given.
func acceptsGzip(headers []string) bool {
	gzip, others, identity := -1.0, 0.0, 0.0
	for _, header := range headers {
		for accepted := range strings.SplitSeq(header, ",") {
			coding, parameters, _ := strings.Cut(accepted, ";")
			switch strings.ToLower(strings.Trim(coding, " \t")) {
			case "gzip", "x-gzip":
				gzip = weight(parameters)
			case "*":
				others = weight(parameters)
			case "identity":
				identity = weight(parameters)
			}
		}
	}
	if gzip < 0 { // not named
		gzip = others
	}
	return gzip > 0 && gzip >= identity
}

// weight reads the weight of what a client accepts: from 0 to 1, and 1 if none is given.
// One that cannot be read is 0.
func weight(parameter string) float64 {
	name, value, given := strings.Cut(strings.Trim(parameter, " \t"), "=")
	if parameter == "" {
		return 1
	}
	weight, err := strconv.ParseFloat(value, 64)
	if !given || !strings.EqualFold(name, "q") || err != nil || math.IsNaN(weight) {
		return 0
	}
	return min(max(weight, 0), 1)
}
