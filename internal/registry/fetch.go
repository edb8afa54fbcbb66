package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/binder-project/binder-deploy-kubernetes/internal/podtemplate"
)

// What one question may take, and what an answer may be.
const (
	questionTimeout = 5 * time.Second
	maxConnections  = 8 // of one client, of two
	maxAnswerBytes  = 1 << 20
	maxHeaderBytes  = 64 << 10
)

// newClient returns an HTTP client that follows no redirects: the registry's key must
// not be sent anywhere else.
func newClient() *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			Proxy:                  http.ProxyFromEnvironment,
			MaxConnsPerHost:        maxConnections,
			MaxIdleConnsPerHost:    maxConnections,
			IdleConnTimeout:        90 * time.Second,
			MaxResponseHeaderBytes: maxHeaderBytes,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// errNoTemplate is the registry's answer that it has no template of the name.
var errNoTemplate = errors.New("the registry has no such template")

// fetch asks the registry for a template. The error wraps podtemplate.ErrUnknown if
// the registry has none, and podtemplate.ErrUnavailable if it gives no proper answer.
func (r *Registry) fetch(ctx context.Context, client *http.Client, name string) (binderTemplate, error) {
	url := strings.TrimRight(r.deps.BaseURL, "/") + "/templates/" + name // a valid name needs no escaping
	var template binderTemplate
	body, err := r.read(ctx, client, url)
	if err == nil {
		template, err = parse(name, body)
	}
	switch {
	case errors.Is(err, errNoTemplate):
		return binderTemplate{}, fmt.Errorf("%w: %q", podtemplate.ErrUnknown, name)
	case err != nil:
		return binderTemplate{}, fmt.Errorf("%w: GET %s: %w", podtemplate.ErrUnavailable, url, err)
	}
	return template, nil
}

// read returns the body of an answer with code 200.
func (r *Registry) read(ctx context.Context, client *http.Client, url string) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Accept", "application/json")
	request.Header.Set("User-Agent", r.deps.UserAgent)
	if r.deps.Key != "" {
		request.Header.Set("Authorization", r.deps.Key)
	}
	response, err := client.Do(request)
	if err != nil {
		return nil, errors.Unwrap(err) // a *url.Error repeats the method and the URL
	}
	defer response.Body.Close()
	// The body is read whatever the code is, so that the connection can be used again.
	body, err := io.ReadAll(io.LimitReader(response.Body, maxAnswerBytes+1))
	switch code := response.StatusCode; {
	case code == http.StatusOK:
	case code == http.StatusNotFound:
		return nil, errNoTemplate
	case code >= 300 && code < 400:
		return nil, fmt.Errorf("the registry redirects (code %d) to %.100q", code, response.Header.Get("Location"))
	default:
		return nil, fmt.Errorf("the registry answers with code %d", code)
	}
	if err != nil {
		return nil, fmt.Errorf("read the answer: %w", err)
	}
	if len(body) > maxAnswerBytes {
		return nil, errors.New("the answer is larger than 1 MiB")
	}
	return body, nil
}
