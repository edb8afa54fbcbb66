package pages

import "net/http"

const (
	// MaxHeader is the most bytes of a request's head, from its first line to its last
	// header field, that this service reads. A client that sends more gets a bare 431
	// from net/http. It is more than all cookies that a browser keeps for a site (in
	// Chromium 180 of 4 KiB), so that no instance can shut a visitor out by cookies.
	MaxHeader = 1 << 20
	// maxInstanceHeader is the most bytes of a request's head, without its cookies, that
	// an instance gets. Applications often allow less.
	maxInstanceHeader = 64 << 10
	// maxFields is the most header fields of such a request, without its cookies. Each takes
	// about 100 bytes of memory, however short it is. Browsers send about 20.
	maxFields = 256
)

// HeadNotice returns the notice that refuses a request with a larger head than an
// instance gets. tooLarge is false for all other requests. Cookies do not count: the
// proxy drops those that are too many.
func HeadNotice(r *http.Request) (n Notice, tooLarge bool) {
	size, fields := headSize(r)
	switch {
	case fields > maxFields:
		return tooManyFieldsNotice(), true
	case size <= maxInstanceHeader:
		return Notice{}, false
	case len(r.RequestURI) > maxInstanceHeader/2:
		return addressTooLongNotice(), true
	}
	return headTooLargeNotice(), true
}

// headSize returns the size of a request's head in HTTP/1.1 without its cookies, in bytes,
// and the number of its fields without them.
func headSize(r *http.Request) (size, fields int) {
	const punctuation = len(": \r\n")
	size = len(r.Method) + len(r.RequestURI) + len("  HTTP/1.1\r\n") + len("Host") + len(r.Host) + punctuation
	for name, values := range r.Header {
		if name == "Cookie" {
			continue
		}
		for _, value := range values {
			size += len(name) + len(value) + punctuation
		}
		fields += len(values)
	}
	return size, fields
}

// tooManyFieldsNotice is for a request with too many header fields (RFC 6585, section 5).
func tooManyFieldsNotice() Notice {
	text := say("This request has more than %d header fields.", maxFields)
	return Notice{Code: http.StatusRequestHeaderFieldsTooLarge, Plain: text.String(), Title: say("This request is too large"), Text: []phrase{text}}
}

// headTooLargeNotice is for a request with too large header fields (RFC 6585, section 5).
func headTooLargeNotice() Notice {
	text := say("The header fields of this request are larger than %d KiB, which is the most that an instance gets.", maxInstanceHeader>>10)
	return Notice{Code: http.StatusRequestHeaderFieldsTooLarge, Plain: text.String(), Title: say("This request is too large"), Text: []phrase{text}}
}

// addressTooLongNotice is for a request whose address alone is too long (RFC 9110,
// section 15.5.15).
func addressTooLongNotice() Notice {
	text := say("The address of this page is too long: an instance gets at most 64 KiB of address and header fields.")
	return Notice{Code: http.StatusRequestURITooLong, Plain: text.String(), Title: say("This address is too long"), Text: []phrase{text}}
}
