package proxy

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
)

// TestRestartIsTold: a visitor who comes back is told once that the container was
// restarted, and the application sees nothing of it.
func TestRestartIsTold(t *testing.T) {
	for name, strip := range map[string]bool{"the base URL": false, "strip-prefix": true} {
		t.Run(name, func(t *testing.T) {
			inst := application(t, func(w http.ResponseWriter, r *http.Request) {
				fmt.Fprintf(w, "%s with the cookies %q", r.RequestURI, r.Header["Cookie"])
			}, func(i *instance.Instance) {
				i.Restarts, i.RestartReason, i.StripPrefix = 2, "ran out of memory", strip
			})
			p := startProxy(t, inst)
			own := base
			if strip {
				own = "/"
			}
			page := []string{"Accept", "text/html", "Upgrade-Insecure-Requests", "1"}
			const target, cookie = "a%2Fb%7C?x=1", "binder-restarts-"
			res, body := p.get(t, base+target, page...)
			if res.StatusCode != 200 || !strings.Contains(body, "(ran out of memory). It was started again, 2 times so far") || p.touched(1) != 0 {
				t.Errorf("got %d %s, and %d uses", res.StatusCode, body, p.touched(1))
			}
			want := own + "a%2Fb%7C?x=1 with the cookies "
			for _, row := range []struct {
				method, target string
				header         []string
				want           string
			}{
				{"GET", target + "&binder-restarts=2", page, want + "[]"},
				{"GET", target, append(page, "Cookie", cookie+kubetest.ID(1)+"=2"), want + "[]"},
				{"GET", target, append(page, "Cookie", "a=b; "+cookie+kubetest.ID(1)+"=2; c=d"), want + `["a=b; c=d"]`},
				{"POST", target, append(page, "Cookie", cookie+kubetest.ID(1)+"=1; c=d"), want + `["c=d"]`},
				{"GET", target, []string{"Cookie", cookie + kubetest.ID(2) + "=2"}, want + `["` + cookie + kubetest.ID(2) + `=2"]`},
			} {
				if res, got := p.do(t, row.method, base+row.target, nil, row.header...); res.StatusCode != 200 || got != row.want {
					t.Errorf("%s %s with %q: got %d %.200s, want %s", row.method, row.target, row.header, res.StatusCode, got, row.want)
				}
			}
		})
	}
}

// TestNoticesInFrames: the notices of instances can be framed by the origins that the
// operator names.
func TestNoticesInFrames(t *testing.T) {
	p := startProxy(t)
	p.handler.deps.FrameAncestors = []string{"https://hub.example"}
	res, _ := p.get(t, base, "Accept", "text/html")
	if policy := res.Header.Get("Content-Security-Policy"); res.StatusCode != 404 || !strings.HasSuffix(policy, "frame-ancestors 'self' https://hub.example") {
		t.Errorf("got %d with the policy %q", res.StatusCode, policy)
	}
}
