package openapi

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
)

// Transport sends requests, and fails those that the document does not describe, or whose
// answers it does not describe. It reads every answer to its end before it returns it.
type Transport struct {
	Document *Document
	Next     http.RoundTripper
	// Undescribed names parameters and properties that a test sends although the document
	// does not have them.
	Undescribed []string
}

// RoundTrip implements http.RoundTripper.
func (t *Transport) RoundTrip(r *http.Request) (*http.Response, error) {
	sent, err := readAll(r.Body)
	if err != nil {
		return nil, fmt.Errorf("read the request: %w", err)
	}
	forwarded := r.Clone(r.Context())
	forwarded.Body = readCloser(sent)
	answer, err := t.Next.RoundTrip(forwarded)
	if err != nil {
		return nil, err
	}
	received, err := readAll(answer.Body)
	if err != nil {
		return nil, fmt.Errorf("read the response: %w", err)
	}
	text := received
	if answer.Header.Get("Content-Encoding") == "gzip" {
		if text, err = decompress(received); err != nil {
			return nil, fmt.Errorf("decompress the response: %w", err)
		}
	}
	if err := t.Document.Check(r, sent, answer, text, t.Undescribed...); err != nil {
		return nil, fmt.Errorf("docs/openapi.json does not describe %w\n\tbody: %.500s", err, text)
	}
	answer.Body = readCloser(received)
	return answer, nil
}

func decompress(body []byte) ([]byte, error) {
	reader, err := gzip.NewReader(bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(reader)
}

// readAll reads and closes a body, which can be nil.
func readAll(body io.ReadCloser) ([]byte, error) {
	if body == nil {
		return nil, nil
	}
	defer body.Close()
	return io.ReadAll(body)
}

func readCloser(body []byte) io.ReadCloser { return io.NopCloser(bytes.NewReader(body)) }
