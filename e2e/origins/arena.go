//go:build e2e

package origins

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/binder-project/binder-deploy-kubernetes/e2e/chromium"
	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
)

const (
	template = "app"
	apiKey   = "5f2e0c6ab1d94e33"
	// patience bounds one step in the browser, or one of the service.
	patience = 30 * time.Second
	// settle is how long an attack gets that should not come to anything.
	settle = 3 * time.Second
)

// mode is one way to run the service. Chromium takes every name below localhost for this
// machine, and for a secure origin. localhost itself is a public suffix, users.localhost
// is not.
type mode struct {
	name   string // the column of docs/security.md
	main   string // the host of the main address
	domain string // --instance-domain, without the port; "" for none
}

func modes() []mode {
	return []mode{
		{"one host for all", "binder.localhost", ""},
		{"a host for each", "binder.localhost", "users.localhost"},
		{"and the domain is in the Public Suffix List", "127.0.0.1", "localhost"},
	}
}

// arena is a running service, and a browser whose visitor has two instances: a victim and
// an attacker.
type arena struct {
	t       *testing.T
	mode    mode
	cluster *cluster
	app     *application
	browser context.Context

	port, api        string // the proxy's port, and the API's address
	otherPort        string // of every pod, where the application is titled "other"
	victim, attacker string // ids
}

func startArena(t *testing.T, m mode, service string) *arena {
	t.Helper()
	a := &arena{t: t, mode: m, app: newApplication("page")}
	a.otherPort = serve(t, newApplication("other"))
	a.cluster = startCluster(t, serve(t, a.app), a.otherPort)
	a.startService(service)
	a.browser = openBrowser(t)
	a.victim, a.attacker = a.launch(), a.launch()
	return a
}

// serve serves an application at all addresses until the test ends.
func serve(t *testing.T, app http.Handler) (port string) {
	t.Helper()
	listener, err := net.Listen("tcp4", "0.0.0.0:0")
	require.NoError(t, err)
	_, port, err = net.SplitHostPort(listener.Addr().String())
	require.NoError(t, err)
	server := &http.Server{Handler: app, ReadHeaderTimeout: patience}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { _ = server.Close() })
	return port
}

// startService runs the service until the test ends.
func (a *arena) startService(path string) {
	a.t.Helper()
	free, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(a.t, err)
	_, a.port, _ = net.SplitHostPort(free.Addr().String())
	require.NoError(a.t, free.Close())
	args := []string{
		"--kubeconfig=" + a.cluster.kubeconfig, "--api-key=" + apiKey, "--log-format=json", "--launch-rate=0", "--max-instances-per-client=0",
		"--proxy-address=127.0.0.1:" + a.port, "--api-address=127.0.0.1:0", "--metrics-address=127.0.0.1:0", "--public-host=" + a.mode.main + ":" + a.port,
		"--shutdown-delay=0s", "--drain-timeout=0s",
	}
	if a.mode.domain != "" {
		args = append(args, "--instance-domain="+a.mode.domain+":"+a.port)
	}
	command := exec.Command(path, args...)
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	output, err := command.StderrPipe()
	require.NoError(a.t, err)
	require.NoError(a.t, command.Start())
	ready := make(chan string, 1)
	var lines strings.Builder
	go func() {
		for scanner := bufio.NewScanner(output); scanner.Scan(); {
			var line struct{ Msg, API string }
			if json.Unmarshal(scanner.Bytes(), &line) == nil && line.Msg == "ready" {
				ready <- line.API
			}
			fmt.Fprintln(&lines, scanner.Text())
		}
		close(ready)
	}()
	a.t.Cleanup(func() {
		_ = command.Process.Signal(syscall.SIGTERM)
		for range ready { // until the log has ended
		}
		_ = command.Wait()
		if a.t.Failed() {
			a.t.Log(lines.String())
		}
	})
	select {
	case a.api = <-ready:
	case <-time.After(patience):
	}
	require.NotEmpty(a.t, a.api, "the service is not ready")
}

func openBrowser(t *testing.T) context.Context {
	t.Helper()
	ctx, end, err := chromium.Open(t.Context(), []string{"*.localhost"}, []string{"disable-popup-blocking"})
	require.NoError(t, err)
	t.Cleanup(end)
	return ctx
}

// call sends a request to the API with the key.
func (a *arena) call(method, path string, answer any) {
	a.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, "http://"+a.api+path, nil)
	require.NoError(a.t, err)
	r.Header.Set("Authorization", apiKey)
	r.Header.Set("Prefer", "wait=20")
	res, err := http.DefaultClient.Do(r)
	require.NoError(a.t, err)
	defer res.Body.Close()
	require.Equal(a.t, http.StatusOK, res.StatusCode)
	require.NoError(a.t, json.NewDecoder(res.Body).Decode(answer))
}

