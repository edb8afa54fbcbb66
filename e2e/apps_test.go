//go:build e2e

package e2e

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/binder-project/binder-deploy-kubernetes/e2e/harness"
)

const stripPrefixAnnotation = "binder-project.org/strip-prefix"

// inBothModes runs a test on an application that serves its base URL, and on the same
// application that serves / behind strip-prefix. The template is a copy of app; its
// command gets the base URL as the last argument in the first case.
func inBothModes(t *testing.T, name string, command []string, test func(t *testing.T, app *harness.Instance)) {
	t.Helper()
	for _, strip := range []bool{false, true} {
		t.Run(modeName(strip), func(t *testing.T) {
			t.Parallel()
			test(t, launchApp(t, name, command, strip).AwaitDeployed(t))
		})
	}
}

func modeName(strip bool) string {
	if strip {
		return "strip-prefix"
	}
	return "base-url"
}

// launchApp launches an application of the image apps.
func launchApp(t *testing.T, name string, command []string, strip bool) *harness.Instance {
	t.Helper()
	return launchCopy(t, "app", name, strip, func(container *corev1.Container) {
		container.Command = command
		if !strip {
			container.Args = []string{"$(BINDER_BASE_URL)"}
		}
	})
}

// launchCopy launches a copy of a template with a changed container, with
// strip-prefix or without.
func launchCopy(t *testing.T, from, name string, strip bool, change func(*corev1.Container)) *harness.Instance {
	t.Helper()
	template := name + "-" + modeName(strip)
	suite.CopyTemplate(t, from, template, func(template *corev1.PodTemplate) {
		if strip {
			template.Annotations[stripPrefixAnnotation] = "true"
		}
		change(&template.Template.Spec.Containers[0])
	})
	return suite.Launch(t, template, harness.LongTimeout)
}

// visitor is a browser without pages: it follows redirects and keeps cookies. It
// knows the proxy by the name of browserHost.
type visitor struct {
	t    *testing.T
	home string // the instance's URL with a slash at the end
	http *http.Client
}

// newVisitor returns a visitor of an instance. A redirect that leaves the instance
// fails the test.
func newVisitor(t *testing.T, app *harness.Instance) *visitor {
	t.Helper()
	jar, err := cookiejar.New(nil)
	require.NoError(t, err)
	v := &visitor{t: t, home: browserHost + "/user/" + app.ID + "/"}
	v.http = &http.Client{
		Jar:     jar,
		Timeout: visitTimeout,
		Transport: &http.Transport{
			DisableKeepAlives:  true, // each request can reach any replica
			DisableCompression: true,
			DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, network, harness.PublicHost)
			},
		},
	}
	return v.in(t)
}

// in returns the same visitor for a subtest.
func (v *visitor) in(t *testing.T) *visitor {
	client := *v.http
	client.CheckRedirect = func(request *http.Request, _ []*http.Request) error {
		address := request.URL.String()
		require.True(t, strings.HasPrefix(address, v.home), "%s is not below %s: the visitor leaves the instance", address, v.home)
		return nil
	}
	return &visitor{t: t, home: v.home, http: &client}
}

// reply is an answer whose body has been read.
type reply struct {
	*http.Response
	text string
}

// do sends a request to a path of the instance and follows redirects.
func (v *visitor) do(method, path, body string, header ...string) reply {
	v.t.Helper()
	return v.send(v.http, method, v.home+strings.TrimPrefix(path, "/"), body, header...)
}

// get opens a path of the instance.
func (v *visitor) get(path string, header ...string) reply {
	v.t.Helper()
	return v.do(http.MethodGet, path, "", header...)
}

// first returns the first answer, even if it is a redirect.
func (v *visitor) first(method, path string, header ...string) reply {
	v.t.Helper()
	client := *v.http
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return v.send(&client, method, v.home+strings.TrimPrefix(path, "/"), "", header...)
}

func (v *visitor) send(client *http.Client, method, address, body string, header ...string) reply {
	v.t.Helper()
	request, err := http.NewRequestWithContext(v.t.Context(), method, address, strings.NewReader(body))
	require.NoError(v.t, err)
	for i := 0; i+1 < len(header); i += 2 {
		request.Header.Set(header[i], header[i+1])
	}
	response, err := client.Do(request)
	require.NoError(v.t, err)
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	require.NoError(v.t, err)
	return reply{response, string(data)}
}

// cookies returns the names of the cookies that a request to a URL has.
func (v *visitor) cookies(address string) (names []string) {
	v.t.Helper()
	parsed, err := url.Parse(address)
	require.NoError(v.t, err)
	for _, cookie := range v.http.Jar.Cookies(parsed) {
		names = append(names, cookie.Name)
	}
	return names
}

// TestExpress logs in to a Node application, follows its redirects and checks where
// its cookies go.
func TestExpress(t *testing.T) {
	t.Parallel()
	inBothModes(t, "express", []string{"node", "express.js"}, func(t *testing.T, app *harness.Instance) {
		v := newVisitor(t, app)
		login := v.get("/list")
		require.Equal(t, v.home+"login", strings.Split(login.Request.URL.String(), "?")[0])
		require.Contains(t, login.text, "Log in")
		list := v.send(v.http, http.MethodPost, login.Request.URL.String(), "user=Ada",
			"Content-Type", "application/x-www-form-urlencoded")
		require.Equal(t, v.home+"list", list.Request.URL.String(), "the login must return to the page that asked for it")
		assert.Equal(t, "theme=false filter=false", list.text)
		assert.Equal(t, "Hello Ada", v.get("/").text)
		base := "/user/" + app.ID + "/"

		t.Run("redirects", func(t *testing.T) {
			v := v.in(t)
			for _, path := range []string{"relative", "path", "scheme-relative", "own-address"} {
				got := v.get(path)
				assert.Equal(t, "the first", got.text, path)
				assert.Equal(t, v.home+"list/1", got.Request.URL.String(), path)
			}
			assert.Equal(t, v.home+"static/", v.get("static").Request.URL.String(), "a directory's redirect")
			assert.Equal(t, "https://elsewhere.example/list/1", v.first(http.MethodGet, "elsewhere").Header.Get("Location"))
		})
		t.Run("other fields with addresses", func(t *testing.T) {
			v := v.in(t)
			created := v.first(http.MethodPost, "list")
			assert.Equal(t, http.StatusCreated, created.StatusCode)
			assert.Equal(t, base+"list/1", created.Header.Get("Location"))
			assert.Equal(t, "0; url="+base+"list/1", v.get("refresh").Header.Get("Refresh"))
			assert.Equal(t, "<"+base+`list?page=2>; rel="next", <https://help.example/list>; rel="help"`, v.get("list").Header.Get("Link"))
		})
		t.Run("cookies", func(t *testing.T) {
			v := v.in(t)
			assert.Equal(t, "theme=true filter=true", v.get("list").text)
			assert.ElementsMatch(t, []string{"connect.sid", "theme"}, v.cookies(v.home))
			assert.ElementsMatch(t, []string{"connect.sid", "theme", "filter"}, v.cookies(v.home+"list"))
			assert.Empty(t, v.cookies(browserHost+"/user/"+unknownID+"/"), "another instance must not get them")
			v.get("logout")
			assert.Equal(t, []string{"theme"}, v.cookies(v.home), "logging out must delete the session's cookie")
		})
	})
}
