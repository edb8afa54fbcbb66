package pages

import (
	"fmt"
	"net/http"
)

const (
	// MaxHeader is the most bytes of a request's head, from its first line to its last
	// header field, that this service reads. A client that sends more gets a bare 431
	// from net/http. It is more than all cookies that a browser keeps for a site (in
	// Chromium 180 of 4 KiB), so that visitors always reach our pages, which say what to
	// do.
	MaxHeader = 1 << 20
	// maxInstanceHeader is the most bytes of a request's head that an instance gets.
	// Applications often allow less.
	maxInstanceHeader = 64 << 10
)

// HeadNotice returns the notice that refuses a request with a larger head than an
// instance gets. tooLarge is false for all other requests.
func HeadNotice(r *http.Request) (n Notice, tooLarge bool) {
	switch {
	case headSize(r) <= maxInstanceHeader:
		return Notice{}, false
	case len(r.RequestURI) > maxInstanceHeader/2:
		return addressTooLongNotice(), true
	}
	return tooManyCookiesNotice(), true
}

// headSize returns the size of a request's head in HTTP/1.1, in bytes.
func headSize(r *http.Request) int {
	const punctuation = len(": \r\n")
	size := len(r.Method) + len(r.RequestURI) + len("  HTTP/1.1\r\n") + len("Host") + len(r.Host) + punctuation
	for name, values := range r.Header {
		for _, value := range values {
			size += len(name) + len(value) + punctuation
		}
	}
	return size
}

// tooManyCookiesNotice is for a request with too large header fields (RFC 6585, section
// 5). It does not make the browser clear its cookies by Clear-Site-Data: those of all
// instances would go, and the logins of other instances with them.
func tooManyCookiesNotice() Notice {
	limit := fmt.Sprintf("%d KiB", maxInstanceHeader>>10)
	return Notice{
		Code:  http.StatusRequestHeaderFieldsTooLarge,
		Plain: "The header fields of this request are larger than " + limit + ", most likely those of cookies (Cookie). Clear the cookies of this site and try again.",
		Title: "Your browser sends too many cookies",
		Text: "The instance cannot be reached, because your browser sends more than " + limit + " of cookies with each request. " +
			"Instances set them and share this site. Clear the cookies of this site in your browser's settings, and load this page again. " +
			"The instance keeps running, but you may have to log in to it again.",
	}
}

// addressTooLongNotice is for a request whose address alone is too long (RFC 9110,
// section 15.5.15).
func addressTooLongNotice() Notice {
	const text = "The address of this page is too long: an instance gets at most 64 KiB of address and header fields."
	return Notice{Code: http.StatusRequestURITooLong, Plain: text, Title: "This address is too long", Text: text}
}