// launch launches an instance and checks its location.
func (a *arena) launch() (id string) {
	a.t.Helper()
	var answer struct{ ID, Status, Location string }
	a.call(http.MethodPost, "/applications/"+template, &answer)
	require.Equal(a.t, "deployed", answer.Status)
	require.Equal(a.t, a.url(answer.ID, ""), "http://"+answer.Location+"/")
	return answer.ID
}

// stop ends an instance.
func (a *arena) stop(id string) {
	a.t.Helper()
	var answer struct{ Status string }
	a.call(http.MethodDelete, "/applications/"+template+"/"+id, &answer)
	require.Equal(a.t, "deleted", answer.Status)
}

// main returns an address of the service's own.
func (a *arena) main(path string) string { return "http://" + a.mode.main + ":" + a.port + path }

// url returns the address of a page below the base URL of an instance.
func (a *arena) url(id, path string) string {
	host := a.mode.main
	if a.mode.domain != "" {
		host = id + "." + a.mode.domain
	}
	return "http://" + host + ":" + a.port + instance.BaseURL(id) + path
}

// answer returns the address of an answer of an instance with some header fields.
func (a *arena) answer(id string, fields ...string) string {
	return a.url(id, "answer?"+url.Values{"h": fields}.Encode())
}

// running returns the address of a page of an instance that runs a script.
func (a *arena) running(id, script string) string {
	return a.url(id, "page?"+url.Values{"js": {script}}.Encode())
}

// parent is the domain that all instances' hosts are in.
func (a *arena) parent() string {
	if a.mode.domain == "" {
		return a.mode.main
	}
	return a.mode.domain
}

// open opens an address.
func (a *arena) open(address string) {
	a.t.Helper()
	ctx, cancel := context.WithTimeout(a.browser, patience)
	defer cancel()
	require.NoError(a.t, chromedp.Do(ctx, chromedp.Navigate(address)), address)
}

// js evaluates an expression in the page, awaits it, and returns it as text. What it throws
// begins with "error: ".
func (a *arena) js(expression string) string {
	a.t.Helper()
	ctx, cancel := context.WithTimeout(a.browser, patience)
	defer cancel()
	const wrapped = `(async () => { try { return String(await (%s)); } catch (e) { return 'error: ' + e; } })()`
	value, err := chromedp.Run(ctx, chromedp.Evaluate[string](fmt.Sprintf(wrapped, expression), chromedp.EvalAwaitPromise))
	require.NoError(a.t, err, expression)
	return value
}

// at opens an address and evaluates an expression there.
func (a *arena) at(address, expression string) string {
	a.t.Helper()
	a.open(address)
	return a.js(expression)
}

// within reports whether something comes true in a time.
func (a *arena) within(limit time.Duration, met func() bool) bool {
	return wait.PollUntilContextTimeout(a.t.Context(), 50*time.Millisecond, limit, true, func(context.Context) (bool, error) { return met(), nil }) == nil
}

// arrives reports whether the page leads to an address that ends so. While the browser
// changes pages, it has no address.
func (a *arena) arrives(suffix string) bool {
	return a.within(patience, func() bool {
		address, err := chromedp.Run(a.browser, chromedp.Location())
		return err == nil && strings.HasSuffix(address, suffix)
	})
}

// heading returns the page's heading, or "" while the browser changes pages.
func (a *arena) heading() string {
	text, _ := chromedp.Run(a.browser, chromedp.Evaluate[string](`document.querySelector('h1')?.textContent ?? ''`))
	return text
}

// launches reports whether something makes the service launch an instance in a time.
func (a *arena) launches(limit time.Duration, attack func()) bool {
	before := a.cluster.launches()
	attack()
	return a.within(limit, func() bool { return a.cluster.launches() > before })
}

// plant gives the victim's pages something to lose, and the browser no other cookies.
func (a *arena) plant() {
	a.t.Helper()
	_, err := chromedp.Call(a.browser, network.ClearBrowserCookies, cdp.Empty{})
	require.NoError(a.t, err)
	a.open(a.answer(a.victim, "Set-Cookie: "+secret))
	require.Equal(a.t, "ok", a.js(`(async () => {
		localStorage.setItem('place', '`+secret+`');
		await new Promise((resolve) => { indexedDB.open('`+secret+`').onsuccess = (e) => { e.target.result.close(); resolve(); }; });
		await caches.open('`+secret+`');
		return 'ok';
	})()`))
}

func portNumber(text string) int32 {
	number, err := strconv.ParseInt(text, 10, 32)
	if err != nil {
		panic(err) // the listener's own
	}
	return int32(number)
}
