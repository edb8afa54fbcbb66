package config

import (
	"encoding/base64"
	"errors"
	"flag"
	"fmt"
	"net/url"
	"strings"
)

// webhookSecretPrefix begins a secret that Standard Webhooks has serialized: the rest is the
// key in base64.
const webhookSecretPrefix = "whsec_"

// Webhook says who is told of instances.
type Webhook struct {
	// WebhookURL is what is told of every instance. It is a secret, as far as it has a
	// password in the path or the query. The default "" means that nobody is told.
	WebhookURL string
	// WebhookKey is what those events are signed with. It has at least minKeyLength bytes if
	// there is a WebhookURL, or else none.
	WebhookKey []byte
	// WebhookSecretFile is the file that WebhookKey was read from, or "".
	WebhookSecretFile string
}

func (c *Config) webhookFlags(f *flag.FlagSet) {
	f.StringVar(&c.WebhookURL, "webhook-url", "",
		"`URL` that is told of every instance: launched, ready, failed, ended. Each is posted as a CloudEvent, at least once, "+
			"and signed with the secret (default: nobody is told)")
	f.StringVar(&c.WebhookSecretFile, "webhook-secret-file", "",
		"`file` that holds the secret that events for --webhook-url are signed with, as Standard Webhooks says: a text, or whsec_ and "+
			"the key in base64. Its receiver needs the same (required with --webhook-url)")
}

// completeWebhook reads the secret of the webhook, if there is one.
func (c *Config) completeWebhook(from Environment, m *mistakes) {
	if c.WebhookURL == "" {
		return
	}
	m.add(checkWebhookURL(c.WebhookURL), "webhook-url")
	var err error
	c.WebhookKey, err = readWebhookKey(c.WebhookSecretFile, from.ReadFile)
	m.add(err, "webhook-secret-file")
}

// checkWebhookURL returns an error if a URL cannot be a receiver's. The error does not show
// it: receivers often have a password in the path or the query.
func checkWebhookURL(text string) error {
	u, err := url.Parse(text)
	switch {
	case err == nil && u.User != nil || err != nil && strings.Contains(text, "@"):
		return errors.New("--webhook-url must not hold a user: the receiver checks the signature")
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || !validPort(u.Port()) || strings.Contains(text, "#"):
		return errors.New("--webhook-url must be like https://usage.example.org/events, with http or https, a host, and no fragment")
	}
	return nil
}

// readWebhookKey returns the key that a file holds. Its errors never show it.
func readWebhookKey(file string, readFile func(string) ([]byte, error)) ([]byte, error) {
	if file == "" {
		return nil, errors.New("--webhook-secret-file is missing: the receiver of --webhook-url needs it to tell events from forgeries")
	}
	text, err := readSecretText("--webhook-secret-file", file, readFile)
	if err != nil {
		return nil, err
	}
	key := []byte(text)
	if encoded, ok := strings.CutPrefix(text, webhookSecretPrefix); ok {
		if key, err = base64.StdEncoding.DecodeString(encoded); err != nil {
			return nil, fmt.Errorf("--webhook-secret-file: what follows %s in %s must be base64", webhookSecretPrefix, file)
		}
	}
	if len(key) < minKeyLength {
		return nil, fmt.Errorf("--webhook-secret-file: the key in %s has less than %d characters", file, minKeyLength)
	}
	return key, nil
}
