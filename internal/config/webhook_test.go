package config

import (
	"bytes"
	"io"
	"strings"
	"testing"
)

func TestWebhook(t *testing.T) {
	const good = "0123456789abcdef"
	for _, row := range []struct{ url, file, key string }{
		{"https://usage.example.org/events?token=a", good, good},
		{"http://usage:8080", "  a text with spaces\n", "a text with spaces"},
		{"http://[fd00::1]/", "whsec_MDEyMzQ1Njc4OWFiY2RlZg==\n", good},
		{"", good, ""}, // the file is not read
	} {
		c := mustParse(t, testHost("s="+row.file), "--webhook-url="+row.url, "--webhook-secret-file=s")
		if c.WebhookURL != row.url || !bytes.Equal(c.WebhookKey, []byte(row.key)) {
			t.Errorf("%s with %q: got %q and the key %q", row.url, row.file, c.WebhookURL, c.WebhookKey)
		}
	}
}

// The errors show neither the URL nor the secret.
func TestWebhookRefuses(t *testing.T) {
	const hidden = "hunter2"
	const url = "https://usage.example.org/" + hidden
	for _, row := range []struct{ url, file, want string }{
		{"https://me:" + hidden + "@usage.example.org/", "0123456789abcdef", "--webhook-url must not hold a user"},
		{"https://me:" + hidden + "%@usage.example.org/", "0123456789abcdef", "--webhook-url must not hold a user"},
		{"usage.example.org/" + hidden, "0123456789abcdef", "--webhook-url must be like"},
		{"ftp://usage.example.org/" + hidden, "0123456789abcdef", "--webhook-url must be like"},
		{"https:///" + hidden, "0123456789abcdef", "--webhook-url must be like"},
		{"https://usage.example.org:0/" + hidden, "0123456789abcdef", "--webhook-url must be like"},
		{url + "#here", "0123456789abcdef", "--webhook-url must be like"},
		{url, " ", "--webhook-secret-file: s is empty"},
		{url, hidden, "--webhook-secret-file: the key in s has less than 16"},
		{url, "whsec_MDEyMzQ1Njc4OWFiY2Rl", "--webhook-secret-file: the key in s has less than 16"},
		{url, "whsec_" + hidden + "-not-base64", "--webhook-secret-file: what follows whsec_ in s must be base64"},
	} {
		from, args := testHost("s="+row.file), []string{"--webhook-url=" + row.url, "--webhook-secret-file=s"}
		wantMistakes(t, from, args, 1, row.want)
		if _, err := Parse(args, from, io.Discard); strings.Contains(err.Error(), hidden) {
			t.Errorf("the error shows a secret: %v", err)
		}
	}
	wantMistakes(t, testHost(), []string{"--webhook-url=" + url}, 1, "--webhook-secret-file is missing")
	wantMistakes(t, testHost(), []string{"--webhook-url=" + url, "--webhook-secret-file=f"}, 1, "--webhook-secret-file: open f")
}
