package rawapp

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"
)

// control serves the paths that end with /control/<key> and, below it, /open/<gate>.
func (s *Server) control(r *request, method, key, gate string) (keep bool) {
	s.mu.Lock()
	p := s.plays[key]
	s.mu.Unlock()
	switch {
	case method == http.MethodPut:
		return s.putScript(r, key)
	case p == nil:
		return r.answer("404 Not Found", "no script has this key\n")
	case method == http.MethodGet:
		records, err := json.Marshal(p.seen())
		if err != nil {
			return r.answer("500 Internal Server Error", err.Error())
		}
		return r.answer("200 OK", string(records))
	case method == http.MethodDelete:
		s.remove(key)
		return r.answer("200 OK", "")
	case method == http.MethodPost:
		if err := p.open(gate); err != nil {
			return r.answer("404 Not Found", err.Error())
		}
		return r.answer("200 OK", "")
	}
	return r.answer("405 Method Not Allowed", "")
}

func (s *Server) putScript(r *request, key string) (keep bool) {
	length, err := strconv.Atoi(fields(r.head).Get("Content-Length"))
	if err != nil || length < 0 || length > maxScript {
		return r.answer("413 Content Too Large", fmt.Sprintf("a script has a Content-Length of at most %d\n", maxScript))
	}
	r.consumed = true
	data := make([]byte, length)
	if _, err := io.ReadFull(r.reader, data); err != nil {
		return false
	}
	var script Script
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&script); err != nil {
		return r.answer("400 Bad Request", err.Error())
	}
	if err := script.check(); err != nil {
		return r.answer("400 Bad Request", err.Error())
	}
	s.put(key, script)
	return r.answer("200 OK", "")
}

// Client controls an application.
type Client struct {
	// Base is the URL below which the application answers, without a slash at the
	// end. It may lead through a proxy.
	Base string
	// HTTP sends the requests.
	HTTP *http.Client
}

// NewClient returns a client for an application at a URL.
func NewClient(base string) *Client {
	return &Client{Base: base, HTTP: &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 16}}}
}

// Put stores a script under a key, in place of one that is there.
func (c *Client) Put(ctx context.Context, key string, steps ...Step) error {
	data, err := json.Marshal(Script{Steps: steps})
	if err != nil {
		return fmt.Errorf("encode the script: %w", err)
	}
	_, err = c.do(ctx, http.MethodPut, key, data)
	return err
}

// Delete removes a script and the records of its requests.
func (c *Client) Delete(ctx context.Context, key string) error {
	_, err := c.do(ctx, http.MethodDelete, key, nil)
	return err
}

// Open opens a gate of a script.
func (c *Client) Open(ctx context.Context, key, gate string) error {
	_, err := c.do(ctx, http.MethodPost, key+"/open/"+gate, nil)
	return err
}

// Seen returns the requests that a script has got.
func (c *Client) Seen(ctx context.Context, key string) ([]Record, error) {
	data, err := c.do(ctx, http.MethodGet, key, nil)
	if err != nil {
		return nil, err
	}
	var records []Record
	if err := json.Unmarshal(data, &records); err != nil {
		return nil, fmt.Errorf("decode the requests of %s: %w", key, err)
	}
	return records, nil
}

func (c *Client) do(ctx context.Context, method, path string, body []byte) ([]byte, error) {
	url := c.Base + "/control/" + path
	request, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	response, err := c.HTTP.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", method, url, err)
	}
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s %s returned %d: %s", method, url, response.StatusCode, answer)
	}
	return answer, nil
}
