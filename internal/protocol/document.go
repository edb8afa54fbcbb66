package protocol

import (
	"crypto/sha256"
	"fmt"
	"net/http"
	"strings"
)

// Document is a JSON document that is the same for all clients, for as long as the
// process runs.
type Document struct {
	text []byte
	etag string
}

// NewDocument returns the document with this text.
func NewDocument(text []byte) *Document {
	sum := sha256.Sum256(text)
	return &Document{text, fmt.Sprintf(`"%x"`, sum[:16])}
}

// Serve answers with the document, or with 304 if the client has it (RFC 9110, section
// 13.1.2). A cache may keep the answer, and asks each time whether it has changed. The
// error is nil.
func (d *Document) Serve(w http.ResponseWriter, r *http.Request) error {
	setJSON(w.Header())
	w.Header().Set("Cache-Control", "no-cache")
	w.Header().Set("ETag", d.etag)
	if d.matches(r.Header.Values("If-None-Match")) {
		w.Header().Del("Content-Type") // there is no content
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	_, _ = w.Write(d.text) // it fails only when the client has gone
	return nil
}

// matches reports whether the document is among those that a client has. A cache in
// between can have made the tag a weak one.
func (d *Document) matches(headers []string) bool {
	for _, header := range headers {
		for tag := range splitUnquoted(header, ',') {
			tag = strings.Trim(tag, " \t")
			if tag == "*" || strings.TrimPrefix(tag, "W/") == d.etag {
				return true
			}
		}
	}
	return false
}
